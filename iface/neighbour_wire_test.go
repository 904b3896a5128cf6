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
