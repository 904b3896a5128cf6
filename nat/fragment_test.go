// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// FAULTS 21.
func TestFragmentsInAnyOrderAreDelivered(t *testing.T) {
	whole, parts := datagramOf(t, 0x8001, 3000, 1500)
	for name, order := range map[string][]int{
		"in order":         {0, 1, 2},
		"reversed":         {2, 1, 0},
		"first in between": {1, 0, 2},
		"last first":       {2, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			for n, i := range order {
				if len(r.out) != 0 {
					t.Fatalf("%d sent after %d fragments", len(r.out), n)
				}
				r.send(parts[i])
			}
			if ipv4Header(r.out[0]).fragment()&ipv4OffsetMask != 0 {
				t.Error("the leader does not go first")
			}
			r.delivers(whole)
			if r.table.numFreeSlots != maxHeldSlots || len(r.drops) != 0 {
				t.Errorf("slots left %d, drops %v", r.table.numFreeSlots, r.drops)
			}
		})
	}
}

// FAULTS 21.
func TestDuplicatedFragmentsAreDeliveredOnce(t *testing.T) {
	whole, parts := datagramOf(t, 0x8002, 3000, 1500)
	for name, order := range map[string][]int{
		"each twice":              {0, 0, 1, 1, 2},
		"reversed, each twice":    {2, 2, 1, 1, 0},
		"held one again":          {1, 1, 0, 1, 2},
		"all again in the middle": {0, 1, 0, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			for _, i := range order {
				r.send(parts[i])
			}
			if len(r.out) != 3 || r.drops[ReasonFragmentDuplicate] != len(order)-3 {
				t.Errorf("%d sent, drops %v", len(r.out), r.drops)
			}
			r.delivers(whole)
			r.send(parts[1], parts[2]) // late ones, after all is over
			if len(r.out) != 0 || r.drops[ReasonFragmentDuplicate] != len(order)-1 {
				t.Errorf("late: %d sent, drops %v", len(r.out), r.drops)
			}
		})
	}
}

// FAULTS 21.
func TestInterleavedDatagramsOfOneIdentificationAreKeptApart(t *testing.T) {
	whole, parts := datagramOf(t, 0x8003, 3000, 1500)
	change := func(b []byte, at int) []byte {
		b = append([]byte(nil), b...)
		b[at] = 77
		return fixHeader(b)
	}
	for name, at := range map[string]int{"source": 15, "destination": 19} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			r.send(parts[2], change(parts[2], at), change(parts[0], at), parts[1], parts[0], change(parts[1], at))
			var mine, other [][]byte
			for _, b := range r.out {
				if b[15] == 77 {
					other = append(other, b)
				} else {
					mine = append(mine, b)
				}
			}
			if name == "destination" {
				if len(r.out) != 6 {
					t.Fatalf("%d sent", len(r.out))
				}
				return
			}
			for _, fragments := range [][][]byte{mine, other} {
				r.out = fragments
				r.delivers(whole)
			}
		})
	}
}

// FAULTS 24.
func TestOverlapKillsTheDatagram(t *testing.T) {
	first := udpPacket(t, 3000, nil)[20 : 20+1480]
	for name, row := range map[string]struct{ offset, length int }{
		"into the first":             {1472, 1480},
		"teardrop inside its end":    {1440, 80},
		"from before the last":       {2952, 16},
		"across the gap":             {1400, 1600},
		"across everything":          {8, 4000},
		"one unit beyond both sides": {1472, 1496},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			r.send(fragmentOf(t, 17, 9, 0, true, first), fragmentOf(t, 17, 9, 2960, true, pattern(80)))
			r.send(fragmentOf(t, 17, 9, row.offset, true, pattern(row.length/8*8)))
			if r.drops[ReasonFragmentOverlap] != 1 || r.lost != 2 || r.table.numFreeSlots != maxHeldSlots {
				t.Fatalf("states %v, drops %v, %d lost", r.states, r.drops, r.lost)
			}
			r.send(fragmentOf(t, 17, 9, 1480, true, pattern(1480)), fragmentOf(t, 17, 9, 0, true, first))
			if len(r.out) != 0 || r.drops[ReasonFragmentLate] != 2 {
				t.Errorf("%d sent, drops %v", len(r.out), r.drops)
			}
		})
	}
}

// FAULTS 24: what lies inside what was seen is dropped alone, so that its data
// cannot get into the mixture either.
func TestFragmentInsideAnotherIsNotSent(t *testing.T) {
	whole, parts := datagramOf(t, 9, 3000, 1500)
	r := newRelay(t)
	r.send(parts[0], parts[1])
	r.send(fragmentOf(t, 17, 9, 1600, true, bytes.Repeat([]byte{0xee}, 80)))
	r.send(parts[2])
	if r.drops[ReasonFragmentDuplicate] != 1 {
		t.Errorf("drops %v", r.drops)
	}
	r.delivers(whole)
}

// FAULTS 24.
func TestContradictingEndKillsTheDatagram(t *testing.T) {
	last := func(offset, n int) []byte { return fragmentOf(t, 17, 9, offset, false, pattern(n)) }
	more := func(offset, n int) []byte { return fragmentOf(t, 17, 9, offset, true, pattern(n)) }
	for name, parts := range map[string][2][]byte{
		"data behind the end":         {last(1480, 100), more(2960, 80)},
		"an end before the data":      {more(2960, 80), last(1480, 100)},
		"two ends":                    {last(1480, 100), last(2960, 100)},
		"an end where more was":       {more(1480, 80), last(1480, 80)},
		"an end inside what was seen": {more(1480, 160), last(1480, 80)},
		"another end, adjacent":       {last(1480, 80), last(1560, 80)},
		"more where the end was":      {last(1480, 80), more(1560, 80)},
	} {
		r := newRelay(t)
		r.send(parts[0], parts[1])
		if r.drops[ReasonFragmentOverlap] != 1 {
			t.Errorf("%s: states %v, drops %v", name, r.states, r.drops)
		}
	}
}

// FAULTS 26: a flood of fragments that nothing follows, with ports or without,
// from random sources or one, leaves other datagrams alone.
func TestFloodOfHalfDatagramsStarvesNobody(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	first := fragmentOf(t, 17, 1, 0, true, udpPacket(t, 3000, nil)[20:20+1480])
	later := fragmentOf(t, 17, 1, 1480, true, pattern(1480))
	for name, row := range map[string]struct {
		b          []byte
		oneSource  bool
		background int // flood fragments between two fragments of the others
	}{
		"first fragments of 10,000 sources": {first, false, 20},
		"first fragments of one source":     {first, true, 1000},
		"later fragments of 10,000 sources": {later, false, 20},
		"later fragments of one source":     {later, true, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			flood := func(n int) {
				for range n {
					b := append([]byte(nil), row.b...)
					binary.BigEndian.PutUint16(b[4:], uint16(rng.Uint32()))
					b[13] = 99
					if !row.oneSource {
						binary.BigEndian.PutUint16(b[14:], uint16(rng.Uint32()))
					}
					pkt := Packet{Data: fixHeader(b)}
					p := mustParse(t, &pkt)
					if o := r.table.add(r.now, p, &pkt); o.state == fragWhole {
						t.Fatal("half a datagram is whole")
					}
				}
			}
			flood(10000)
			r.check()
			for id := range uint16(5) {
				whole, parts := datagramOf(t, id, 60000, 1500)
				if id%2 == 1 {
					parts = reversed(parts)
				}
				for _, b := range parts {
					r.send(b)
					flood(row.background)
				}
				r.delivers(whole)
			}
			if r.table.numRows > maxDatagrams {
				t.Errorf("%d rows", r.table.numRows)
			}
		})
	}
}

// FAULTS 27.
func TestHalfDatagramIsForgotten(t *testing.T) {
	_, parts := datagramOf(t, 9, 3000, 1500)
	for _, half := range [][][]byte{{parts[1], parts[2]}, {parts[0], parts[2]}, {parts[1], parts[0]}} {
		r := newRelay(t)
		r.send(half[0])
		r.now = datagramLife / 2
		r.send(half[1])
		if n := r.table.sweep(datagramLife - 1); n != 0 {
			t.Errorf("%d lost before the time", n)
		}
		if n := r.table.sweep(datagramLife); n != 2 || r.table.numRows != 0 || r.table.numFreeSlots != maxHeldSlots {
			t.Errorf("%d lost, %d datagrams, %d slots free", n, r.table.numRows, r.table.numFreeSlots)
		}
		if r.check(); len(r.out) != 0 {
			t.Errorf("%d sent", len(r.out))
		}
	}

	// Without a sweep in between, a new datagram does not inherit the old.
	whole, parts := datagramOf(t, 10, 3000, 1500)
	r := newRelay(t)
	r.send(fragmentOf(t, 17, 10, 1400, true, pattern(800)))
	r.now = datagramLife
	r.send(parts...)
	r.delivers(whole)
	if n := r.table.takeEvicted(); n != 1 || r.table.takeEvicted() != 0 {
		t.Errorf("%d evicted, want 1", n)
	}
}

// FAULTS 31.
func TestLargeDatagramIsDelivered(t *testing.T) {
	whole, parts := datagramOf(t, 9, 60000, 1500)
	if len(parts) != 41 {
		t.Fatalf("%d fragments", len(parts))
	}
	r := newRelay(t)
	r.send(parts...)
	r.delivers(whole)

	whole, parts = datagramOf(t, 10, 60000, 1500)
	r.send(reversed(parts)...)
	r.delivers(whole)

	rng := rand.New(rand.NewPCG(3, 3))
	for id := range uint16(100) {
		whole, parts = datagramOf(t, 11+id, 60000, 1500)
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		r.send(parts...)
		r.delivers(whole)
	}
}

func TestJumboFragmentsAreHeldWhole(t *testing.T) {
	whole, parts := datagramOf(t, 9, 65000, 9000)
	r := newRelay(t)
	r.send(reversed(parts)...)
	r.delivers(whole)
	for _, n := range []int{2027, 2028, 2029, 2048, 4068, 4096} { // around the slot length
		whole, parts = datagramOf(t, uint16(n), 9000, n/8*8+20)
		r.send(reversed(parts)...)
		r.delivers(whole)
	}
}

func TestIdentificationMayComeAgain(t *testing.T) {
	r := newRelay(t)
	whole, parts := datagramOf(t, 9, 3000, 1500)
	r.send(parts...)
	r.delivers(whole)
	whole, parts = datagramOf(t, 9, 4000, 1500) // at once, in order
	r.send(parts...)
	r.delivers(whole)
	r.now += completeLife // reversed, once duplicates are no more expected
	r.send(reversed(parts)...)
	r.delivers(whole)
}

func TestRefusedDatagramIsRefusedWhole(t *testing.T) {
	_, parts := datagramOf(t, 9, 3000, 1500)
	r := newRelay(t)
	r.refuse = true
	r.send(parts[1], parts[0], parts[2])
	if len(r.out) != 0 || r.lost != 2 || r.table.numFreeSlots != maxHeldSlots {
		t.Errorf("%d sent, %d lost", len(r.out), r.lost)
	}
}

// One datagram cannot hold more than the share of its source.
func TestTooManyFragmentsKillTheDatagram(t *testing.T) {
	_, parts := datagramOf(t, 9, 60000, 300)
	r := newRelay(t)
	r.send(parts[1:]...)
	if r.drops[ReasonFragmentLimit] != 1 || r.table.numFreeSlots != maxHeldSlots {
		t.Errorf("drops %v", r.drops)
	}
	r.send(parts...) // in order it is the same
	if r.drops[ReasonFragmentLate] == 0 || len(r.out) != 0 {
		t.Errorf("%d sent, drops %v", len(r.out), r.drops)
	}
	// The largest in the smallest frames that hosts have to take.
	whole, parts := datagramOf(t, 10, 65507, 576)
	r.send(parts...)
	r.delivers(whole)
	// More gaps than can be remembered.
	r = newRelay(t)
	for i := range 2 * maxRuns {
		r.send(fragmentOf(t, 17, 11, 16*i+8, true, pattern(8)))
	}
	if r.drops[ReasonFragmentLimit] != 1 || r.drops[ReasonFragmentLate] != maxRuns-1 {
		t.Errorf("drops %v", r.drops)
	}
}

// Random fragments of one datagram, against a map of bytes: nothing is sent
// before all was seen, all is sent then, and nothing of a datagram that has an
// overlap.
func TestFragmentsAgainstABitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	wholes, deads := 0, 0
	for round := range 300 {
		r := newRelay(t)
		const units = 12
		var seen [units]bool
		dead := false
		count, sent := 0, 0
		for range 60 {
			from := rng.IntN(units)
			to := min(from+1+rng.IntN(3), units)
			if rng.IntN(3) > 0 { // where there is a gap, and as large
				for from = 0; from < units-1 && seen[from]; from++ {
				}
				for to = from + 1; to < units && to < from+3 && !seen[to]; to++ {
				}
			}
			head := []byte{0x9c, 0x40, 0, 9, 0, 8 * units, 0, 0}
			r.send(fragmentOf(t, 17, 9, from*8, to < units, append(head, pattern(8*(to-from)-8)...)))
			all, some := true, false
			for i := from; i < to; i++ {
				all = all && seen[i]
				some = some || seen[i]
			}
			switch {
			case dead || all:
			case some:
				dead = true
				deads++
			default:
				for i := from; i < to; i++ {
					seen[i] = true
				}
				count++
			}
			if !dead && !slices.Contains(seen[:], false) {
				sent = count
				wholes++
			}
			if len(r.out) != sent {
				t.Fatalf("round %d: %d sent, want %d", round, len(r.out), sent)
			}
			if sent > 0 {
				break
			}
		}
	}
	if wholes < 50 || deads < 50 {
		t.Errorf("%d whole, %d dead: that tests little", wholes, deads)
	}
}

func TestFragmentsAllocateNothing(t *testing.T) {
	_, parts := datagramOf(t, 9, 20000, 4000)
	collectWithoutAllocating(t, parts)
}

// collectWithoutAllocating has the parts of a datagram collected, the last first.
func collectWithoutAllocating(t *testing.T, parts [][]byte) {
	t.Helper()
	table := newFragments(1)
	var p parsed
	now := conntrack.Time(0)
	if n := testing.AllocsPerRun(100, func() {
		now += completeLife
		for i := range parts {
			b := parts[len(parts)-1-i]
			pkt := Packet{Data: b}
			p.parse(&pkt)
			if o := table.add(now, &p, &pkt); o.state == fragWhole {
				for o.held.next() != nil {
				}
			}
		}
		table.sweep(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
