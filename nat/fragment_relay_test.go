// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// A relay does with the fragment table what a forwarder does: it holds
// fragments, and sends those of a whole datagram, the leader first. It rewrites
// the destination to the real server.
type relay struct {
	t      testing.TB
	table  *fragments
	now    conntrack.Time
	out    [][]byte // in the order of sending, rewritten
	states []fragState
	drops  map[Reason]int
	lost   int  // held fragments that died with their datagram
	refuse bool // drop whole datagrams
	calls  int
}

func newRelay(t testing.TB) *relay {
	return &relay{t: t, table: newFragments(7), drops: map[Reason]int{}}
}

func (r *relay) send(fragments ...[]byte) {
	r.t.Helper()
	for _, b := range fragments {
		pkt := Packet{Data: append([]byte(nil), b...)}
		p := mustParse(r.t, &pkt)
		o := r.table.add(r.now, p, &pkt)
		r.states = append(r.states, o.state)
		switch o.state {
		case fragWhole:
			if r.refuse {
				r.lost += o.held.drop()
				break
			}
			if p.fragOffset == 0 {
				r.forward(pkt.Data)
			}
			for data := o.held.next(); data != nil; data = o.held.next() {
				r.forward(data)
			}
			if p.fragOffset != 0 {
				r.forward(pkt.Data)
			}
		case fragDead:
			r.drops[o.reason]++
			r.lost += o.lost
		case fragHeld:
			clear(pkt.Data) // the caller's memory is used again
		}
	}
	if r.calls++; r.table.numRows < 100 || r.calls%64 == 0 {
		r.check()
	}
}

func (r *relay) forward(b []byte) {
	var none delta
	server := addr(hostServer)
	if ipHeader(b).is6() {
		server = addr(host6Server)
	}
	ipHeader(b).replaceDestination(&server, &none)
	r.out = append(r.out, append([]byte(nil), b...))
}

// delivers fails unless what was sent reassembles to the datagram.
func (r *relay) delivers(whole []byte) {
	r.t.Helper()
	if got := reassemble(r.t, r.out); !bytes.Equal(got, whole[20:]) {
		r.t.Fatalf("%d fragments sent do not make the datagram; states %v, drops %v", len(r.out), r.states, r.drops)
	}
	r.out = nil
}

// check verifies what must hold between the lists, chains and counts.
func (r *relay) check() {
	r.t.Helper()
	t := r.table
	var rows, slots, holding int
	perSource := map[uint16][2]int{}
	for i, last := t.all.oldest, uint16(0); i != 0; i = t.rows[i].all.newer {
		d := &t.rows[i]
		if d.all.older != last || d.state == datagramFree || t.find(&d.key) != i {
			r.t.Fatalf("row %d is not well linked: %+v", i, d)
		}
		last = i
		rows++
		n := 0
		for k := d.firstSlot; k != 0; k = t.slots[k].next {
			n++
		}
		if n != int(d.held) || (d.firstSlot == 0) != (d.lastSlot == 0) {
			r.t.Fatalf("row %d holds %d slots, says %d", i, n, d.held)
		}
		if n > 0 {
			holding++
		}
		slots += n
		s := perSource[d.source]
		perSource[d.source] = [2]int{s[0] + 1, s[1] + n}
	}
	if rows != t.numRows || slots != maxHeldSlots-t.numFreeSlots {
		r.t.Fatalf("%d rows, says %d; %d slots, says %d free", rows, t.numRows, slots, t.numFreeSlots)
	}
	for i := t.holding.oldest; i != 0; i = t.rows[i].holding.newer {
		holding--
	}
	if holding != 0 {
		r.t.Fatalf("list of holders is off by %d", holding)
	}
	for i := range t.sources {
		s := &t.sources[i]
		if want := perSource[uint16(i)]; int(s.datagrams) != want[0] || int(s.slots) != want[1] {
			r.t.Fatalf("source list %d says %d and %d, want %v", i, s.datagrams, s.slots, want)
		}
	}
}

// datagramOf is a UDP datagram with this identification, whole and in
// fragments for mtu.
func datagramOf(t testing.TB, id uint16, payload, mtu int) (whole []byte, parts [][]byte) {
	whole = udpPacket(t, payload, func(ip *layers.IPv4, _ *layers.UDP) { ip.Id = id })
	return whole, splitAll(t, Packet{Data: whole}, mtu)
}

func reversed(parts [][]byte) (out [][]byte) {
	for i := range parts {
		out = append(out, parts[len(parts)-1-i])
	}
	return out
}
