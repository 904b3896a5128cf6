// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAnswerReleasesTheQueue(t *testing.T) {
	w := newWire(t)
	w.want("unknown", w.lookup("10.0.0.3"), "-")
	if got := w.resolve("10.0.0.3", "..a"); got != ResolveQueued {
		t.Fatalf("first frame: %d", got)
	}
	w.want("question", w.takes(), "1>all who has 10.0.0.3 tell 10.0.0.1")
	w.resolve("10.0.0.3", "..b")
	w.want("asked already", w.takes(), "")
	w.answer(3, "10.0.0.3")
	if len(w.sent) == 2 && w.sent[0].off.GSOSize != 7 {
		t.Error("the offload was lost")
	}
	w.want("released", w.takes(), "1>3 ..a; 1>3 ..b")
	w.want("known", w.lookup("10.0.0.3"), "3")
	if got := w.resolve("10.0.0.3", "..c"); got != ResolveKnown {
		t.Errorf("resolve of a known one: %d", got)
	}
	if s := w.n.Stats(); s.Queued != 0 || s.QueuedBytes != 0 {
		t.Errorf("left in the queue: %+v", s)
	}
}

func TestResolveWritesTheKnownMAC(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	frame := make([]byte, 60)
	if got := w.n.Resolve(w.now, 1, netip.MustParseAddr("::ffff:10.0.0.3"), frame, Offload{}, w.send); got != ResolveKnown {
		t.Fatalf("got %d", got)
	}
	if [6]byte(frame) != station(3) || [6]byte(frame[6:]) != station(1) {
		t.Errorf("addressed %x", frame[:12])
	}
}

func TestSilentNeighbourFails(t *testing.T) {
	w := newWire(t)
	w.resolve("10.0.0.3", "..a")
	w.resolve("10.0.0.3", "..b")
	w.pass(2900 * time.Millisecond)
	ask := "1>all who has 10.0.0.3 tell 10.0.0.1"
	w.want("three questions", w.takes(), ask+"; "+ask+"; "+ask)
	if len(w.gone) != 0 {
		t.Fatalf("gave up early: %q", w.gone)
	}
	w.pass(150 * time.Millisecond)
	w.want("given up", strings.Join(w.gone, "; "), "1 ..a; 1 ..b")

	for range 100 {
		if got := w.resolve("10.0.0.3", "..c"); got != ResolveUnreachable {
			t.Fatalf("at once after a failure: %d", got)
		}
	}
	w.want("a flood asks nothing", w.takes(), "")
	w.pass(failedTime)
	if got := w.resolve("10.0.0.3", "..d"); got != ResolveQueued {
		t.Errorf("later: %d", got)
	}
	w.want("asked again", w.takes(), ask)
}

func TestFailedNeighbourThatSpeaksIsAskedAtOnce(t *testing.T) {
	w := newWire(t)
	w.resolve("10.0.0.3", "..a")
	w.pass(3100 * time.Millisecond)
	w.takes()
	w.heard(ARPRequest, 3, "10.0.0.3", 0, "10.0.0.3")
	w.want("not believed", w.lookup("10.0.0.3"), "-")
	if got := w.resolve("10.0.0.3", "..b"); got != ResolveQueued {
		t.Fatalf("got %d", got)
	}
	w.want("asked", w.takes(), "1>all who has 10.0.0.3 tell 10.0.0.1")
}

func TestReachableIsAskedAgainWhileUsed(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	w.pass(29 * time.Second)
	w.want("quiet", w.takes(), "")
	if w.n.Generation() != generation {
		t.Error("caches emptied early")
	}
	w.pass(2 * time.Second)
	w.want("not asked unused", w.takes(), "")
	if w.n.Generation() == generation {
		t.Error("caches were not told to ask again")
	}
	w.want("still answered", w.lookup("10.0.0.3"), "3")
	w.pass(100 * time.Millisecond)
	w.want("asked alone", w.takes(), "1>3 who has 10.0.0.3 tell 10.0.0.1")

	generation = w.n.Generation()
	w.answer(3, "10.0.0.3")
	w.pass(20 * time.Second)
	w.lookup("10.0.0.3")
	w.want("confirmed", w.takes(), "")
	if w.n.Generation() != generation {
		t.Error("a confirmation emptied the caches")
	}
}

func TestSilentAfterBeingKnown(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.pass(31 * time.Second)
	w.lookup("10.0.0.3")
	generation := w.n.Generation()
	w.pass(2900 * time.Millisecond)
	one := "1>3 who has 10.0.0.3 tell 10.0.0.1"
	w.want("three alone", w.takes(), one+"; "+one+"; "+one)
	w.want("used meanwhile", w.lookup("10.0.0.3"), "3")
	w.pass(200 * time.Millisecond)
	w.want("then all", w.takes(), "1>all who has 10.0.0.3 tell 10.0.0.1")
	w.want("no longer known", w.lookup("10.0.0.3"), "-")
	if w.n.Generation() == generation {
		t.Error("caches go on using a lost neighbour")
	}
	w.answer(9, "10.0.0.3")
	w.want("whoever answers all", w.lookup("10.0.0.3"), "9")
}

func TestUnsolicitedChangesNothingInUse(t *testing.T) {
	for _, c := range []struct {
		name  string
		heard func(w *wire)
	}{
		{"gratuitous request", func(w *wire) { w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3") }},
		{"gratuitous reply", func(w *wire) { w.heard(ARPReply, 9, "10.0.0.3", 9, "10.0.0.3") }},
		{"reply to us", func(w *wire) { w.answer(9, "10.0.0.3") }},
		{"request to us", func(w *wire) { w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.1") }},
	} {
		for _, age := range []time.Duration{0, 31 * time.Second} {
			t.Run(fmt.Sprint(c.name, " after ", age), func(t *testing.T) {
				w := newWire(t)
				w.learn("10.0.0.3", 3)
				w.pass(age)
				generation := w.n.Generation()
				c.heard(w)
				w.want("the old one is asked", w.takes(), "1>3 who has 10.0.0.3 tell 10.0.0.1")
				w.want("in use", w.lookup("10.0.0.3"), "3")
				for range 100 { // a forger's flood
					c.heard(w)
				}
				w.want("asked once", w.takes(), "")
				w.answer(3, "10.0.0.3")
				c.heard(w)
				w.want("asked once a second", w.takes(), "")
				w.pass(time.Second)
				w.want("confirmed", w.lookup("10.0.0.3"), "3")
				if w.n.Generation() != generation {
					t.Error("the generation moved")
				}
			})
		}
	}
}

func TestTakeoverWhenTheOldOneIsSilent(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3")
	w.answer(9, "10.0.0.3") // an answer to a question put to another station
	w.want("not yet", w.lookup("10.0.0.3"), "3")
	w.pass(3*verifyTime + 100*time.Millisecond)
	one := "1>3 who has 10.0.0.3 tell 10.0.0.1"
	w.want("old one three times, then all", w.takes(), one+"; "+one+"; "+one+"; 1>all who has 10.0.0.3 tell 10.0.0.1")
	w.answer(9, "10.0.0.3")
	w.want("taken over", w.lookup("10.0.0.3"), "9")
	if w.n.Generation() == generation {
		t.Error("caches keep the old MAC")
	}
}

func TestUnusedIsNotAskedOfAll(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.pass(2 * time.Minute)
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3")
	w.pass(2 * time.Second)
	one := "1>3 who has 10.0.0.3 tell 10.0.0.1"
	w.want("only the old one", w.takes(), one+"; "+one+"; "+one)
	w.want("and forgotten", fmt.Sprint(w.n.Stats().Entries), "0")
}

func TestClaimDuringAProbeShortensIt(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.pass(31 * time.Second)
	w.lookup("10.0.0.3")
	w.pass(50 * time.Millisecond)
	w.takes()
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3")
	w.pass(3*verifyTime + 50*time.Millisecond)
	w.want("all are asked within a second", w.takes(),
		"1>3 who has 10.0.0.3 tell 10.0.0.1; 1>3 who has 10.0.0.3 tell 10.0.0.1; 1>all who has 10.0.0.3 tell 10.0.0.1")
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name  string
		heard func(w *wire)
	}{
		{"for another station", func(w *wire) { w.heard(ARPReply, 9, "10.0.0.3", 8, "10.0.0.1") }},
		{"for another address", func(w *wire) { w.heard(ARPReply, 9, "10.0.0.3", 1, "10.0.0.77") }},
		{"a request", func(w *wire) { w.heard(ARPRequest, 9, "10.0.0.3", 1, "10.0.0.1") }},
		{"of another address", func(w *wire) { w.answer(9, "10.0.0.4") }},
		{"from ourselves", func(w *wire) { w.answer(2, "10.0.0.3") }},
		{"on another port", func(w *wire) {
			b := arpFields{operation: ARPReply, senderMAC: station(9), sender: [4]byte{10, 0, 0, 3},
				targetMAC: station(2), target: [4]byte{192, 168, 88, 1}}.build()
			w.n.Input(w.now, 2, b[:], w.send)
		}},
		{"on no port", func(w *wire) {
			b := arpFields{operation: ARPReply, senderMAC: station(9), sender: [4]byte{10, 0, 0, 3},
				targetMAC: station(1), target: [4]byte{10, 0, 0, 1}}.build()
			w.n.Input(w.now, 7, b[:], w.send)
		}},
		{"sender differs from the frame", func(w *wire) {
			b := arpFields{operation: ARPReply, senderMAC: station(9), sender: [4]byte{10, 0, 0, 3},
				targetMAC: station(1), target: [4]byte{10, 0, 0, 1}}.build()
			b[11] = 8
			w.n.Input(w.now, 1, b[:], w.send)
		}},
	} {
		w := newWire(t)
		w.resolve("10.0.0.3", "..a")
		w.takes()
		c.heard(w)
		w.want(c.name, w.lookup("10.0.0.3"), "-")
		w.want(c.name+": released", w.takes(), "")
	}
}

func TestMalformedIsCounted(t *testing.T) {
	w := newWire(t)
	frame := arpRequestFrame()
	frame[27]++
	w.n.Input(w.now, 1, frame, w.send)
	w.n.Input(w.now, 1, frame[:20], w.send)
	if s := w.n.Stats(); s.Malformed[ARPSender] != 1 || s.Malformed[ARPShort] != 1 || s.Received != 2 || s.Entries != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestEntriesFromRequests(t *testing.T) {
	w := newWire(t)
	w.n.SetOwned([]netip.Addr{netip.MustParseAddr("10.0.0.100")})
	w.heard(ARPRequest, 4, "10.0.0.4", 0, "10.0.0.4") // announces itself
	w.heard(ARPReply, 5, "10.0.0.5", 5, "10.0.0.5")
	w.heard(ARPRequest, 6, "10.0.0.6", 0, "10.0.0.77") // asks for another
	w.heard(ARPRequest, 7, "172.16.0.7", 0, "10.0.0.1")
	w.heard(ARPReply, 8, "10.0.0.8", 1, "10.0.0.1") // answers what nobody asked
	if s := w.n.Stats(); s.Entries != 0 {
		t.Errorf("%d entries from what was not for us", s.Entries)
	}
	w.takes()

	w.heard(ARPRequest, 9, "10.0.0.9", 0, "10.0.0.1")
	w.want("the host answers for itself", w.takes(), "")
	w.heard(ARPRequest, 10, "10.0.0.10", 0, "10.0.0.100")
	w.want("we answer for ours", w.takes(), "1>10 10.0.0.100 is at 1 for 10.0.0.10")
	w.pass(time.Minute)
	w.want("not asked unused", w.takes(), "")
	w.want("used as it is", w.lookup("10.0.0.10"), "10")
	w.pass(50 * time.Millisecond)
	w.want("and then asked", w.takes(), "1>10 who has 10.0.0.10 tell 10.0.0.1")
}

func TestSenderOfQuestions(t *testing.T) {
	for _, c := range []struct {
		name, addrs, owned string
		want               [3]string
	}{
		{"an address of the port", "10.0.0.1/24", "10.0.0.100", [3]string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}},
		{"of several the right one", "192.0.2.1/24 10.0.0.7/24", "", [3]string{"10.0.0.7", "10.0.0.7", "10.0.0.7"}},
		{"owned ones without", "", "192.168.88.23 10.0.0.254", [3]string{"10.0.0.254", "10.0.0.254", "0.0.0.0"}},
		{"owned ones beside a foreign network", "192.0.2.1/24", "192.168.88.23", [3]string{"192.168.88.23", "192.168.88.23", "0.0.0.0"}},
		{"nothing", "", "", [3]string{"0.0.0.0", "0.0.0.0", "0.0.0.0"}},
	} {
		w := newWire(t)
		port := NeighbourPort{Port: 1, MAC: station(1)}
		for a := range strings.FieldsSeq(c.addrs) {
			port.Addrs = append(port.Addrs, netip.MustParsePrefix(a))
		}
		var owned []netip.Addr
		for a := range strings.FieldsSeq(c.owned) {
			owned = append(owned, netip.MustParseAddr(a))
		}
		w.n.SetPorts([]NeighbourPort{port})
		w.n.SetOwned(owned)
		w.resolve("10.0.0.3", "..a")
		w.pass(2500 * time.Millisecond)
		var want []string
		for _, from := range c.want {
			want = append(want, "1>all who has 10.0.0.3 tell "+from)
		}
		w.want(c.name, w.takes(), strings.Join(want, "; "))
		w.heard(ARPReply, 3, "10.0.0.3", 1, c.want[2])
		w.want(c.name+": answer", w.lookup("10.0.0.3"), "3")
	}
}

func TestNotToBeAsked(t *testing.T) {
	w := newWire(t)
	for _, a := range []string{"0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "::1", "ff02::1", "::ffff:224.0.0.1"} {
		if got := w.resolve(a, "..a"); got != ResolveNoPort {
			t.Errorf("%s: %d", a, got)
		}
	}
	w.want("asked", w.takes(), "")
}
