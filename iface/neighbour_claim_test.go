// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// newClaimant is a wire of one port that notes which addresses were taken.
func newClaimant(t testing.TB) *wire {
	w := newWire6(t)
	w.n = NewNeighbours(NeighbourConfig{
		Conflict: func(port int, addr netip.Addr, mac [6]byte) {
			w.log = append(w.log, fmt.Sprintf("conflict %v station %d", addr, mac[5]))
		},
		Taken: func(port int, addr netip.Addr, mac [6]byte) {
			w.log = append(w.log, fmt.Sprintf("taken %v station %d", addr, mac[5]))
		},
		Claimed: func(port int, addr netip.Addr) { w.log = append(w.log, fmt.Sprintf("claimed %v", addr)) },
	})
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::1/64")}}})
	return w
}

// tick is one Tick; said is what neighbours say in it, without reports of groups.
func (w *wire) tick(d time.Duration) string {
	w.now = w.now.add(d)
	w.n.Tick(w.now, w.send, w.failed)
	return w.said()
}

func (w *wire) said() string {
	var nd []sentFrame
	for _, s := range w.sent {
		if IsND(s.frame) {
			nd = append(nd, s)
		}
	}
	w.sent = nd
	return w.takes()
}

const (
	probe100    = "1>group who has 2001:db8::100 tell :: at 0"
	announce100 = "1>all 2001:db8::100 is at 1 for ff02::1 flags 20"
)

func TestOwnedIsProbedThenAnnounced(t *testing.T) {
	w := newClaimant(t)
	w.own("2001:db8::100")
	w.want("asked", w.tick(0), probe100)
	w.n.Announce(w.send)
	w.want("not announced yet", w.said(), "")
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("answered, and nobody is overridden", w.said(), "1>9 2001:db8::100 is at 1 for 2001:db8::9 flags 40")
	w.resolve("2001:db8:5::3", "..a")
	w.want("no question from it", w.said(), "1>group who has 2001:db8:5::3 tell fe80::1 at 1")
	w.says(3, "2001:db8:5::3", "fe80::1", ndFlagSolicited)
	w.said()
	w.want("not before its time", w.tick(probeTime-1), "")
	w.want("held", w.tick(1), announce100)
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("answered", w.said(), "1>9 2001:db8::100 is at 1 for 2001:db8::9 flags 60")
	w.own("2001:db8::100", "2001:db8::200")
	w.want("the new one alone", w.tick(0), "1>group who has 2001:db8::200 tell :: at 0")
	if len(w.log) != 0 || len(w.n.Taken()) != 0 {
		t.Errorf("%q, taken %v", w.log, w.n.Taken())
	}
}

func TestTakenIsLeftAlone(t *testing.T) {
	for name, says := range map[string]func(w *wire){
		"an answer to the probe": func(w *wire) { w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride) },
		"an answer to another":   func(w *wire) { w.answer6(9, "2001:db8::100") },
		"a question from it":     func(w *wire) { w.asks(9, "2001:db8::100", "", "2001:db8::3") },
		"another probe":          func(w *wire) { w.asks(9, "::", "", "2001:db8::100") },
	} {
		w := newClaimant(t)
		w.own("2001:db8::100")
		w.want(name+": asked", w.tick(0), probe100)
		w.now = w.now.add(probeTime / 2)
		says(w)
		w.want(name+": reported", fmt.Sprint(w.log), "[taken 2001:db8::100 station 9]")
		w.asks(8, "2001:db8::8", "", "2001:db8::100")
		w.n.Announce(w.send)
		w.want(name+": said", w.tick(probeTime)+w.tick(takenTime-probeTime-1), "")
		if l := w.n.Taken(); len(l) != 1 || l[0].Addr != netip.MustParseAddr("2001:db8::100") || l[0].MAC != station(9) || l[0].Port != 1 {
			t.Errorf("%s: taken %v", name, l)
		}

		// It is asked for again, and while it is there, it is not claimed.
		w.want(name+": asked again", w.tick(takenTime), probe100)
		w.asks(8, "2001:db8::8", "", "2001:db8::100")
		w.want(name+": not answered before it is held", w.said(), "")
		w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride)
		w.want(name+": still", w.tick(probeTime), "")
		// When it has gone, it is.
		w.want(name+": asked a third time", w.tick(2*takenTime), probe100)
		w.want(name+": claimed", w.tick(probeTime), announce100)
		w.asks(8, "2001:db8::8", "", "2001:db8::100")
		w.want(name+": answered", w.said(), "1>8 2001:db8::100 is at 1 for 2001:db8::8 flags 60")
		w.want(name+": reported once each", fmt.Sprint(w.log), "[taken 2001:db8::100 station 9 claimed 2001:db8::100]")
		if l := w.n.Taken(); len(l) != 0 {
			t.Errorf("%s: taken %v", name, l)
		}
	}
}

func TestHeldIsDefended(t *testing.T) {
	w := newClaimant(t)
	w.owns("2001:db8::100")
	w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride)
	w.want("defended", w.said(), announce100)
	w.asks(9, "::", "", "2001:db8::100")
	w.want("answered", w.said(), announce100)
	w.want("reported", fmt.Sprint(w.log), "[conflict 2001:db8::100 station 9]")
	if l := w.n.Taken(); len(l) != 0 {
		t.Errorf("taken %v", l)
	}
}

func TestOurOwnProbeIsNoRival(t *testing.T) {
	w := newClaimant(t)
	w.own("2001:db8::100")
	w.tick(0)
	w.asks(1, "::", "", "2001:db8::100") // a loop, or another port on the same link
	w.says(1, "2001:db8::100", "ff02::1", ndFlagOverride)
	w.want("held", w.tick(probeTime), announce100)
}

func TestLinkThatCameBackIsProbedAnew(t *testing.T) {
	w := newClaimant(t)
	w.owns("2001:db8::100")
	w.n.Flush(1)
	w.want("asked", w.tick(0), probe100)
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("answered meanwhile", w.said(), "1>9 2001:db8::100 is at 1 for 2001:db8::9 flags 40")
	w.want("held", w.tick(probeTime), announce100)
	// One that was taken stays quiet until it is held.
	w.n.Flush(1)
	w.tick(0)
	w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride)
	w.n.Flush(1)
	w.want("asked", w.tick(0), probe100)
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("not answered", w.said(), "")
}
