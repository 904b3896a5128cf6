// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// station is the MAC of a station by number. Port 1 of a wire is station 1 at
// 10.0.0.1/24, port 2 is station 2 at 192.168.88.1/24.
func station(number byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, number} }

type sentFrame struct {
	port  int
	frame []byte
	off   Offload
}

// wire is a Neighbours with a hand clock, whose frames are kept.
type wire struct {
	t    testing.TB
	n    *Neighbours
	now  Time
	sent []sentFrame
	gone []string // what the failed callback got: the bytes behind the MACs
	log  []string // conflicts
}

func newWire(t testing.TB) *wire {
	w := &wire{t: t, now: Time(time.Hour)}
	w.n = NewNeighbours(NeighbourConfig{Conflict: func(port int, addr netip.Addr, mac [6]byte) {
		w.log = append(w.log, fmt.Sprintf("%d %v station %d", port, addr, mac[5]))
	}})
	w.n.SetPorts([]NeighbourPort{
		{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		{Port: 2, MAC: station(2), Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.88.1/24")}},
	})
	return w
}

func (w *wire) send(port int, frame []byte, off Offload) {
	w.sent = append(w.sent, sentFrame{port, append([]byte(nil), frame...), off})
}

func (w *wire) failed(port int, frame []byte) {
	w.gone = append(w.gone, fmt.Sprintf("%d %s", port, frame[12:]))
}

// pass lets time pass as the director does, a Tick every 50 ms.
func (w *wire) pass(d time.Duration) {
	for end := w.now.add(d); w.now < end; {
		w.now = min(w.now.add(50*time.Millisecond), end)
		w.n.Tick(w.now, w.send, w.failed)
	}
}

func (w *wire) resolve(addr, payload string) Resolved {
	frame := append(make([]byte, 12), payload...)
	frame = append(frame, make([]byte, max(0, ethernetHeader-len(frame)))...)
	return w.n.Resolve(w.now, 1, netip.MustParseAddr(addr), frame, Offload{GSOSize: 7}, w.send)
}

// lookup returns the number of the station, or "-".
func (w *wire) lookup(addr string) string {
	mac, ok := w.n.Lookup(w.now, 1, netip.MustParseAddr(addr))
	if !ok {
		return "-"
	}
	return fmt.Sprint(mac[5])
}

// heard puts an ARP packet on port 1, from the station with a number.
func (w *wire) heard(operation ARPOperation, from byte, sender string, target byte, targetIP string) {
	b := arpFields{
		to: broadcastMAC(), operation: operation,
		senderMAC: station(from), sender: netip.MustParseAddr(sender).As4(),
		targetMAC: station(target), target: netip.MustParseAddr(targetIP).As4(),
	}.build()
	w.n.Input(w.now, 1, b[:], w.send)
}

// answer is a reply to port 1 by a station.
func (w *wire) answer(from byte, sender string) { w.heard(ARPReply, from, sender, 1, "10.0.0.1") }

// learn makes a confirmed neighbour and forgets the frames that it took.
func (w *wire) learn(addr string, number byte) {
	w.t.Helper()
	w.resolve(addr, "..x")
	w.answer(number, addr)
	if got := w.lookup(addr); got != fmt.Sprint(number) {
		w.t.Fatalf("after an answer %s is at %s", addr, got)
	}
	w.sent = nil
}

// takes returns what was sent since the last call, and forgets it.
func (w *wire) takes() string {
	var lines []string
	for _, s := range w.sent {
		to := fmt.Sprint(s.frame[5])
		if [6]byte(s.frame) == broadcastMAC() {
			to = "all"
		}
		a, fault := ParseARP(s.frame)
		if n, fault := ParseND(s.frame); fault == NDGood {
			lines = append(lines, describeND(s, n))
			continue
		}
		switch {
		case fault != ARPGood:
			lines = append(lines, fmt.Sprintf("%d>%s %s", s.port, to, s.frame[12:]))
		case a.Operation() == ARPRequest:
			lines = append(lines, fmt.Sprintf("%d>%s who has %v tell %v", s.port, to, a.TargetIP(), a.SenderIP()))
		default:
			lines = append(lines, fmt.Sprintf("%d>%s %v is at %d for %v", s.port, to, a.SenderIP(), a.SenderMAC()[5], a.TargetIP()))
		}
	}
	w.sent = nil
	return strings.Join(lines, "; ")
}

func (w *wire) want(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

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
		t.Errorf("entries from what was not for us: %+v", w.n.List())
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

func TestLearnedIsBounded(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	w.learn("10.0.0.3", 3)
	for i := range 2 * maxLearned {
		w.heard(ARPRequest, 9, fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250), 0, "10.0.0.1")
	}
	if s := w.n.Stats(); s.Entries != maxLearned+1 || s.Evicted != maxLearned {
		t.Errorf("got %+v", s)
	}
	w.want("the confirmed one stays", w.lookup("10.0.0.3"), "3")
}

func TestTableIsBoundedAndConfirmedGoLast(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	for i := range maxNeighbours + 1000 {
		w.resolve(fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250), "..s")
	}
	if s := w.n.Stats(); s.Entries != maxNeighbours || s.Evicted != 1001 {
		t.Errorf("entries %d, evicted %d", s.Entries, s.Evicted)
	}
	w.want("a scan evicts only its own", w.lookup("10.0.0.3"), "3")
	if w.n.Generation() != generation {
		t.Error("the scan moved the generation")
	}
}

func TestOldestUnusedConfirmedGoes(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	name := func(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250) }
	for i := range maxNeighbours {
		w.learn(name(i), 9)
	}
	w.lookup(name(0)) // used again: now name(1) is the oldest
	generation := w.n.Generation()
	w.learn("10.0.0.3", 3)
	w.want("used", w.lookup(name(0)), "9")
	w.want("unused", w.lookup(name(1)), "-")
	if w.n.Generation() == generation {
		t.Error("a cache may go on with an evicted neighbour")
	}
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

func TestPermanentEntries(t *testing.T) {
	w := newWire(t)
	entry := PermanentNeighbour{Port: 1, Addr: netip.MustParseAddr("10.0.0.3"), MAC: station(33)}
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	w.n.SetPermanent([]PermanentNeighbour{entry})
	if w.n.Generation() == generation {
		t.Error("caches keep what was there before")
	}
	w.want("honoured", w.lookup("10.0.0.3"), "33")
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3")
	w.answer(9, "10.0.0.3")
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.1")
	w.pass(time.Minute)
	w.want("never overridden", w.lookup("10.0.0.3"), "33")
	w.want("never asked", w.takes(), "")
	if got := w.resolve("10.0.0.3", "..a"); got != ResolveKnown {
		t.Errorf("resolve: %d", got)
	}

	generation = w.n.Generation()
	w.n.SetPermanent([]PermanentNeighbour{entry})
	if w.n.Generation() != generation {
		t.Error("the same entries moved the generation")
	}
	w.n.SetPermanent(nil)
	w.want("gone", w.lookup("10.0.0.3"), "-")
	if w.n.Generation() == generation {
		t.Error("caches keep a removed entry")
	}
}

func TestPermanentEntryReleasesWhatWaits(t *testing.T) {
	w := newWire(t)
	w.resolve("10.0.0.3", "..a")
	w.takes()
	w.n.SetPermanent([]PermanentNeighbour{{Port: 1, Addr: netip.MustParseAddr("10.0.0.3"), MAC: station(33)}})
	w.pass(50 * time.Millisecond)
	w.want("released", w.takes(), "1>33 ..a")
}

func TestSetPortsForgetsPortsThatWent(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.resolve("10.0.0.4", "..a")
	generation := w.n.Generation()
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1)}})
	w.want("addresses are no reason", w.lookup("10.0.0.3"), "3")
	if w.n.Generation() != generation {
		t.Error("the generation moved")
	}
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(7)}})
	w.want("another MAC is", w.lookup("10.0.0.3"), "-")
	if w.n.Generation() == generation {
		t.Error("the generation did not move")
	}
	if s := w.n.Stats(); s.Entries != 0 || s.Queued != 0 {
		t.Errorf("left: %+v", s)
	}
	w.n.SetPorts(nil)
	if got := w.resolve("10.0.0.3", "..a"); got != ResolveNoPort {
		t.Errorf("without the port: %d", got)
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

func TestIdleEntriesGo(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.pass(9 * time.Minute)
	w.want("kept", fmt.Sprint(w.n.Stats().Entries), "1")
	w.pass(2 * time.Minute)
	w.want("gone", fmt.Sprint(w.n.Stats().Entries), "0")
	w.want("never asked", w.takes(), "")
}

func TestListing(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.resolve("10.0.0.4", "..a")
	w.n.SetPermanent([]PermanentNeighbour{{Port: 1, Addr: netip.MustParseAddr("10.0.0.9"), MAC: station(9)}})
	var got []string
	for _, e := range w.n.List() {
		got = append(got, fmt.Sprintf("%d %v %d %s", e.Port, e.Addr, e.MAC[5], e.State))
	}
	w.want("list", strings.Join(got, "; "), "1 10.0.0.3 3 REACHABLE; 1 10.0.0.4 0 INCOMPLETE; 1 10.0.0.9 9 PERMANENT")
}
