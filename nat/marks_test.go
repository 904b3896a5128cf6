// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// parseMark reads a rule in the notation of the scripts.
func parseMark(t *testing.T, text string) MarkRule {
	t.Helper()
	s := newScript(t, "rule")
	m := s.mark(strings.Fields(strings.TrimPrefix(text, "mark ")))
	if got := m.String(); got != text {
		t.Fatalf("%q is read as %q", text, got)
	}
	return m
}

func TestMarkRulesRefused(t *testing.T) {
	p := netip.MustParsePrefix
	good := MarkRule{Mark: 1, Proto: ProtoTCP, From: p("192.0.2.0/24"), To: p("10.0.0.0/8"), MinPort: 80, MaxPort: 81, Link: "eth0"}
	r := NewRules()
	if err := r.AddMark(good); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		change func(*MarkRule)
		want   string
	}{
		{func(m *MarkRule) { m.Mark = 0 }, "mark 0"},
		{func(m *MarkRule) { m.Proto = ProtoICMP }, "protocol 1"},
		{func(m *MarkRule) { m.MinPort = 82 }, "port range 82-81"},
		{func(m *MarkRule) { m.MinPort, m.MaxPort = 0, 9 }, "port range 0-9"},
		{func(m *MarkRule) { m.Link = "sixteen-letters-" }, "sixteen"},
		{func(m *MarkRule) { m.Link = "eth 0" }, "no name of a link"},
		{func(m *MarkRule) { m.From = netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 33) }, "not a network"},
		{func(m *MarkRule) { m.From = p("192.0.2.1/24") }, "the network is 192.0.2.0/24"},
		{func(m *MarkRule) { m.From = p("2001:db8::/32") }, "family"},
		{func(m *MarkRule) { m.To = p("::ffff:10.0.0.0/104") }, "not a network"},
		{func(m *MarkRule) { m.To = p("224.0.0.0/4") }, "forwarded"},
		{func(m *MarkRule) { m.To = p("127.0.0.0/8") }, "forwarded"},
		{func(m *MarkRule) { m.From, m.To = netip.Prefix{}, p("fe80::/10") }, "forwarded"},
		{func(m *MarkRule) { m.To = p("0.0.0.0/32") }, "unicast"},
		{func(m *MarkRule) { m.To = p("255.255.255.255/32") }, "unicast"},
	} {
		bad := good
		row.change(&bad)
		if err := r.AddMark(bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %q in it", bad, err, row.want)
		}
	}
	if err := r.AddMark(good); !errors.Is(err, ErrMarkExists) {
		t.Errorf("the same again: %v", err)
	}
	other := good
	other.Mark = 2
	if err := r.AddMark(other); !errors.Is(err, ErrMarkExists) || !strings.Contains(err.Error(), "mark 1") {
		t.Errorf("another mark for the same: %v", err)
	}
	if err := r.DelMark(other); !errors.Is(err, ErrNoMark) {
		t.Errorf("delete what is not there: %v", err)
	}
	if got := r.Marks(); !slices.Equal(got, []MarkRule{good}) {
		t.Errorf("after all that: %v", got)
	}
	if err := r.DelMark(good); err != nil || len(r.Marks()) != 0 {
		t.Errorf("delete: %v, %v are left", err, r.Marks())
	}
}

func TestMarkServices(t *testing.T) {
	r := NewRules()
	a := netip.MustParseAddr
	for _, bad := range []ServiceKey{
		{Mark: 1, Addr: a("192.0.2.1")}, {Mark: 1, Addr: a("0.0.0.0"), Port: 80}, {Mark: 1, Addr: a("::"), Proto: ProtoTCP}, {Mark: 1},
	} {
		if err := r.AddService(ServiceSpec{ServiceKey: bad, Scheduler: "rr"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	four, six := markKey(1, true), markKey(1, false)
	for _, k := range []ServiceKey{four, six} {
		if err := r.AddService(ServiceSpec{ServiceKey: k, Scheduler: "rr"}); err != nil {
			t.Fatal(k, err)
		}
	}
	if err := r.AddService(ServiceSpec{ServiceKey: four, Scheduler: "rr"}); !errors.Is(err, ErrServiceExists) {
		t.Error(err)
	}
	if err := r.AddServer(six, ServerSpec{Addr: a("10.0.0.2"), Weight: 1}); !errors.Is(err, ErrInvalid) {
		t.Error("an IPv4 server in IPv6:", err)
	}
	if err := r.AddServer(four, ServerSpec{Addr: a("10.0.0.2"), Weight: 1}); err != nil {
		t.Error("a server without a port:", err)
	}
	if err := r.AddServer(four, ServerSpec{Addr: a("10.0.0.2"), Port: 80, Weight: 1}); err != nil {
		t.Error("the same with one:", err)
	}
	if err := r.DelServer(four, a("10.0.0.2"), 0); err != nil {
		t.Error(err)
	}

	// An address of ours is no server's.
	for _, m := range []string{"mark 1 to 10.0.0.0/24", "mark 2 to 10.0.0.3/32"} {
		if err := r.AddMark(parseMark(t, m)); err != nil {
			t.Error(m, err)
		}
	}
	if err := r.AddServer(four, ServerSpec{Addr: a("10.0.0.3"), Weight: 1}); !errors.Is(err, ErrInvalid) {
		t.Error("a server that a rule is to:", err)
	}
}

// What rules make ours, keep from being handed out, and say about servers.
func TestMarkedAddresses(t *testing.T) {
	r := NewRules()
	a := netip.MustParseAddr
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []string{
		"mark 1 tcp to 192.0.2.1/32 ports 80-81",
		"mark 1 udp to 192.0.2.0/24",
		"mark 2 to 192.0.2.2/32",
		"mark 1 to 192.0.2.3/32 ports 2000-3024", // one too many to be reserved
		"mark 1 tcp from 2001:db8::/32 port 9",
		"mark 1 tcp port 9",
	} {
		must(r.AddMark(parseMark(t, m)))
	}
	r.SetHost(HostAddresses{Addrs: []netip.Addr{a("192.0.2.1"), a("192.0.2.3")}})
	if got := r.Ours(); len(got) != 0 {
		t.Errorf("without a service ours are %v", got)
	}
	must(r.AddService(ServiceSpec{ServiceKey: markKey(1, true), Scheduler: "rr"}))
	must(r.AddServer(markKey(1, true), ServerSpec{Addr: a("10.0.0.2"), Weight: 1}))
	must(r.AddServer(markKey(1, true), ServerSpec{Addr: a("10.0.0.3"), Port: 8080, Weight: 1}))
	r.Publish()

	want := []OwnAddress{{Addr: a("192.0.2.1"), OnHost: true, Service: true}, {Addr: a("192.0.2.3"), OnHost: true, Service: true}}
	if got := r.Ours(); !slices.Equal(got, want) {
		t.Errorf("ours are\n     %v\nwant %v", got, want)
	}
	var traffic []string
	for _, m := range r.MarkedTraffic() {
		traffic = append(traffic, m.String())
	}
	if want := []string{
		"mark 1 tcp from 0.0.0.0/0 to 192.0.2.1/32 ports 80-81",
		"mark 1 udp from 0.0.0.0/0 to 192.0.2.0/24",
		"mark 1 from 0.0.0.0/0 to 192.0.2.3/32 ports 2000-3024",
		"mark 1 tcp from 0.0.0.0/0 to 0.0.0.0/0 port 9",
	}; !slices.Equal(traffic, want) {
		t.Errorf("marked is\n     %q\nwant %q", traffic, want)
	}
	hostPorts := []HostPorts{
		{Addr: a("192.0.2.1"), Min: 61000, Max: 65534, Except: []uint16{80, 81}},
		{Addr: a("192.0.2.3"), Min: 61000, Max: 65534},
	}
	if got := r.HostPorts(); !reflect.DeepEqual(got, hostPorts) {
		t.Errorf("ports of the host\n     %v\nwant %v", got, hostPorts)
	}

	ports := func() (list []string) {
		for _, p := range r.ServerPorts() {
			list = append(list, fmt.Sprintf("%s %s %d-%d", protoName(p.Proto), p.Addr, p.Min, p.Max))
		}
		return list
	}
	serve := []string{
		"tcp 10.0.0.2 9-9", "tcp 10.0.0.2 80-81", "tcp 10.0.0.2 2000-3024", "tcp 10.0.0.3 8080-8080",
		"udp 10.0.0.2 1-65535", "udp 10.0.0.2 2000-3024", "udp 10.0.0.3 8080-8080",
		"sctp 10.0.0.2 2000-3024", "sctp 10.0.0.3 8080-8080",
	}
	if got := ports(); !slices.Equal(got, serve) {
		t.Errorf("servers serve at\n     %q\nwant %q", got, serve)
	}
	must(r.DelService(markKey(1, true)))
	if got := ports(); !slices.Equal(got, serve) { // its replies go on
		t.Errorf("servers of a deleted service serve at\n     %q\nwant %q", got, serve)
	}
}

// Servers that serve at ranges of ports, several of them at one address.
func TestEndpointRanges(t *testing.T) {
	a := netip.MustParseAddr
	table := newEndpointTable([]ServerPorts{
		{ProtoTCP, a("10.0.0.2"), 80, 80}, {ProtoTCP, a("10.0.0.2"), 100, 200}, {ProtoTCP, a("10.0.0.2"), 150, 300},
		{ProtoTCP, a("10.0.0.2"), 65535, 65535}, {ProtoUDP, a("10.0.0.3"), 1, 65535},
	})
	for _, row := range []struct {
		proto uint8
		at    string
		want  bool
	}{
		{ProtoTCP, "10.0.0.2:80", true}, {ProtoTCP, "10.0.0.2:81", false}, {ProtoTCP, "10.0.0.2:99", false},
		{ProtoTCP, "10.0.0.2:100", true}, {ProtoTCP, "10.0.0.2:200", true}, {ProtoTCP, "10.0.0.2:300", true},
		{ProtoTCP, "10.0.0.2:301", false}, {ProtoTCP, "10.0.0.2:65535", true}, {ProtoUDP, "10.0.0.2:80", false},
		{ProtoUDP, "10.0.0.3:1", true}, {ProtoUDP, "10.0.0.3:65535", true}, {ProtoTCP, "10.0.0.3:1", false},
		{ProtoTCP, "10.0.0.4:80", false},
	} {
		e := conntrack.EndpointFrom(netip.MustParseAddrPort(row.at))
		if got := table.holds(&e, row.proto); got != row.want {
			t.Errorf("%s %s: %v", protoName(row.proto), row.at, got)
		}
	}
}

// A first packet finds its rule among ten thousand addresses as among one, and
// the rules are tried in their order whatever part of the table they stand in.
func TestManyMarkRules(t *testing.T) {
	const n = 10000
	s := newScript(t, "many")
	s.step("service", "mark 1 sched rr")
	s.step("server", "10.0.0.2:0")
	s.step("service", "mark 2 sched rr")
	s.step("server", "10.0.0.3:0")
	at := func(i int) string { return fmt.Sprintf("203.0.%d.%d", 100+i>>8, i&255) }
	for i := range n {
		if i == n/2 {
			s.step("mark", "2 tcp port 80")
		}
		s.step("mark", fmt.Sprintf("1 tcp to %s/32 ports 80-81", at(i)))
	}
	f := s.forwarder()
	defer f.Close()
	table := &f.snap.marks
	if len(table.lengths) != 3 { // one address, everything in IPv4, everything in IPv6
		t.Errorf("a first packet looks at prefixes of the lengths %v", table.lengths)
	}
	for _, span := range table.spans {
		if span.end-span.first != 1 {
			t.Fatalf("%v has %d rules", span.to, span.end-span.first)
		}
	}
	for i, want := range map[int]string{0: "10.0.0.2", n/2 - 1: "10.0.0.2", n / 2: "10.0.0.3", n - 1: "10.0.0.3"} {
		for port, want := range map[int]string{80: want, 81: "10.0.0.2"} {
			s.arrive("", fmt.Sprintf("tcp 192.168.88.21:%d > %s:%d S", 20000+i, at(i), port))
			if got := netip.AddrFrom4([4]byte(s.packet.Data[16:20])).String(); s.verdict.Action != Forward || got != want {
				t.Errorf("%s:%d: %s %s to %s, want %s", at(i), port, s.verdict.Action, s.verdict.Reason, got, want)
			}
			s.verdict = nil
		}
	}
}

// TestMarkTableFinds compares with rules tried one after the other.
func TestMarkTableFinds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	net4 := func() netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(3)), byte(rnd.IntN(4))})
		return netip.PrefixFrom(a, rnd.IntN(33)).Masked()
	}
	net6 := func() netip.Prefix {
		a := [16]byte{0: 0x20, 1: 0x01, 7: byte(rnd.IntN(2)), 8: byte(rnd.IntN(2) << 7), 15: byte(rnd.IntN(3))}
		return netip.PrefixFrom(netip.AddrFrom16(a), rnd.IntN(129)).Masked()
	}
	found := 0
	for round := range 60 {
		r := NewRules()
		r.SetPorts([]PortInfo{{Index: 0, Name: "a", MTU: 1500, Up: true}, {Index: 63, Name: "b", MTU: 1500, Up: true}})
		for _, four := range []bool{true, false} {
			for mark := range uint32(3) { // the fourth has no service
				if err := r.AddService(ServiceSpec{ServiceKey: markKey(mark+1, four), Scheduler: "rr"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range rnd.IntN(20) {
			net := net4
			if rnd.IntN(2) == 0 {
				net = net6
			}
			m := MarkRule{Mark: 1 + rnd.Uint32N(4), Proto: []uint8{0, ProtoTCP, ProtoUDP}[rnd.IntN(3)], Link: []string{"", "", "a", "b", "c"}[rnd.IntN(5)]}
			if rnd.IntN(2) == 0 {
				m.From = net()
			}
			if rnd.IntN(4) != 0 {
				m.To = net()
			}
			if rnd.IntN(2) == 0 {
				m.MinPort = 1 + uint16(rnd.IntN(3))
				m.MaxPort = m.MinPort + uint16(rnd.IntN(3))
			}
			if err := r.AddMark(m); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMarkExists) {
				t.Fatal(err)
			}
		}
		r.Publish()
		s := r.current.Load()
		for range 200 {
			net := net4
			if rnd.IntN(2) == 0 {
				net = net6
			}
			src, dst := net().Addr(), net().Addr()
			p := Packet{In: uint16(rnd.IntN(2) * 63)}
			k := conntrack.Tuple{
				Src:   conntrack.Endpoint{Addr: conntrack.AddrFrom(src), Port: 9},
				Dst:   conntrack.Endpoint{Addr: conntrack.AddrFrom(dst), Port: 1 + uint16(rnd.IntN(6))},
				Proto: []uint8{ProtoTCP, ProtoUDP, ProtoSCTP}[rnd.IntN(3)],
			}
			want, wide := int32(-1), false
			for _, m := range slices.Backward(r.Marks()) {
				name := map[uint16]string{0: "a", 63: "b"}[p.In]
				between := (!m.From.IsValid() || m.From.Contains(src)) && (!m.To.IsValid() || m.To.Contains(dst)) && src.Is4() == dst.Is4()
				v := r.byKey[markKey(m.Mark, dst.Is4())]
				wide = wide || between && v != nil && !m.To.IsSingleIP()
				if between && (m.Proto == 0 || m.Proto == k.Proto) && (m.Link == "" || m.Link == name) &&
					(m.MaxPort == 0 || k.Dst.Port >= m.MinPort && k.Dst.Port <= m.MaxPort) {
					if want = -1; v != nil {
						want = int32(v.slot)
					}
				}
			}
			got := int32(-1)
			if m := s.marks.find(&p, &k, false); m != nil {
				got = m.service
			}
			if got != want && src.Is4() == dst.Is4() {
				t.Fatalf("round %d: %v by port %d: service %d, want %d, of %v", round, k, p.In, got, want, r.Marks())
			}
			if got := s.marks.between(&k.Src.Addr, &k.Dst.Addr); got != wide {
				t.Fatalf("round %d: between %v and %v: %v, want %v, by %v", round, src, dst, got, wide, r.Marks())
			}
			if got >= 0 {
				found++
			}
		}
	}
	if found < 1000 {
		t.Errorf("%d packets have a service", found)
	}
}
