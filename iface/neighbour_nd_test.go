// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// describeND says a message in the words of ARP; "(all)" is an advertisement that
// nobody asked for.
func describeND(s sentFrame, n ND) string {
	to := fmt.Sprint(s.frame[5])
	switch [6]byte(s.frame) {
	case groupMAC(solicitedNode(n.Target())):
		to = "group"
	case groupMAC(allNodes()):
		to = "all"
	}
	mac, _ := n.option()
	if n.Type() == NDSolicitation {
		return fmt.Sprintf("%d>%s who has %v tell %v at %d", s.port, to, n.Target(), n.Source(), mac[5])
	}
	flags := n[ipv6Header+4]
	return fmt.Sprintf("%d>%s %v is at %d for %v flags %02x", s.port, to, n.Target(), mac[5], n.Destination(), flags)
}

// newWire6 is a wire whose port 1 has fe80::1 and 2001:db8::1/64, and port 2
// nothing of IPv6.
func newWire6(t testing.TB) *wire {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{
		{Port: 1, MAC: station(1), Addrs: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::1/64")}},
		{Port: 2, MAC: station(2)},
	})
	return w
}

// owns gives the wire addresses of its own, which nobody else has, and forgets what
// that took to find out.
func (w *wire) owns(addrs ...string) {
	w.own(addrs...)
	w.pass(probeTime + listenRepeats*listenInterval + time.Second)
	w.sent = nil
}

// asks puts a solicitation on port 1.
func (w *wire) asks(from byte, source, destination, target string) {
	t := netip.MustParseAddr(target)
	d := solicitedNode(t)
	if destination != "" {
		d = netip.MustParseAddr(destination)
	}
	w.n.Input(w.now, 1, ndFields{to: groupMAC(d), kind: NDSolicitation, senderMAC: station(from),
		source: netip.MustParseAddr(source), destination: d, target: t}.build(), w.send)
}

// says puts an advertisement on port 1.
func (w *wire) says(from byte, target, destination string, flags byte) {
	w.n.Input(w.now, 1, ndFields{to: station(1), kind: NDAdvertisement, flags: flags, senderMAC: station(from),
		source: netip.MustParseAddr(target), destination: netip.MustParseAddr(destination), target: netip.MustParseAddr(target)}.build(), w.send)
}

// answer6 is an answer to port 1 by a station.
func (w *wire) answer6(from byte, target string) {
	w.says(from, target, "2001:db8::1", ndFlagSolicited|ndFlagOverride)
}

func (w *wire) learn6(addr string, number byte) {
	w.t.Helper()
	w.resolve(addr, "..x")
	w.answer6(number, addr)
	w.want("learned", w.lookup(addr), fmt.Sprint(number))
	w.sent = nil
}

func TestNDAnswerReleasesTheQueue(t *testing.T) {
	w := newWire6(t)
	if got := w.resolve("2001:db8::3", "..a"); got != ResolveQueued {
		t.Fatalf("first frame: %d", got)
	}
	w.want("question", w.takes(), "1>group who has 2001:db8::3 tell 2001:db8::1 at 1")
	w.resolve("2001:db8::3", "..b")
	w.answer6(3, "2001:db8::3")
	w.want("released", w.takes(), "1>3 ..a; 1>3 ..b")
	w.want("known", w.lookup("2001:db8::3"), "3")
}

func TestNDSilentNeighbourFails(t *testing.T) {
	w := newWire6(t)
	w.resolve("2001:db8::3", "..a")
	w.pass(2900 * time.Millisecond)
	ask := "1>group who has 2001:db8::3 tell 2001:db8::1 at 1"
	w.want("three questions", w.takes(), ask+"; "+ask+"; "+ask)
	w.pass(150 * time.Millisecond)
	w.want("given up", strings.Join(w.gone, "; "), "1 ..a")
	if got := w.resolve("2001:db8::3", "..c"); got != ResolveUnreachable {
		t.Errorf("after a failure: %d", got)
	}
}

func TestNDReachableIsAskedAloneThenAll(t *testing.T) {
	w := newWire6(t)
	w.learn6("2001:db8::3", 3)
	w.pass(31 * time.Second)
	w.lookup("2001:db8::3")
	w.pass(100 * time.Millisecond)
	one := "1>3 who has 2001:db8::3 tell 2001:db8::1 at 1"
	w.want("alone", w.takes(), one)
	// An answer to one that was asked alone may leave its MAC out.
	b := ndFields{to: station(1), kind: NDAdvertisement, flags: ndFlagSolicited, senderMAC: station(3),
		source: netip.MustParseAddr("2001:db8::3"), destination: netip.MustParseAddr("2001:db8::1"), target: netip.MustParseAddr("2001:db8::3")}.build()
	b[ethernetHeader+5] = ndSize
	w.n.Input(w.now, 1, resum(b[:len(b)-ndOptionSize]), w.send)
	w.pass(20 * time.Second)
	w.want("confirmed", w.takes(), "")

	w.pass(11 * time.Second)
	w.lookup("2001:db8::3")
	w.pass(3100 * time.Millisecond)
	w.want("then all", w.takes(), one+"; "+one+"; "+one+"; 1>group who has 2001:db8::3 tell 2001:db8::1 at 1")
	w.want("no longer known", w.lookup("2001:db8::3"), "-")
	w.answer6(9, "2001:db8::3")
	w.want("whoever answers all", w.lookup("2001:db8::3"), "9")
}

func TestNDUnsolicitedChangesNothingInUse(t *testing.T) {
	for name, heard := range map[string]func(w *wire){
		"announcement to all":    func(w *wire) { w.says(9, "2001:db8::3", "ff02::1", ndFlagOverride) },
		"announcement to us":     func(w *wire) { w.says(9, "2001:db8::3", "2001:db8::1", ndFlagOverride) },
		"answer nobody asked":    func(w *wire) { w.answer6(9, "2001:db8::3") },
		"answer without a claim": func(w *wire) { w.says(9, "2001:db8::3", "2001:db8::1", ndFlagSolicited) },
		"question to us":         func(w *wire) { w.asks(9, "2001:db8::3", "", "2001:db8::1") },
	} {
		w := newWire6(t)
		w.learn6("2001:db8::3", 3)
		generation := w.n.Generation()
		heard(w)
		w.want(name+": the old one is asked", w.takes(), "1>3 who has 2001:db8::3 tell 2001:db8::1 at 1")
		for range 100 {
			heard(w)
		}
		w.want(name+": asked once", w.takes(), "")
		w.want(name+": in use", w.lookup("2001:db8::3"), "3")
		w.answer6(3, "2001:db8::3")
		w.pass(time.Second)
		w.want(name+": confirmed", w.lookup("2001:db8::3"), "3")
		if w.n.Generation() != generation {
			t.Errorf("%s: the generation moved", name)
		}
	}
}

func TestNDTakeoverWhenTheOldOneIsSilent(t *testing.T) {
	w := newWire6(t)
	w.learn6("2001:db8::3", 3)
	w.says(9, "2001:db8::3", "ff02::1", ndFlagOverride)
	w.pass(3*verifyTime + 100*time.Millisecond)
	one := "1>3 who has 2001:db8::3 tell 2001:db8::1 at 1"
	w.want("old one three times, then all", w.takes(), one+"; "+one+"; "+one+"; 1>group who has 2001:db8::3 tell 2001:db8::1 at 1")
	w.answer6(9, "2001:db8::3")
	w.want("taken over", w.lookup("2001:db8::3"), "9")
}

func TestNDAnswersThatAreNone(t *testing.T) {
	for name, heard := range map[string]func(w *wire){
		"not an answer":       func(w *wire) { w.says(9, "2001:db8::3", "2001:db8::1", ndFlagOverride) },
		"for another address": func(w *wire) { w.says(9, "2001:db8::3", "2001:db8::77", ndFlagSolicited) },
		"of another address":  func(w *wire) { w.answer6(9, "2001:db8::4") },
		"a question":          func(w *wire) { w.asks(9, "2001:db8::3", "", "2001:db8::1") },
		"from ourselves":      func(w *wire) { w.answer6(2, "2001:db8::3") },
		"without a MAC": func(w *wire) {
			b := ndAnswer()
			copy(b[ethernetHeader+24:], netip.MustParseAddr("2001:db8::1").AsSlice())
			b[len(b)-ndOptionSize-1] = 3 // 2001:db8::3
			b[11] = 9
			b[ethernetHeader+5] = ndSize
			w.n.Input(w.now, 1, resum(b[:len(b)-ndOptionSize]), w.send)
		},
		"from beyond the link": func(w *wire) {
			b := ndFields{to: station(1), kind: NDAdvertisement, flags: ndFlagSolicited, senderMAC: station(9),
				source: netip.MustParseAddr("2001:db8::3"), destination: netip.MustParseAddr("2001:db8::1"),
				target: netip.MustParseAddr("2001:db8::3")}.build()
			b[ethernetHeader+7] = 254
			w.n.Input(w.now, 1, b, w.send)
		},
	} {
		w := newWire6(t)
		w.resolve("2001:db8::3", "..a")
		w.takes()
		heard(w)
		w.want(name, w.lookup("2001:db8::3"), "-")
		w.want(name+": released", w.takes(), "")
	}
}

func TestNDOwnedIsAnswered(t *testing.T) {
	w := newWire6(t)
	w.owns("2001:db8::100", "10.0.0.100")
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("question", w.takes(), "1>9 2001:db8::100 is at 1 for 2001:db8::9 flags 60")
	w.asks(9, "fe80::9", "2001:db8::100", "2001:db8::100")
	w.want("asked alone", w.takes(), "1>9 2001:db8::100 is at 1 for fe80::9 flags 60")
	w.asks(9, "2001:db8::9", "", "2001:db8::1")
	w.asks(9, "2001:db8::9", "", "2001:db8::77")
	w.asks(2, "2001:db8::9", "", "2001:db8::100")
	w.want("not ours, or our other port", w.takes(), "")
	if len(w.log) != 0 {
		t.Errorf("conflicts: %q", w.log)
	}
	w.n.SetOwned(nil)
	w.asks(9, "2001:db8::9", "", "2001:db8::100")
	w.want("no longer ours", w.takes(), "")
}

func TestNDDuplicateAddressDetectionIsAnswered(t *testing.T) {
	w := newWire6(t)
	w.owns("2001:db8::100")
	w.asks(9, "::", "", "2001:db8::100")
	w.asks(9, "::", "", "2001:db8::100")
	all := "1>all 2001:db8::100 is at 1 for ff02::1 flags 20"
	w.want("each", w.takes(), all+"; "+all)
	w.want("reported once", strings.Join(w.log, "; "), "1 2001:db8::100 station 9")
	w.asks(9, "::", "", "2001:db8::77")
	w.want("of another address", w.takes(), "")
	if s := w.n.Stats(); s.Entries != 0 || s.Replies != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestNDConflictIsReportedAndDefended(t *testing.T) {
	w := newWire6(t)
	w.owns("2001:db8::100")
	for range 50 {
		w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride)
		w.asks(9, "2001:db8::100", "", "2001:db8::3")
	}
	w.want("defended once", w.takes(), "1>all 2001:db8::100 is at 1 for ff02::1 flags 20")
	w.want("reported once", strings.Join(w.log, "; "), "1 2001:db8::100 station 9")
	w.pass(10 * time.Second)
	w.says(9, "2001:db8::100", "ff02::1", ndFlagOverride)
	w.want("again after 10 s", w.takes(), "1>all 2001:db8::100 is at 1 for ff02::1 flags 20")
}

func TestNDAnnounce(t *testing.T) {
	w := newWire6(t)
	w.owns("2001:db8::100")
	w.n.Announce(w.send)
	w.want("on the port of its network", w.takes(), "1>all 2001:db8::100 is at 1 for ff02::1 flags 20")
	w.owns("2001:db8:9::100")
	w.n.Announce(w.send)
	if len(w.sent) != 2 || w.sent[0].port == w.sent[1].port {
		t.Errorf("of no network: %s", w.takes())
	}
}

func TestNDSenderOfQuestions(t *testing.T) {
	for _, c := range []struct{ name, addrs, owned, target, want string }{
		{"an address of the network", "fe80::1/64 2001:db8:1::1/64 2001:db8::1/64", "2001:db8::100", "2001:db8::3", "2001:db8::1"},
		{"link-local for its like", "2001:db8::1/64 fe80::1/64", "", "fe80::3", "fe80::1"},
		{"link-local for a foreign network", "fe80::1/64 2001:db8:1::1/64", "2001:db8::100", "2001:db8::3", "fe80::1"},
		{"the nearest owned one", "10.0.0.1/24", "2001:db9::1 10.0.0.100 2001:db8::100", "2001:db8::3", "2001:db8::100"},
		{"one made of the MAC", "10.0.0.1/24", "10.0.0.100", "2001:db8::3", "fe80::ff:fe00:1"},
	} {
		w := newWire(t)
		port := NeighbourPort{Port: 1, MAC: station(1)}
		for a := range strings.FieldsSeq(c.addrs) {
			port.Addrs = append(port.Addrs, netip.MustParsePrefix(a))
		}
		w.n.SetPorts([]NeighbourPort{port})
		w.owns(strings.Fields(c.owned)...)
		w.resolve(c.target, "..a")
		w.want(c.name, w.takes(), fmt.Sprintf("1>group who has %s tell %s at 1", c.target, c.want))
		w.says(3, c.target, c.want, ndFlagSolicited)
		w.want(c.name+": answer", w.lookup(c.target), "3")
	}
}

func TestNDEntriesFromQuestions(t *testing.T) {
	w := newWire6(t)
	w.owns("2001:db8::100")
	w.says(5, "2001:db8::5", "ff02::1", ndFlagOverride)
	w.asks(6, "2001:db8::6", "", "2001:db8::77")  // for another
	w.asks(7, "2001:db8:9::7", "", "2001:db8::1") // from no network of the port
	if n := w.n.Stats().Entries; n != 0 {
		t.Errorf("%d entries", n)
	}
	w.asks(8, "fe80::8", "", "2001:db8::100")
	w.want("the router that asked for us", w.lookup("fe80::8"), "8")
	w.takes()
	w.pass(50 * time.Millisecond)
	w.want("asked when it is used", w.takes(), "1>8 who has fe80::8 tell fe80::1 at 1")
}

func TestNDMalformedIsCounted(t *testing.T) {
	w := newWire6(t)
	harmed := ndQuestion()
	harmed[ethernetHeader+7] = 64
	w.n.Input(w.now, 1, harmed, w.send)
	router := ndQuestion()
	router[ethernetHeader+ipv6Header] = 134
	w.n.Input(w.now, 1, router, w.send)
	s := w.n.Stats()
	if s.Received != 2 || s.MalformedND[NDHopLimit] != 1 || s.MalformedND[NDNone] != 0 || s.Malformed != [numARPFaults]uint64{} {
		t.Errorf("got %+v", s)
	}
}
