// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// FAULTS 103: an index stays with its link.
func TestIndexStays(t *testing.T) {
	var w world
	take := func(link iface.Link) (int, bool) {
		i, reused := w.index(link)
		if i >= 0 {
			w.ports[i].name, w.ports[i].link = link.Name, link.Index
		}
		return i, reused
	}
	type row struct {
		what   string
		links  []iface.Link // there are
		take   iface.Link
		index  int
		reused bool
	}
	link := func(index int, name string) iface.Link { return iface.Link{Index: index, Name: name} }
	for _, r := range []row{
		{"first", []iface.Link{link(2, "a"), link(3, "b")}, link(2, "a"), 0, false},
		{"second", []iface.Link{link(2, "a"), link(3, "b")}, link(3, "b"), 1, false},
		{"again", []iface.Link{link(2, "a"), link(3, "b")}, link(2, "a"), 0, false},
		{"renamed", []iface.Link{link(2, "c"), link(3, "b")}, link(2, "c"), 0, false},
		{"another of the old name", []iface.Link{link(2, "c"), link(3, "b"), link(4, "a")}, link(4, "a"), 2, false},
		{"removed and created", []iface.Link{link(2, "c"), link(4, "a"), link(9, "b")}, link(9, "b"), 1, false},
		{"names exchanged", []iface.Link{link(2, "a"), link(4, "c"), link(9, "b")}, link(2, "a"), 0, false},
		{"names exchanged, the other", []iface.Link{link(2, "a"), link(4, "c"), link(9, "b")}, link(4, "c"), 2, false},
		{"the name of one that has another now", []iface.Link{link(2, "q"), link(4, "c"), link(9, "b"), link(11, "a")}, link(11, "a"), 3, false},
		{"a new one while others are gone", []iface.Link{link(12, "d")}, link(12, "d"), 4, false},
	} {
		w.topology = iface.Topology{Links: r.links}
		if i, reused := take(r.take); i != r.index || reused != r.reused {
			t.Errorf("%s: index %d, reused %v; want %d, %v", r.what, i, reused, r.index, r.reused)
		}
	}

	w = world{}
	for i := range nat.MaxPorts {
		l := link(100+i, fmt.Sprint("x", i))
		w.topology.Links = append(w.topology.Links, l)
		take(l)
	}
	if i, _ := take(link(500, "late")); i != -1 {
		t.Errorf("one too many got index %d", i)
	}
	w.topology.Links = slices.Delete(w.topology.Links, 5, 6)
	if i, reused := take(link(500, "late")); i != 5 || !reused {
		t.Errorf("the place of one that is gone: %d, reused %v", i, reused)
	}
}

func TestHostRoutes(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	by := func(link int) (way, bool) {
		return map[int]way{2: {port: 0}, 3: {port: 1, mtu: 1400}}[link], link == 2 || link == 3
	}
	for _, r := range []struct {
		what string
		in   []iface.Route
		want []nat.Route
	}{
		{"nothing", nil, nil},
		{"on the link", []iface.Route{{Dst: p("10.0.0.0/24"), Link: 2, Metric: 7, Source: a("10.0.0.1")}},
			[]nat.Route{{Dst: p("10.0.0.0/24"), Port: 0, Metric: 7, Source: a("10.0.0.1")}}},
		{"by a gateway, MTU of the route", []iface.Route{{Dst: p("0.0.0.0/0"), Gateway: a("10.0.0.9"), Link: 2, MTU: 1300}},
			[]nat.Route{{Dst: p("0.0.0.0/0"), Gateway: a("10.0.0.9"), Port: 0, MTU: 1300}}},
		{"MTU of the link", []iface.Route{{Dst: p("10.2.0.0/16"), Link: 3}, {Dst: p("10.3.0.0/16"), Link: 3, MTU: 9000}, {Dst: p("10.4.0.0/16"), Link: 3, MTU: 1000}},
			[]nat.Route{{Dst: p("10.2.0.0/16"), Port: 1, MTU: 1400}, {Dst: p("10.3.0.0/16"), Port: 1, MTU: 1400}, {Dst: p("10.4.0.0/16"), Port: 1, MTU: 1000}}},
		{"unreachable", []iface.Route{{Dst: p("10.5.0.0/16"), Link: 0, Metric: 4}}, []nat.Route{{Dst: p("10.5.0.0/16"), Port: nat.NoPort, Metric: 4}}},
		{"by a link that is not served", []iface.Route{{Dst: p("10.6.0.0/16"), Link: 8}}, []nat.Route{{Dst: p("10.6.0.0/16"), Port: nat.NoPort}}},
		{"by an IPv6 gateway", []iface.Route{{Dst: p("10.7.0.0/16"), Gateway: a("fe80::1"), Link: 2}}, []nat.Route{{Dst: p("10.7.0.0/16"), Port: nat.NoPort}}},
		{"two next hops, one usable", []iface.Route{{Dst: p("10.8.0.0/16"), Link: 8}, {Dst: p("10.8.0.0/16"), Link: 2}},
			[]nat.Route{{Dst: p("10.8.0.0/16"), Port: 0}, {Dst: p("10.8.0.0/16"), Port: nat.NoPort}}},
		{"IPv6", []iface.Route{{Dst: p("2001:db8::/32"), Gateway: a("fe80::1"), Link: 2}}, []nat.Route{{Dst: p("2001:db8::/32"), Gateway: a("fe80::1"), Port: 0}}},
	} {
		if got := hostRoutes(r.in, by); !reflect.DeepEqual(got, r.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", r.what, got, r.want)
		}
	}
}

// FAULTS 106: what the host must not get, of addresses it has and of those it
// has not.
func TestGuardRules(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	const bare, shared, server = "192.0.2.1", "192.0.2.2", "10.0.0.2"
	key := func(addr string) nat.ServiceKey {
		return nat.ServiceKey{Proto: nat.ProtoTCP, Addr: a(addr), Port: 80}
	}
	service := func(addr string) func(*nat.Rules) {
		return func(r *nat.Rules) {
			must(t, r.AddService(nat.ServiceSpec{ServiceKey: key(addr), Scheduler: "rr"}))
			must(t, r.AddServer(key(addr), nat.ServerSpec{Addr: a(server), Port: 8080, Weight: 1}))
		}
	}
	snat := func(addr string) func(*nat.Rules) {
		return func(r *nat.Rules) {
			must(t, r.AddSNAT(nat.SNATSpec{From: p("10.0.0.0/24"), To: a(addr), MinPort: 50000, MaxPort: 50010}))
		}
	}
	served := []iface.GuardService{{Proto: nat.ProtoTCP, Addr: a(server), Port: 8080}}
	for name, row := range map[string]struct {
		make []func(*nat.Rules)
		want iface.GuardRules
	}{
		"nothing": {},
		"service on an address of its own": {[]func(*nat.Rules){service(bare)},
			iface.GuardRules{Owned: []netip.Addr{a(bare)}, Servers: served}},
		"service on an address of the host": {[]func(*nat.Rules){service(shared)}, iface.GuardRules{
			Services: []iface.GuardService{{Proto: nat.ProtoTCP, Addr: a(shared), Port: 80}}, Servers: served,
			SNAT: []iface.GuardPorts{{Addr: a(shared), Min: 61000, Max: 65534, Except: []uint16{80}}},
		}},
		"SNAT to an address of its own": {[]func(*nat.Rules){snat(bare)},
			iface.GuardRules{Owned: []netip.Addr{a(bare)}, Inside: []netip.Prefix{p("10.0.0.0/24")}}},
		"SNAT to an address of the host": {[]func(*nat.Rules){snat(shared)}, iface.GuardRules{
			Inside: []netip.Prefix{p("10.0.0.0/24")},
			SNAT:   []iface.GuardPorts{{Addr: a(shared), Min: 50000, Max: 50010, Except: []uint16{50005}}},
		}},
		"a gateway": {[]func(*nat.Rules){func(r *nat.Rules) { r.SetOwned([]netip.Prefix{p("10.0.0.1/24")}) }},
			iface.GuardRules{Owned: []netip.Addr{a("10.0.0.1")}}},
		"a deleted server": {[]func(*nat.Rules){service(bare), func(r *nat.Rules) { must(t, r.DelServer(key(bare), a(server), 8080)) }},
			iface.GuardRules{Owned: []netip.Addr{a(bare)}, Servers: served}},
		"a deleted service": {[]func(*nat.Rules){service(bare), func(r *nat.Rules) { must(t, r.DelService(key(bare))) }},
			iface.GuardRules{Servers: served}},
	} {
		r := nat.NewRules()
		r.SetHost(nat.HostAddresses{
			Addrs:        []netip.Addr{a(shared)},
			Busy:         []nat.BusyEndpoint{{Proto: nat.ProtoTCP, Addr: netip.IPv4Unspecified(), Port: 50005}},
			EphemeralMin: 32768, EphemeralMax: 49999,
		})
		if name == "service on an address of the host" {
			r.SetHost(nat.HostAddresses{Addrs: []netip.Addr{a(shared)}})
		}
		for _, m := range row.make {
			m(r)
		}
		row.want.Links, row.want.Host = []string{"eth0"}, []netip.Addr{a(shared)}
		if got := guardRules(r, r.Ours(), row.want.Host, row.want.Links); !got.Equal(row.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, row.want)
		}
	}
}

// What marks mean to filter and guard, on addresses of the host and of our own, in
// networks, and for the ports of servers.
func TestMarkedTraffic(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	const bare, shared, server = "192.0.2.1", "192.0.2.2", "10.0.0.2"
	key := nat.ServiceKey{Mark: 1, Addr: netip.IPv4Unspecified()}
	all := p("0.0.0.0/0")
	span := []iface.GuardPorts{{Addr: a(shared), Min: 61000, Max: 65534}}
	service := func(proto uint8, addr string, port uint16) iface.GuardService {
		return iface.GuardService{Proto: proto, Addr: a(addr), Port: port}
	}
	three := func(addr string, port uint16) []iface.GuardService {
		return []iface.GuardService{service(nat.ProtoTCP, addr, port), service(nat.ProtoUDP, addr, port), service(nat.ProtoSCTP, addr, port)}
	}
	for name, row := range map[string]struct {
		rule nat.MarkRule
		port uint16 // of the server
		nets []netip.Prefix
		want iface.GuardRules
	}{
		"an address of its own": {nat.MarkRule{Proto: nat.ProtoTCP, To: p(bare + "/32"), MinPort: 80, MaxPort: 80}, 0, nil, iface.GuardRules{
			Owned: []netip.Addr{a(bare)}, Servers: []iface.GuardService{service(nat.ProtoTCP, server, 80)},
		}},
		"an address of the host": {nat.MarkRule{Proto: nat.ProtoTCP, To: p(shared + "/32"), MinPort: 80, MaxPort: 81}, 8080, nil, iface.GuardRules{
			Services: []iface.GuardService{service(nat.ProtoTCP, shared, 80), service(nat.ProtoTCP, shared, 81)},
			Servers:  []iface.GuardService{service(nat.ProtoTCP, server, 8080)},
			SNAT:     []iface.GuardPorts{{Addr: a(shared), Min: 61000, Max: 65534, Except: []uint16{80, 81}}},
		}},
		"all of an address of the host": {nat.MarkRule{To: p(shared + "/32")}, 0, nil, iface.GuardRules{
			Services: three(shared, 0), Servers: three(server, 0), SNAT: span,
		}},
		"many ports": {nat.MarkRule{Proto: nat.ProtoUDP, To: p(shared + "/32"), MinPort: 1000, MaxPort: 9000}, 0, nil, iface.GuardRules{
			Marked:      []iface.GuardMark{{Proto: nat.ProtoUDP, From: all, To: p(shared + "/32"), Min: 1000, Max: 9000}},
			ServerPorts: []iface.GuardRange{{Proto: nat.ProtoUDP, Addr: a(server), Min: 1000, Max: 9000}},
			SNAT:        span,
		}},
		"from a network, by a link": {nat.MarkRule{Proto: nat.ProtoTCP, From: p("10.9.0.0/16"), To: p(shared + "/32"), Link: "eth1"}, 80, nil, iface.GuardRules{
			Marked:  []iface.GuardMark{{Proto: nat.ProtoTCP, From: p("10.9.0.0/16"), To: p(shared + "/32"), Link: "eth1"}},
			Servers: []iface.GuardService{service(nat.ProtoTCP, server, 80)},
			SNAT:    span,
		}},
		"to a network": {nat.MarkRule{Proto: nat.ProtoTCP, To: p("203.0.113.0/24"), MinPort: 80, MaxPort: 80}, 0, []netip.Prefix{p("203.0.113.0/24")}, iface.GuardRules{
			Marked:  []iface.GuardMark{{Proto: nat.ProtoTCP, From: all, To: p("203.0.113.0/24"), Min: 80, Max: 80}},
			Servers: []iface.GuardService{service(nat.ProtoTCP, server, 80)},
		}},
		"to everywhere": {nat.MarkRule{Proto: nat.ProtoTCP, From: p("192.0.2.0/24")}, 80, []netip.Prefix{all}, iface.GuardRules{
			Marked:  []iface.GuardMark{{Proto: nat.ProtoTCP, From: p("192.0.2.0/24"), To: all}},
			Servers: []iface.GuardService{service(nat.ProtoTCP, server, 80)},
		}},
		"of a mark without a service":   {nat.MarkRule{Mark: 2, To: p("203.0.113.0/24")}, 80, nil, iface.GuardRules{}},
		"in IPv6, which has no service": {nat.MarkRule{To: p("2001:db8::/32")}, 80, nil, iface.GuardRules{}},
	} {
		r := nat.NewRules()
		r.SetHost(nat.HostAddresses{Addrs: []netip.Addr{a(shared)}})
		must(t, r.AddService(nat.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
		must(t, r.AddServer(key, nat.ServerSpec{Addr: a(server), Port: row.port, Weight: 1}))
		if row.rule.Mark == 0 {
			row.rule.Mark = 1
		}
		must(t, r.AddMark(row.rule))
		row.want.Host = []netip.Addr{a(shared)}
		if got := guardRules(r, r.Ours(), row.want.Host, nil); !got.Equal(row.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, row.want)
		}
		if got := markedNetworks(r); !slices.Equal(got, row.nets) {
			t.Errorf("%s: reads what goes to %v, want %v", name, got, row.nets)
		}
		if got := linksUnseen(r); (len(got) > 0) != (row.rule.Link != "") {
			t.Errorf("%s: with io: tun told %q", name, got)
		}
	}
}

func TestInside(t *testing.T) {
	r := nat.NewRules()
	must(t, r.AddService(nat.ServiceSpec{ServiceKey: web, Scheduler: "rr"}))
	for _, s := range []netip.Addr{serverIP, silentIP} {
		must(t, r.AddServer(web, nat.ServerSpec{Addr: s, Port: 80, Weight: 1}))
		must(t, r.AddServer(web, nat.ServerSpec{Addr: s, Port: 81, Weight: 1}))
	}
	must(t, r.DelServer(web, silentIP, 80))
	must(t, r.DelServer(web, silentIP, 81))
	must(t, r.AddSNAT(nat.SNATSpec{From: netip.MustParsePrefix("10.9.0.0/16"), To: vip}))
	got := fmt.Sprint(inside(r))
	if want := "[10.9.0.0/16 10.0.0.2/32 10.0.0.9/32]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBusyEndpoints(t *testing.T) {
	a := netip.MustParseAddr
	got := busyEndpoints([]iface.BusyPort{
		{Proto: 6, Addr: a("0.0.0.0"), Port: 22}, {Proto: 6, Addr: a("127.0.0.1"), Port: 25}, {Proto: 17, Addr: a("192.0.2.1"), Port: 40000},
		{Proto: 17, Addr: a("192.0.2.1"), Port: 60000}, {Proto: 6, Addr: a("::"), Port: 443},
	}, 32768, 59999)
	want := []nat.BusyEndpoint{{Proto: 6, Addr: a("0.0.0.0"), Port: 22}, {Proto: 17, Addr: a("192.0.2.1"), Port: 60000}, {Proto: 6, Addr: a("::"), Port: 443}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestThroughTUN(t *testing.T) {
	p := netip.MustParsePrefix
	got := throughTUN([]nat.PortInfo{{Index: 3, Name: "a", Addrs: []netip.Prefix{p("192.0.2.1/24")}}, {Index: 1, Name: "b", Addrs: []netip.Prefix{p("10.0.0.1/8")}}}, &iface.TUNHost{})
	if len(got) != 1 || got[0].Index != tunPort || !got[0].L3 || !got[0].Up || !slices.Equal(got[0].Addrs, []netip.Prefix{p("192.0.2.1/24"), p("10.0.0.1/8")}) {
		t.Errorf("got %+v", got)
	}
	// Each link's MTU counts; one that is down is no way.
	d := &director{tunHost: &iface.TUNHost{}}
	d.world.topology.Links = []iface.Link{{Index: 2, MTU: 1400, AdminUp: true}, {Index: 3, MTU: 1500}}
	if w, ok := d.way(2); !ok || w != (way{tunPort, 1400}) {
		t.Errorf("by a link: %+v, %v", w, ok)
	}
	for _, link := range []int{0, 3, 4} {
		if w, ok := d.way(link); ok {
			t.Errorf("by link %d: %+v", link, w)
		}
	}
}

// An IPv6 address of the host that sits where no neighbour asks, such as lo, is
// answered for by us; IPv4's is answered for by the host wherever it sits.
func TestHiddenAddresses(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	w := &world{served: []string{"eth0"}, topology: iface.Topology{Links: []iface.Link{
		{Name: "lo", Addrs: []netip.Prefix{p("2001:db8::23/128"), p("192.0.2.23/32")}},
		{Name: "eth0", Addrs: []netip.Prefix{p("2001:db8::20/64")}},
	}}}
	for addr, want := range map[string]bool{
		"2001:db8::23": true, "2001:db8::20": false, "192.0.2.23": false,
	} {
		if got := w.hidden(a(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
