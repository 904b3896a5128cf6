// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"

	"github.com/vsnat/vsnat/conntrack"
)

// The storage of the fragment table: rows in hash chains and lists by age,
// and slots that hold copies of fragments. Rows and slots are numbered
// from 1, so that 0 can mean none.

// find returns the row of a key, or 0.
func (t *fragments) find(key *fragKey) uint16 {
	i := t.buckets[t.hash(key)&(datagramBuckets-1)]
	for i != 0 && t.rows[i].key != *key {
		i = t.rows[i].hashNext
	}
	return i
}

// insert makes a row, taking the place of an older one if there must be one.
func (t *fragments) insert(key *fragKey, now conntrack.Time) uint16 {
	source := uint16(t.hash(&fragKey{src: key.src}) & (sourceLists - 1))
	s := &t.sources[source]
	if s.datagrams == maxSourceDatagrams {
		t.evicted += t.remove(s.oldest)
	}
	if t.numRows == maxDatagrams {
		t.evicted += t.remove(t.all.oldest)
	}
	i := t.takeRow()
	d := &t.rows[i]
	*d = datagram{key: *key, state: datagramWaiting, deadline: now + datagramLife, source: source, ttl: 0xff}
	b := &t.buckets[t.hash(key)&(datagramBuckets-1)]
	d.hashNext, *b = *b, i
	t.push(&t.all, i, allLinks)
	t.push(&s.ageList, i, sourceLinks)
	s.datagrams++
	t.numRows++
	return i
}

// takeRow takes a row that is not in use; there is one.
func (t *fragments) takeRow() uint16 {
	if i := t.freeRow; i != 0 {
		t.freeRow = t.rows[i].hashNext
		return i
	}
	t.freshRow++
	return t.freshRow
}

// takeSlot takes a slot that is not in use; there is one.
func (t *fragments) takeSlot() uint16 {
	if k := t.freeSlot; k != 0 {
		t.freeSlot = t.slots[k].next
		return k
	}
	t.freshSlot++
	return t.freshSlot
}

// remove forgets a datagram and returns how many held fragments went with it.
func (t *fragments) remove(i uint16) int {
	lost := t.drop(i)
	d := &t.rows[i]
	at := &t.buckets[t.hash(&d.key)&(datagramBuckets-1)]
	for *at != i {
		at = &t.rows[*at].hashNext
	}
	*at = d.hashNext
	s := &t.sources[d.source]
	t.unlink(&t.all, i, allLinks)
	t.unlink(&s.ageList, i, sourceLinks)
	s.datagrams--
	t.numRows--
	d.state = datagramFree
	d.hashNext, t.freeRow = t.freeRow, i
	return lost
}

// kill has the rest of a datagram dropped, and returns how many held fragments
// were dropped with it.
func (t *fragments) kill(i uint16) int {
	t.rows[i].state = datagramDead
	return t.drop(i)
}

// hold keeps a copy of a fragment, parsed as p: the leader in front of the
// others, any other behind them. It reports false if the datagram itself is what
// fills the share of its source.
func (t *fragments) hold(i uint16, p *parsed, data []byte) bool {
	need := (len(data) + heldSlotLen - 1) / heldSlotLen
	d := &t.rows[i]
	s := &t.sources[d.source]
	for int(s.slots)+need > maxSourceSlots {
		victim := s.oldest
		for victim != 0 && (victim == i || t.rows[victim].held == 0) {
			victim = t.rows[victim].ofSource.newer
		}
		if victim == 0 {
			return false
		}
		t.evicted += t.remove(victim)
	}
	for t.numFreeSlots < need {
		victim := t.holding.oldest
		if victim == i {
			victim = d.holding.newer
		}
		if victim == 0 {
			return false
		}
		t.evicted += t.remove(victim)
	}

	if d.held == 0 {
		t.push(&t.holding, i, holdingLinks)
	}
	d.held += uint16(need)
	s.slots += uint16(need)
	t.numFreeSlots -= need
	first, last := t.fill(data)
	switch {
	case d.firstSlot == 0:
		d.firstSlot, d.lastSlot = first, last
	case p.fragOffset == 0:
		t.slots[last].next, d.firstSlot = d.firstSlot, first
	default:
		t.slots[d.lastSlot].next, d.lastSlot = first, last
	}
	return true
}

// fill copies a fragment into slots, of which there are enough, and returns the
// ends of their chain.
func (t *fragments) fill(data []byte) (first, last uint16) {
	for len(data) > 0 {
		k := t.takeSlot()
		slot := &t.slots[k]
		slot.next = 0
		n := copy(slot.data[:], data)
		data = data[n:]
		slot.length, slot.continues = uint16(n), len(data) > 0
		if last == 0 {
			first = k
		} else {
			t.slots[last].next = k
		}
		last = k
	}
	return first, last
}

// takeHeld gives the first held fragment of a row out and frees its slots.
// What it returns lies in the freed slot, or in the scratch memory.
func (t *fragments) takeHeld(i uint16) []byte {
	d := &t.rows[i]
	slot := &t.slots[d.firstSlot]
	data := slot.data[:slot.length:slot.length]
	if slot.continues {
		n := copy(t.scratch[:], data)
		for more := true; more; {
			slot = &t.slots[slot.next]
			n += copy(t.scratch[n:], slot.data[:slot.length])
			more = slot.continues
		}
		data = t.scratch[:n:n]
	}
	t.freeHeld(i)
	return data
}

// drop frees what a row holds and returns how many fragments that were.
func (t *fragments) drop(i uint16) int {
	n := 0
	for t.rows[i].firstSlot != 0 {
		t.freeHeld(i)
		n++
	}
	return n
}

// freeHeld frees the slots of the first held fragment of a row.
func (t *fragments) freeHeld(i uint16) {
	d := &t.rows[i]
	for more := true; more; {
		k := d.firstSlot
		slot := &t.slots[k]
		more = slot.continues
		d.firstSlot = slot.next
		slot.next, t.freeSlot = t.freeSlot, k
		t.numFreeSlots++
		d.held--
		t.sources[d.source].slots--
	}
	if d.firstSlot == 0 {
		d.lastSlot = 0
		t.unlink(&t.holding, i, holdingLinks)
	}
}

// hash mixes a key with the seed: 128-bit products fold all bits of two words
// into one.
func (t *fragments) hash(k *fragKey) uint64 {
	mix := func(a, b uint64) uint64 {
		hi, lo := bits.Mul64(a^t.seed^0x9e3779b97f4a7c15, b^bits.RotateLeft64(t.seed, 32)^0xd6e8feb86659fd93)
		return hi ^ lo
	}
	h := mix(binary.LittleEndian.Uint64(k.src[:8]), binary.LittleEndian.Uint64(k.src[8:]))
	h = mix(h^binary.LittleEndian.Uint64(k.dst[:8]), h+binary.LittleEndian.Uint64(k.dst[8:]))
	return mix(h, uint64(k.id)<<8|uint64(k.proto))
}

// links is a place in a list by age. Indices are those of datagrams; 0 is
// none.
type links struct{ older, newer uint16 }

type ageList struct{ oldest, newest uint16 }

// whichLinks names one of the lists that a row is in.
type whichLinks uint8

const (
	allLinks whichLinks = iota
	holdingLinks
	sourceLinks
)

func (d *datagram) links(w whichLinks) *links {
	switch w {
	case holdingLinks:
		return &d.holding
	case sourceLinks:
		return &d.ofSource
	}
	return &d.all
}

// push appends a row to a list as its newest.
func (t *fragments) push(l *ageList, i uint16, w whichLinks) {
	*t.rows[i].links(w) = links{older: l.newest}
	if l.newest == 0 {
		l.oldest = i
	} else {
		t.rows[l.newest].links(w).newer = i
	}
	l.newest = i
}

// unlink takes a row out of a list.
func (t *fragments) unlink(l *ageList, i uint16, w whichLinks) {
	at := *t.rows[i].links(w)
	if at.older == 0 {
		l.oldest = at.newer
	} else {
		t.rows[at.older].links(w).newer = at.newer
	}
	if at.newer == 0 {
		l.newest = at.older
	} else {
		t.rows[at.newer].links(w).older = at.older
	}
	*t.rows[i].links(w) = links{}
}
