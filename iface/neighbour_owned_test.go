// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestOwnedIsAnswered(t *testing.T) {
	w := newWire(t)
	w.n.SetOwned([]netip.Addr{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("::ffff:203.0.113.9"), netip.MustParseAddr("2001:db8::1")})
	w.heard(ARPRequest, 9, "10.0.0.9", 0, "10.0.0.100")
	w.want("request", w.takes(), "1>9 10.0.0.100 is at 1 for 10.0.0.9")
	w.heard(ARPRequest, 9, "0.0.0.0", 0, "10.0.0.100")
	w.want("probe (RFC 5227)", w.takes(), "1>9 10.0.0.100 is at 1 for 0.0.0.0")
	w.heard(ARPRequest, 9, "172.16.0.9", 0, "203.0.113.9")
	w.want("an address of no network of the port", w.takes(), "1>9 203.0.113.9 is at 1 for 172.16.0.9")
	w.heard(ARPRequest, 9, "10.0.0.9", 0, "10.0.0.1")
	w.heard(ARPRequest, 9, "10.0.0.9", 0, "10.0.0.77")
	w.heard(ARPReply, 9, "10.0.0.9", 1, "10.0.0.100")
	w.want("not ours, or no question", w.takes(), "")
	w.heard(ARPRequest, 2, "192.168.88.1", 0, "10.0.0.100")
	w.want("our other port on the same link", w.takes(), "")
	if len(w.log) != 0 {
		t.Errorf("conflicts: %q", w.log)
	}
	w.n.SetOwned(nil)
	w.heard(ARPRequest, 9, "10.0.0.9", 0, "10.0.0.100")
	w.want("no longer ours", w.takes(), "")
}

func TestConflictIsReportedAndDefended(t *testing.T) {
	w := newWire(t)
	owned := []netip.Addr{netip.MustParseAddr("10.0.0.100")}
	w.n.SetOwned(owned)
	for range 50 {
		w.heard(ARPRequest, 9, "10.0.0.100", 0, "10.0.0.100")
		w.heard(ARPReply, 9, "10.0.0.100", 3, "10.0.0.3")
	}
	w.want("defended once", w.takes(), "1>all who has 10.0.0.100 tell 10.0.0.100")
	w.want("reported once", strings.Join(w.log, "; "), "1 10.0.0.100 station 9")
	if s := w.n.Stats(); s.Conflicts != 100 {
		t.Errorf("counted %d", s.Conflicts)
	}
	w.pass(9 * time.Second)
	w.n.SetOwned(owned) // the same again does not forget when it was defended
	w.heard(ARPRequest, 9, "10.0.0.100", 0, "10.0.0.100")
	w.want("not before 10 s", w.takes(), "")
	w.pass(time.Second)
	w.heard(ARPRequest, 9, "10.0.0.100", 0, "10.0.0.100")
	w.want("again after 10 s", w.takes(), "1>all who has 10.0.0.100 tell 10.0.0.100")
	if len(w.log) != 2 || w.n.Stats().Entries != 0 {
		t.Errorf("reported %q, entries %d", w.log, w.n.Stats().Entries)
	}
}

func TestAnnounce(t *testing.T) {
	w := newWire(t)
	w.n.SetOwned([]netip.Addr{netip.MustParseAddr("192.168.88.23")})
	w.n.Announce(w.send)
	w.want("on the port of its network", w.takes(),
		"2>all who has 192.168.88.23 tell 192.168.88.23; 2>all 192.168.88.23 is at 2 for 192.168.88.23")
	w.n.SetOwned([]netip.Addr{netip.MustParseAddr("203.0.113.9")})
	w.n.Announce(w.send)
	ports := map[int]int{}
	for _, s := range w.sent {
		ports[s.port]++
	}
	if len(w.sent) != 4 || ports[1] != 2 || ports[2] != 2 {
		t.Errorf("of no network: %s", w.takes())
	}
}

// TestSharedIsNotAskedFrom: a server that has a virtual address too is silent to
// questions from it.
func TestSharedIsNotAskedFrom(t *testing.T) {
	w := newWire(t)
	port := NeighbourPort{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}
	w.n.SetPorts([]NeighbourPort{port})
	w.n.SetOwned([]netip.Addr{netip.MustParseAddr("10.0.0.100")})
	w.resolve("10.0.0.3", "..x")
	w.want("not shared", w.takes(), "1>all who has 10.0.0.3 tell 10.0.0.1")
	w.n.SetShared([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")})
	w.resolve("10.0.0.4", "..x")
	w.want("the host's is shared", w.takes(), "1>all who has 10.0.0.4 tell 10.0.0.100")
	w.n.SetShared([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("2001:db8::1")})
	w.resolve("10.0.0.5", "..x")
	w.want("both are", w.takes(), "1>all who has 10.0.0.5 tell 0.0.0.0")
	w.heard(ARPReply, 5, "10.0.0.5", 1, "0.0.0.0")
	w.want("the probe's answer", w.lookup("10.0.0.5"), "5")
	w.takes()
	if got := w.n.sender6(port, netip.MustParseAddr("2001:db8::2")); got != linkLocal(port.MAC) {
		t.Errorf("an IPv6 question is from %s", got)
	}
}
