// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// datagram6Of is a UDP datagram of IPv6, whole and in fragments for mtu, with
// the chain in front of each fragment header.
func datagram6Of(t testing.TB, id uint32, payload, mtu int, chain ...extension) (whole []byte, parts [][]byte) {
	whole = udp6Packet(t, payload, nil)
	data := whole[40:]
	room := (mtu - len(extended(whole[:40], chain...)) - 8) &^ 7
	for at := 0; at < len(data); at += room {
		end := min(at+room, len(data))
		b := slices.Concat(whole[:40], data[at:end])
		parts = append(parts, extended(b, append(slices.Clone(chain), fragmentExtension(id, at, end < len(data)))...))
	}
	return whole, parts
}

// reassemble6 puts fragments together as RFC 8200 section 4.5 has it, and
// fails if they overlap or leave gaps.
func reassemble6(t testing.TB, fragments [][]byte) (data []byte) {
	t.Helper()
	at := func(b []byte) (offset, header int) {
		proto, n := b[6], 40
		for proto != 44 {
			proto, n = b[n], n+8+8*int(b[n+1])
		}
		return int(binary.BigEndian.Uint16(b[n+2:]) &^ 7), n + 8
	}
	fragments = slices.Clone(fragments)
	slices.SortFunc(fragments, func(a, b []byte) int {
		x, _ := at(a)
		y, _ := at(b)
		return x - y
	})
	for i, b := range fragments {
		offset, header := at(b)
		if offset != len(data) || (b[header-5]&1 != 0) != (i < len(fragments)-1) {
			t.Fatalf("fragment at %d after %d bytes", offset, len(data))
		}
		data = append(data, b[header:]...)
	}
	return data
}

// FAULTS 21, 135.
func TestFragmentsOfIPv6InAnyOrderAreDelivered(t *testing.T) {
	for _, chain := range [][]extension{nil, {hopByHop(5, 2, 0, 0)}} {
		whole, parts := datagram6Of(t, 0xdead8001, 3000, 1500, chain...)
		for name, order := range map[string][]int{
			"in order": {0, 1, 2}, "reversed": {2, 1, 0}, "first in between": {1, 0, 2}, "each twice": {2, 2, 1, 1, 0},
		} {
			r := newRelay(t)
			for _, i := range order {
				r.send(parts[i])
			}
			if len(r.out) != 3 || !bytes.Equal(reassemble6(t, r.out), whole[40:]) {
				t.Errorf("%s: %d sent, states %v, drops %v", name, len(r.out), r.states, r.drops)
			}
		}
	}
}

func TestIdentificationOfIPv6Has32Bits(t *testing.T) {
	_, a := datagram6Of(t, 0x10009, 3000, 1500)
	_, b := datagram6Of(t, 0x20009, 3000, 1500)
	r := newRelay(t)
	r.send(a[2], b[2], a[0], b[1], b[0], a[1])
	if len(r.out) != 6 || len(r.drops) != 0 {
		t.Errorf("%d sent, drops %v", len(r.out), r.drops)
	}
}

// Fragments of one datagram may name different next headers (RFC 8200 section
// 4.5), and belong together all the same.
func TestNextHeaderOfALaterFragmentDoesNotMatter(t *testing.T) {
	whole, parts := datagram6Of(t, 9, 3000, 1500)
	parts[1][40], parts[2][40] = 60, 59
	r := newRelay(t)
	r.send(parts[1], parts[0], parts[2])
	if len(r.out) != 3 || !bytes.Equal(reassemble6(t, r.out), whole[40:]) {
		t.Errorf("%d sent, states %v, drops %v", len(r.out), r.states, r.drops)
	}
}

// FAULTS 24, 135; RFC 5722.
func TestOverlapKillsTheDatagramOfIPv6(t *testing.T) {
	datagram := udp6Packet(t, 3000, nil)[40:]
	first := fragment6Of(t, 17, 9, 0, true, datagram[:1440])
	for name, row := range map[string]struct{ offset, length int }{
		"into the first":    {1432, 1440},
		"teardrop":          {1400, 80},
		"across everything": {8, 2000},
		"one unit at each":  {1432, 1456},
	} {
		r := newRelay(t)
		r.send(first, fragment6Of(t, 17, 9, 2880, true, pattern(80)))
		r.send(fragment6Of(t, 17, 9, row.offset, true, pattern(row.length)))
		r.send(fragment6Of(t, 17, 9, 1440, true, pattern(1440)), first)
		if len(r.out) != 0 || r.drops[ReasonFragmentOverlap] != 1 || r.drops[ReasonFragmentLate] != 2 {
			t.Errorf("%s: %d sent, drops %v", name, len(r.out), r.drops)
		}
	}
}

// FAULTS 31.
func TestLargestDatagramOfIPv6IsDelivered(t *testing.T) {
	whole, parts := datagram6Of(t, 9, 65527, 1500)
	r := newRelay(t)
	r.send(reversed(parts)...)
	if !bytes.Equal(reassemble6(t, r.out), whole[40:]) {
		t.Errorf("states %v, drops %v", r.states, r.drops)
	}
	whole, parts = datagram6Of(t, 10, 65527, 65535)
	r = newRelay(t)
	r.send(reversed(parts)...)
	if !bytes.Equal(reassemble6(t, r.out), whole[40:]) {
		t.Errorf("states %v, drops %v", r.states, r.drops)
	}
}

func TestIPv6IsNeverCut(t *testing.T) {
	if _, r := newSplitter(&Packet{Data: udp6Packet(t, 3000, nil)}, 1500); r != ReasonTooBig {
		t.Errorf("%v, want %v", r, ReasonTooBig)
	}
}

// A super-datagram leaves as fragments that the sender's host has to make.
func TestSuperDatagramOfIPv6FitsByItsFragments(t *testing.T) {
	pkt := Packet{Data: udp6Packet(t, 3000, nil), Offload: Offload{GSOType: GSOUDP, GSOSize: 1448}}
	p := mustParse(t, &pkt)
	if !p.gsoFits(&pkt, 1496) || p.gsoFits(&pkt, 1495) {
		t.Error("fragment header not counted")
	}
}

func TestFragmentsOfIPv6AllocateNothing(t *testing.T) {
	_, parts := datagram6Of(t, 9, 20000, 4000)
	collectWithoutAllocating(t, parts)
}
