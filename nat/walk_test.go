// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestServerNotPublishedYet: a scheduler hears of a server before the Forwarder
// does. Until then connections go to one that both know, even if the number of
// the new one was another's before.
func TestServerNotPublishedYet(t *testing.T) {
	s := newScript(t, "not published")
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:80")
	s.step("server", "10.0.0.3:80")
	f := s.forwarder()
	defer f.Close()
	key := s.key("tcp", "192.168.88.23:80")
	s.must(s.rules.DelServer(key, netip.MustParseAddr("10.0.0.3"), 80))
	s.rules.Publish()
	for range trashTicks {
		s.rules.Tick()
	}
	s.must(s.rules.AddServer(key, ServerSpec{Addr: netip.MustParseAddr("10.0.0.4"), Port: 80, Weight: 1}))
	s.dirty = false // not published
	for i := range 4 {
		s.arrive("", fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:80 S", 5000+i))
		if got := netip.AddrFrom4([4]byte(s.packet.Data[16:20])).String(); s.verdict.Action != Forward || got != "10.0.0.2" {
			t.Fatalf("%s %s to %s", s.verdict.Action, s.verdict.Reason, got)
		}
		s.verdict = nil
	}
	recount(t, s.rules, f)
}

// TestOutboxAllOrNothing: of a packet that is cut, all parts are sent or none.
func TestOutboxAllOrNothing(t *testing.T) {
	s := newScript(t, "outbox")
	s.step("service", "udp 192.168.88.23:53 sched rr")
	s.step("server", "10.0.0.2:53")
	s.step("mtu", "1 100")
	f := s.forwarder()
	defer f.Close()
	full, cut := 0, 0
	for i := range 200 {
		b, _ := encodePacket(fmt.Sprintf("udp 192.168.88.21:40000 > 192.168.88.23:53 data=1472 id=%d", i))
		switch v := f.Forward(&Packet{Data: b}); {
		case v.Action == Hold:
			cut++
		case v.Reason == ReasonOutboxFull:
			full++
		default:
			t.Fatal(v.Action, v.Reason)
		}
	}
	if cut == 0 || full == 0 {
		t.Fatalf("%d cut, %d refused", cut, full)
	}
	parts := map[uint16]int{}
	bytes := map[uint16]int{}
	for _, g := range f.Outbox() {
		id := ipv4Header(g.Packet.Data).id()
		parts[id]++
		bytes[id] += len(g.Packet.Data) - ipv4HeaderLen
	}
	for id, n := range bytes {
		if n != 1480 {
			t.Errorf("datagram %d: %d bytes in %d parts", id, n, parts[id])
		}
	}
	if len(parts) != cut {
		t.Errorf("%d datagrams in the outbox, %d were cut", len(parts), cut)
	}
}

// TestAddressesComeAndGo: the port pools of addresses that are no longer ours
// are used again.
func TestAddressesComeAndGo(t *testing.T) {
	s := newScript(t, "addresses")
	for i := range 3 * maxPortAddrs {
		to := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(1 + i&0x7f)})
		s.step("snat", "10.0.0.0/24 "+to.String())
		s.arrive("", "udp 10.0.0.2:4000 > 203.0.113.9:53 data=1")
		if got := netip.AddrFrom4([4]byte(s.packet.Data[12:16])); s.verdict.Action != Forward || got != to {
			t.Fatalf("address %d: %s %s from %s, not %s", i, s.verdict.Action, s.verdict.Reason, got, to)
		}
		s.verdict = nil
		s.step("advance", "301s")
		s.step("delete-snat", "10.0.0.0/24")
	}
	if n := len(s.f.mapper.addrs); n > maxPortAddrs {
		t.Errorf("%d pools", n)
	}
	s.f.Close()
}

// TestSweepBound: a great many connections that end at once end in portions, between
// which packets go on, and all of them do.
func TestSweepBound(t *testing.T) {
	const n = 20_000
	g := newRig(t, n)
	p := population{n, ProtoTCP, false}
	p.fill(t, g)
	g.now = g.now.Add(16 * time.Minute)
	g.f.Begin(g.now)
	calls := 0
	for more := true; more; calls++ {
		before := g.f.table.Len()
		more = g.f.Sweep(1 << 20)
		if ended := before - g.f.table.Len(); ended > sweepMost {
			t.Fatalf("%d at once", ended)
		}
		if calls > n {
			t.Fatal("no end")
		}
	}
	if left := g.f.table.Len(); left != 0 || calls < n/sweepMost {
		t.Errorf("%d are left after %d calls", left, calls)
	}
}

// TestListingBound: a page looks at a bounded part of the table, however few there are
// to be listed, and the pages together show all.
func TestListingBound(t *testing.T) {
	const n = 40_000
	g := newRig(t, n)
	p := population{n, ProtoTCP, false}
	p.fill(t, g)
	nobody := g.f.Conns(ConnQuery{State: "LISTEN"})
	if nobody.Next < 0 || nobody.Next > maxScan {
		t.Errorf("a page without anything in it went to slot %d", nobody.Next)
	}
	seen := 0
	for q := (ConnQuery{Limit: 1 << 20}); q.Cursor >= 0; {
		page := g.f.Conns(q)
		if len(page.Conns) > MaxPage {
			t.Fatalf("%d on a page", len(page.Conns))
		}
		seen, q.Cursor = seen+len(page.Conns), page.Next
	}
	if seen != n {
		t.Errorf("%d of %d listed", seen, n)
	}
}
