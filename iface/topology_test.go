// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// host is a namespace with a watcher on it.
type host struct {
	*testing.T
	*ifacetest.Namespace
	seen   chan iface.Topology
	cancel context.CancelFunc
	ended  chan error
	last   iface.Topology
	calls  int // received by until
}

// newHost watches a new namespace from a goroutine that is not in it.
func newHost(t *testing.T) *host {
	h := &host{T: t, Namespace: ifacetest.NewNamespace(t), seen: make(chan iface.Topology, 1000), ended: make(chan error, 1)}
	var w *iface.TopologyWatcher
	if err := h.Do(func() (err error) { w, err = iface.OpenTopologyWatcher(); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.ended <- w.Run(ctx, func(topology iface.Topology) { h.seen <- topology }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-h.ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

// until waits for a topology of which good is true, and checks that no two that
// follow each other are equal.
func (h *host) until(what string, good func(iface.Topology) bool) iface.Topology {
	h.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case now := <-h.seen:
			h.calls++
			if now.Equal(h.last) {
				h.Errorf("%s: called without a change", what)
			}
			h.last = now
			if good(now) {
				return now
			}
		case <-deadline:
			h.Fatalf("%s: never seen; last %+v", what, h.last)
		}
	}
}

func (h *host) do(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *host) link(name string) netlink.Link {
	h.Helper()
	l, err := h.Handle.LinkByName(name)
	h.do(err)
	return l
}

func (h *host) addVeth(name, peer string) {
	h.Helper()
	h.do(h.Handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}))
}

func has(name string, good func(iface.Link) bool) func(iface.Topology) bool {
	return func(t iface.Topology) bool {
		l, ok := t.LinkByName(name)
		return ok && good(l)
	}
}

func parseNet(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

func TestWatchFollowsLinks(t *testing.T) {
	h := newHost(t)
	first := h.until("the start", func(iface.Topology) bool { return true })
	if lo, ok := first.LinkByName("lo"); !ok || !lo.Loopback || lo.Ethernet || !lo.Up || len(first.Links) != 1 {
		t.Errorf("at the start: %+v", first.Links)
	}

	h.addVeth("a0", "b0")
	down := h.until("a veth", has("a0", func(l iface.Link) bool { return true }))
	a, _ := down.LinkByName("a0")
	want := h.link("a0").Attrs()
	if a.Index != want.Index || !slices.Equal(a.MAC[:], []byte(want.HardwareAddr)) || a.MTU != 1500 || a.Kind != "veth" ||
		!a.Ethernet || a.Loopback || a.AdminUp || a.Up || a.Master != 0 {
		t.Errorf("a new veth: %+v", a)
	}
	h.do(h.Handle.LinkSetUp(h.link("a0")))
	h.until("up without carrier", has("a0", func(l iface.Link) bool { return l.AdminUp && !l.Up }))
	h.do(h.Handle.LinkSetUp(h.link("b0")))
	h.until("carrier", has("a0", func(l iface.Link) bool { return l.AdminUp && l.Up }))
	h.do(h.Handle.LinkSetDown(h.link("b0")))
	h.until("carrier lost", has("a0", func(l iface.Link) bool { return l.AdminUp && !l.Up }))

	h.do(h.Handle.LinkSetMTU(h.link("a0"), 1400))
	h.until("MTU", has("a0", func(l iface.Link) bool { return l.MTU == 1400 }))
	h.do(h.Handle.LinkSetMTU(h.link("a0"), 1300))
	h.do(h.Handle.LinkSetMTU(h.link("a0"), 1400))
	time.Sleep(200 * time.Millisecond) // the kernel's events come when they come; until sees a call too many
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 77}
	h.do(h.Handle.LinkSetHardwareAddr(h.link("a0"), mac))
	h.until("MAC", has("a0", func(l iface.Link) bool { return l.MAC == [6]byte(mac) }))

	h.do(h.Handle.LinkSetDown(h.link("a0")))
	h.until("down", has("a0", func(l iface.Link) bool { return !l.AdminUp }))
	h.do(h.Handle.LinkSetName(h.link("a0"), "wan0"))
	h.until("renamed", func(t iface.Topology) bool {
		_, old := t.LinkByName("a0")
		l, ok := t.LinkByName("wan0")
		return !old && ok && l.Index == a.Index
	})

	h.do(h.Handle.LinkDel(h.link("wan0")))
	h.until("removed", func(t iface.Topology) bool { return len(t.Links) == 1 })
	h.addVeth("wan0", "b0")
	h.until("created again", has("wan0", func(l iface.Link) bool { return l.Index != a.Index }))
}

func TestWatchFollowsMasters(t *testing.T) {
	h := newHost(t)
	h.addVeth("a0", "b0")
	h.do(h.Handle.LinkSetUp(h.link("a0")))
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	h.do(h.Handle.LinkAdd(bridge))
	h.do(h.Handle.LinkSetUp(h.link("br0")))
	serving := func(want string) func(iface.Topology) bool {
		return func(t iface.Topology) bool {
			links, _ := t.Serving(nil)
			var names []string
			for _, l := range links {
				names = append(names, l.Name)
			}
			slices.Sort(names)
			return strings.Join(names, " ") == want
		}
	}
	h.until("both are served", serving("a0 br0"))
	h.do(h.Handle.LinkSetMaster(h.link("a0"), bridge))
	h.until("enslaved", has("a0", func(l iface.Link) bool {
		return l.Master == h.link("br0").Attrs().Index && l.MasterKind == "bridge"
	}))
	if !serving("br0")(h.last) {
		t.Errorf("a port of a bridge is served: %+v", h.last.Links)
	}
	h.do(h.Handle.LinkSetNoMaster(h.link("a0")))
	h.until("released", serving("a0 br0"))
}

func TestWatchFollowsAddressesAndRoutes(t *testing.T) {
	h := newHost(t)
	h.addVeth("a0", "b0")
	h.do(h.Handle.LinkSetUp(h.link("a0")))
	h.do(h.Handle.LinkSetUp(h.link("b0")))
	a := h.link("a0")
	index := a.Attrs().Index

	h.do(h.Handle.AddrAdd(a, &netlink.Addr{IPNet: parseNet("192.0.2.1/24")}))
	h.do(h.Handle.AddrAdd(a, &netlink.Addr{IPNet: parseNet("192.0.2.7/24")}))
	h.do(h.Handle.AddrAdd(a, &netlink.Addr{IPNet: parseNet("2001:db8::1/64"), Flags: unix.IFA_F_NODAD}))
	now := h.until("addresses", has("a0", func(l iface.Link) bool {
		return slices.Contains(l.Addrs, netip.MustParsePrefix("192.0.2.1/24")) &&
			slices.Contains(l.Addrs, netip.MustParsePrefix("192.0.2.7/24")) &&
			slices.Contains(l.Addrs, netip.MustParsePrefix("2001:db8::1/64"))
	}))
	onLink := iface.Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: index, Table: unix.RT_TABLE_MAIN, Source: netip.MustParseAddr("192.0.2.1")}
	if !slices.Contains(now.Routes, onLink) {
		t.Errorf("no %+v among %+v", onLink, now.Routes)
	}

	route := func(dst, gateway string, more netlink.Route) {
		t.Helper()
		more.Dst, more.Gw, more.LinkIndex = parseNet(dst), net.ParseIP(gateway), index
		h.do(h.Handle.RouteAdd(&more))
	}
	route("0.0.0.0/0", "192.0.2.254", netlink.Route{Priority: 100})
	route("0.0.0.0/0", "192.0.2.253", netlink.Route{Priority: 50})
	route("198.51.100.0/24", "192.0.2.9", netlink.Route{MTU: 1300, Src: net.ParseIP("192.0.2.7")})
	route("2001:db8:5::/48", "2001:db8::9", netlink.Route{})
	route("::/0", "fe80::9", netlink.Route{MTU: 1400})
	route("203.0.113.0/24", "192.0.2.9", netlink.Route{Table: 77}) // not ours to follow
	h.do(h.Handle.RouteAdd(&netlink.Route{Dst: parseNet("198.51.100.128/25"), Type: unix.RTN_BLACKHOLE}))
	h.do(h.Handle.RouteAdd(&netlink.Route{Dst: parseNet("10.0.0.0/8"), MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: index, Gw: net.ParseIP("192.0.2.11")}, {LinkIndex: index, Gw: net.ParseIP("192.0.2.12")}}}))
	var got []string
	want := []string{
		"198.51.100.128/25 via invalid IP link 0 mtu 0 metric 0 src invalid IP",
		"192.0.2.0/24 via invalid IP link 1 mtu 0 metric 0 src 192.0.2.1",
		"198.51.100.0/24 via 192.0.2.9 link 1 mtu 1300 metric 0 src 192.0.2.7",
		"10.0.0.0/8 via 192.0.2.11 link 1 mtu 0 metric 0 src invalid IP",
		"10.0.0.0/8 via 192.0.2.12 link 1 mtu 0 metric 0 src invalid IP",
		"0.0.0.0/0 via 192.0.2.253 link 1 mtu 0 metric 50 src invalid IP",
		"0.0.0.0/0 via 192.0.2.254 link 1 mtu 0 metric 100 src invalid IP",
		"2001:db8:5::/48 via 2001:db8::9 link 1 mtu 0 metric 1024 src invalid IP",
		"::/0 via fe80::9 link 1 mtu 1400 metric 1024 src invalid IP",
	}
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(got, want) && time.Now().Before(deadline); {
		h.until("a change", func(iface.Topology) bool { return true })
		got = got[:0]
		for _, r := range h.last.Routes {
			if r.Dst.Addr().Is6() && r.Gateway == (netip.Addr{}) {
				continue // the kernel's own
			}
			link := 0
			if r.Link == index {
				link = 1
			}
			got = append(got, fmt.Sprintf("%v via %v link %d mtu %d metric %d src %v", r.Dst, r.Gateway, link, r.MTU, r.Metric, r.Source))
		}
		if len(got) == len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("routes:\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}

	// The kernel does not announce the IPv4 routes that go with a link.
	h.do(h.Handle.LinkSetDown(a))
	h.until("routes go with the link", func(t iface.Topology) bool {
		return !slices.ContainsFunc(t.Routes, func(r iface.Route) bool { return r.Dst.Addr().Is4() && r.Link != 0 })
	})
	h.do(h.Handle.AddrDel(a, &netlink.Addr{IPNet: parseNet("192.0.2.7/24")}))
	h.until("address removed", has("a0", func(l iface.Link) bool {
		return !slices.Contains(l.Addrs, netip.MustParsePrefix("192.0.2.7/24"))
	}))
}

// Each kind of change is a reason by itself: on a loopback nothing else happens.
func TestWatchFollowsOneChangeAlone(t *testing.T) {
	h := newHost(t)
	lo := h.link("lo")
	h.until("the start", func(iface.Topology) bool { return true })
	h.do(h.Handle.AddrAdd(lo, &netlink.Addr{IPNet: parseNet("192.0.2.1/32")}))
	h.until("an IPv4 address", has("lo", func(l iface.Link) bool { return slices.Contains(l.Addrs, netip.MustParsePrefix("192.0.2.1/32")) }))
	for _, dst := range []string{"198.51.100.0/24", "2001:db8::/32"} {
		route := &netlink.Route{Dst: parseNet(dst), LinkIndex: lo.Attrs().Index}
		there := func(t iface.Topology) bool {
			return slices.ContainsFunc(t.Routes, func(r iface.Route) bool { return r.Dst == netip.MustParsePrefix(dst) })
		}
		h.do(h.Handle.RouteAdd(route))
		h.until("a route to "+dst, there)
		h.do(h.Handle.RouteDel(route))
		h.until("no route to "+dst, func(t iface.Topology) bool { return !there(t) })
	}
}

func TestWatchFollowsPermanentNeighbours(t *testing.T) {
	h := newHost(t)
	// A link that stays down: nothing else happens to it.
	h.addVeth("a0", "b0")
	h.until("the veth", func(t iface.Topology) bool { return len(t.Links) == 3 })
	a := h.link("a0")
	neighbour := func(ip string, state int) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: a.Attrs().Index, IP: net.ParseIP(ip), State: state, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	}
	entry := func(ip string) iface.NeighbourEntry {
		return iface.NeighbourEntry{Link: a.Attrs().Index, Addr: netip.MustParseAddr(ip), MAC: [6]byte{2, 0, 0, 0, 0, 9}}
	}
	h.do(h.Handle.NeighSet(neighbour("192.0.2.8", netlink.NUD_REACHABLE)))
	h.do(h.Handle.NeighSet(neighbour("192.0.2.9", netlink.NUD_PERMANENT)))
	h.do(h.Handle.NeighSet(neighbour("2001:db8::9", netlink.NUD_PERMANENT)))
	h.until("two permanent ones", func(t iface.Topology) bool {
		return slices.Equal(t.Permanent, []iface.NeighbourEntry{entry("192.0.2.9"), entry("2001:db8::9")})
	})
	h.do(h.Handle.NeighSet(neighbour("192.0.2.9", netlink.NUD_REACHABLE)))
	h.until("no longer permanent", func(t iface.Topology) bool {
		return slices.Equal(t.Permanent, []iface.NeighbourEntry{entry("2001:db8::9")})
	})
	h.do(h.Handle.NeighDel(neighbour("2001:db8::9", netlink.NUD_PERMANENT)))
	h.until("removed", func(t iface.Topology) bool { return len(t.Permanent) == 0 })
	h.do(h.Handle.NeighSet(neighbour("192.0.2.10", netlink.NUD_PERMANENT)))
	h.until("one more", func(t iface.Topology) bool {
		return slices.Equal(t.Permanent, []iface.NeighbourEntry{entry("192.0.2.10")})
	})
}

// A burst costs a few readings, and what comes last is what is there, also when
// the socket overflows because nobody reads it.
func TestWatchSurvivesABurst(t *testing.T) {
	h := &host{T: t, Namespace: ifacetest.NewNamespace(t)}
	var w *iface.TopologyWatcher
	h.do(h.Do(func() (err error) { w, err = iface.OpenTopologyWatcher(); return err }))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	h.seen = make(chan iface.Topology, 10000)
	first := true
	go func() {
		ended <- w.Run(ctx, func(now iface.Topology) {
			if first {
				first = false
				close(started)
				<-goOn // while the kernel fills the buffer
			}
			h.seen <- now
		})
	}()
	<-started
	h.addVeth("d0", "e0")
	d := h.link("d0")
	for i := range 3000 {
		h.do(h.Handle.LinkSetMTU(d, 1000+i%2))
	}
	h.do(h.Handle.LinkSetMTU(d, 1234))
	close(goOn)
	h.until("the last of the burst", has("d0", func(l iface.Link) bool { return l.MTU == 1234 }))
	h.do(h.Handle.LinkSetMTU(d, 1235))
	h.until("a change after it", has("d0", func(l iface.Link) bool { return l.MTU == 1235 }))
	start, before := time.Now(), h.calls
	for i := range 300 {
		h.do(h.Handle.LinkSetMTU(d, 1000+i))
	}
	h.until("the last of a burst that was read", has("d0", func(l iface.Link) bool { return l.MTU == 1299 }))
	elapsed := time.Since(start)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// Two calls are never nearer than 50 ms.
	if got, most := h.calls-before, 2+int(elapsed/(50*time.Millisecond)); got > most {
		t.Errorf("%d calls in %v, at most %d are due", got, elapsed, most)
	}
}

func TestWatchEndsWithoutALeak(t *testing.T) {
	h := newHost(t)
	h.until("the start", func(iface.Topology) bool { return true })
	h.cancel()
	if err := <-h.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	h.ended <- nil // for the clean-up
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stacks := make([]byte, 1<<20)
		if !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "TopologyWatcher") {
			return
		}
	}
	t.Error("a goroutine of the watcher is left")
}

// WatchTopology is of the namespace of the calling thread.
func TestWatchTopologyHere(t *testing.T) {
	ns := ifacetest.NewNamespace(t)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "only-there"}, PeerName: "peer"}
	if err := ns.Handle.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	err := ns.Do(func() error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w, err := iface.OpenTopologyWatcher()
		if err != nil {
			return err
		}
		defer w.Close()
		return w.Run(ctx, func(now iface.Topology) {
			if _, ok := now.LinkByName("only-there"); !ok {
				t.Errorf("got %+v", now.Links)
			}
			cancel()
		})
	})
	if err != nil {
		t.Error(err)
	}
	err = ns.Do(func() error {
		now, err := iface.ReadTopology()
		if d, ok := now.LinkByName("only-there"); !ok || d.Kind != "veth" {
			t.Errorf("read %+v", now.Links)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
