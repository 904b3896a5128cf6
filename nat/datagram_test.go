// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// bytesOf is the packet of a line of a script.
func bytesOf(text string) []byte {
	b, _ := encodePacket(text)
	return b
}

// A host that routes to us keeps no copy of what it routed. What turns out to be
// its own goes back as it came, in every order.
func TestDatagramOfTheHostIsHandedBack(t *testing.T) {
	parts := [][]byte{
		bytesOf("icmp 192.168.88.21 > 192.168.88.23 echo-request id=3 seq=4 data=1472 mf ipid=7"),
		bytesOf("frag 192.168.88.21 > 192.168.88.23 proto=1 off=1480 data=1480 mf id=7 ttl=1"),
		bytesOf("frag 192.168.88.21 > 192.168.88.23 proto=1 off=2960 data=48 id=7"),
	}
	for _, l3 := range []bool{true, false} {
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {2, 0, 1}} {
			t.Run(fmt.Sprint(l3, order), func(t *testing.T) {
				s := newScript(t, "hand back")
				s.step("service", "udp 192.168.88.23:53 sched rr")
				s.step("host", "192.168.88.23")
				s.ports[0].L3 = l3
				f := s.forwarder()
				defer f.Close()
				f.Begin(s.now)
				var back [][]byte
				for n, i := range order {
					p := Packet{Data: bytes.Clone(parts[i])}
					v := f.Forward(&p)
					if want := map[bool]Action{false: Hold, true: Pass}[n == 2]; v.Action != want {
						t.Fatalf("fragment %d: %s", i, v.Action)
					}
					if v.Action == Pass {
						back = append(back, p.Data)
					}
					clear(p.Data[:len(p.Data)*(1-n/2)]) // the memory of what is held is used again
				}
				made := f.Outbox()
				for _, g := range made {
					if g.Verdict.Port != 0 {
						t.Errorf("to port %d", g.Verdict.Port)
					}
					back = append(back, g.Packet.Data)
				}
				if !l3 {
					if len(made) != 0 || f.frags.numFreeSlots != maxHeldSlots {
						t.Errorf("%d handed back to a host that has its own", len(made))
					}
					return
				}
				if len(back) != 3 {
					t.Fatalf("%d of 3", len(back))
				}
				for _, b := range parts {
					found := false
					for _, c := range back {
						found = found || bytes.Equal(b, c)
					}
					if !found {
						t.Errorf("not as it came: % x", b[:20])
					}
				}
			})
		}
	}
}

// A datagram for which the outbox has no room leaves not even in part.
func TestNoRoomForAllIsRoomForNone(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		s := world(t)
		f := s.f
		f.Begin(s.now)
		parts := [][]byte{
			bytesOf("udp 192.168.88.21:40000 > 192.168.88.23:53 data=1272 udplen=2608 mf id=77"),
			bytesOf("frag 192.168.88.21 > 192.168.88.23 proto=17 off=1280 data=1280 mf id=77"),
			bytesOf("frag 192.168.88.21 > 192.168.88.23 proto=17 off=2560 data=48 id=77"),
		}
		for n := len(f.outbox.list); n < outboxPackets-1; n++ {
			f.outbox.put(1, Packet{}, Verdict{Action: Forward})
		}
		late, free := f.counters.drops[ReasonFragmentLate], f.frags.numFreeSlots
		var v Verdict
		for _, i := range order {
			v = f.Forward(&Packet{Data: parts[i], From: conntrack.LinkAddr{2, 9}})
		}
		if v != drop(ReasonOutboxFull) || len(f.outbox.list) != outboxPackets-1 || f.counters.drops[ReasonFragmentLate]-late != 2 {
			t.Errorf("%v: %s %s, %d in the outbox, %d others counted", order, v.Action, v.Reason,
				len(f.outbox.list), f.counters.drops[ReasonFragmentLate]-late)
		}
		if n := f.frags.numFreeSlots; n != free {
			t.Errorf("%v: %d slots free, %d before", order, n, free)
		}
		f.Close()
	}
}

// The leader is judged by the port and the neighbour that it came by, not by
// those of the fragment that completes its datagram.
func TestLeaderKeepsItsWayIn(t *testing.T) {
	s := newScript(t, "way in")
	s.step("service", "udp 192.168.88.23:53 sched rr")
	s.step("server", "10.0.0.2:53")
	f := s.forwarder()
	defer f.Close()
	f.Begin(s.now)
	from := conntrack.LinkAddr{2, 0, 0, 0, 0, 21}
	f.Forward(&Packet{Data: bytesOf("udp 192.168.88.21:48000 > 192.168.88.23:53 data=1472 udplen=1528 mf id=7"), From: from})
	f.Forward(&Packet{Data: bytesOf("frag 192.168.88.21 > 192.168.88.23 proto=17 off=1480 data=48 id=7"), From: conntrack.LinkAddr{2, 6, 6, 6}})
	if n := len(f.Outbox()); n != 2 {
		t.Fatalf("%d sent", n)
	}
	v := f.Forward(&Packet{Data: bytesOf("udp 10.0.0.2:53 > 192.168.88.21:48000 data=8"), In: 1})
	if v.Action != Forward || v.To != from {
		t.Errorf("the reply: %s to %v", v.Action, v.To)
	}
}

// Datagrams of 64 KiB come through whole, in any order, and in jumbo frames too,
// where a fragment fills more than one slot.
func TestLargeDatagramsAreForwarded(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		for _, turn := range []bool{false, true} {
			s := newScript(t, "large")
			s.step("service", "udp 192.168.88.23:9053 sched rr")
			s.step("server", "10.0.0.2:9053")
			s.ports[1].MTU = mtu
			f := s.forwarder()
			f.Begin(s.now)
			whole, parts := datagramOf(t, 9, 60000, mtu)
			if parts = append(parts[1:], parts[0]); turn {
				parts = reversed(parts)
			}
			for _, b := range parts {
				p := Packet{Data: bytes.Clone(b), From: conntrack.LinkAddr{2, 1}}
				if v := f.Forward(&p); v.Action == Forward {
					f.outbox.put(copy(f.outbox.room(len(p.Data)), p.Data), p, v)
				}
			}
			var out [][]byte
			for _, g := range f.Outbox() {
				out = append(out, g.Packet.Data)
			}
			if len(out) != len(parts) {
				t.Fatalf("mtu %d: %d of %d; %v", mtu, len(out), len(parts), f.counters.drops)
			}
			if got := reassemble(t, out); !bytes.Equal(got[8:], whole[28:]) {
				t.Errorf("mtu %d: another datagram", mtu)
			}
			f.Close()
		}
	}
}
