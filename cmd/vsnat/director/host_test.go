// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// FAULTS 102 to 105: links come, go, change, and are told of.
func TestLinksChange(t *testing.T) {
	d, _ := startDirector(t, small)
	mtu := func(name string) (mtu int, serving bool) {
		links, err := d.Links(t.Context())
		must(t, err)
		for _, l := range links {
			if l.Name == name {
				return l.MTU, l.Serving
			}
		}
		return 0, false
	}
	lan, err := netlink.LinkByName("dlan")
	must(t, err)
	var first shard.PortGroup
	place := func(name string) int {
		return slices.IndexFunc(d.world.ports[:], func(p servedPort) bool { return p.name == name })
	}
	waitFor(t, d, func() bool { first = d.world.ports[place("dlan")].open; return first != nil })
	at := int(first[0].Index)

	must(t, netlink.LinkSetMTU(lan, 1400))
	waitFor(t, d, func() bool { return slices.Equal(d.world.ports[at].open, first) })
	if m, serving := mtu("dlan"); m != 1400 || !serving {
		t.Errorf("MTU %d, serving %v", m, serving)
	}

	must(t, netlink.LinkSetDown(lan))
	waitFor(t, d, func() bool { return d.world.ports[at].open == nil && !slices.Contains(d.world.served, "dlan") })
	must(t, netlink.LinkSetName(lan, "renamed"))
	must(t, netlink.LinkSetUp(lan))
	waitFor(t, d, func() bool { return place("renamed") == at && d.world.ports[at].open != nil })

	// As a port of a bridge a link carries no IP itself: the bridge does.
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dbridge"}}))
	bridge, err := netlink.LinkByName("dbridge")
	must(t, err)
	must(t, netlink.LinkSetMaster(lan, bridge))
	must(t, netlink.LinkSetUp(bridge))
	waitFor(t, d, func() bool {
		return d.world.ports[at].open == nil && !slices.Contains(d.world.served, "renamed") && slices.Contains(d.world.served, "dbridge")
	})
	must(t, netlink.LinkDel(bridge))
	waitFor(t, d, func() bool { return slices.Contains(d.world.served, "renamed") && d.world.ports[at].open != nil })

	must(t, netlink.LinkDel(lan))
	waitFor(t, d, func() bool { return d.world.ports[at].open == nil })
	other := ifacetest.NewNamespace(t)
	ifacetest.NewCable(t, "renamed", other, "again")
	waitFor(t, d, func() bool { return place("renamed") == at && d.world.ports[at].open != nil })

	wanLink, err := netlink.LinkByName("dwan")
	must(t, err)
	again, err := netlink.LinkByName("renamed")
	must(t, err)
	must(t, netlink.LinkSetDown(wanLink))
	must(t, netlink.LinkSetDown(again))
	waitFor(t, d, func() bool { return len(d.world.served) == 0 })
	h, err := d.Health(t.Context())
	must(t, err)
	if h.Status != "degraded" || !slices.Contains(h.Problems, "no network interface can be served") {
		t.Errorf("health %+v", h)
	}
	must(t, netlink.LinkSetUp(wanLink))
	waitFor(t, d, func() bool { return len(d.world.served) == 1 })
	if h, err = d.Health(t.Context()); err != nil || slices.Contains(h.Problems, "no network interface can be served") {
		t.Errorf("health %+v, %v: the problem is over", h, err)
	}
}

// failingGuard refuses until it is told otherwise.
type failingGuard struct {
	iface.Guard
	err     error
	applied []iface.GuardRules
}

func (g *failingGuard) Apply(r iface.GuardRules) error {
	if g.err == nil {
		g.applied = append(g.applied, r)
	}
	return g.err
}

// FAULTS 106: a guard that fails is told of as long as it does, and tried again.
func TestGuardFails(t *testing.T) {
	d, _ := startDirector(t, small)
	guard := &failingGuard{Guard: d.guard, err: errors.New("no room")}
	must(t, d.call(t.Context(), func() error { d.guard = guard; return nil }))
	key := control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.24:53")}
	must(t, d.AddService(t.Context(), control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
	h, err := d.Health(t.Context())
	must(t, err)
	if h.Status != "degraded" || !slices.ContainsFunc(h.Problems, func(s string) bool { return strings.Contains(s, "no room") }) {
		t.Errorf("health %+v", h)
	}
	must(t, d.call(t.Context(), func() error { guard.err = nil; d.tick(1, d.started); return nil }))
	if h, err = d.Health(t.Context()); err != nil || h.Status != "ok" {
		t.Errorf("health %+v, %v", h, err)
	}
	if n := len(guard.applied); n == 0 || !slices.Contains(guard.applied[n-1].Owned, key.Address.Addr()) {
		t.Errorf("applied %+v", guard.applied)
	}
}

// RFC 5227, 2.3: an address is announced when it comes, and once more 2 s later.
func TestAnnouncedTwice(t *testing.T) {
	d, _ := startDirector(t, small)
	announced := func() uint64 { return d.neighbours.Stats().Announcements }
	const each = 4 // two forms on two ports
	if n := announced(); n != each {
		t.Errorf("%d announcements at the start, want %d", n, each)
	}
	key := control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.24:53")}
	must(t, d.AddService(t.Context(), control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
	must(t, d.call(t.Context(), func() error {
		if n := announced(); n != 3*each { // both addresses
			t.Errorf("%d announcements after one was added, want %d", n, 3*each)
		}
		due := d.world.announceAt
		d.tick(1, due.Add(-1))
		if n := announced(); n != 3*each {
			t.Errorf("%d announcements before the time", n)
		}
		d.tick(1, due)
		d.tick(1, due.Add(announceAgain))
		if n := announced(); n != 5*each {
			t.Errorf("%d announcements in the end, want %d", n, 5*each)
		}
		return nil
	}))
	must(t, d.DeleteService(t.Context(), key))
	if n := announced(); n != 5*each {
		t.Errorf("%d announcements after one was removed", n)
	}
}
