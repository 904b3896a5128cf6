// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Only the first fragment of a datagram, its leader, has ports. All are kept by
// (source, destination, identification, protocol), in IPv6 without the protocol
// (RFC 8200 section 4.5), until the last that was missing is there; then the
// leader is decided about and all of them go, one by one as they came. A part of
// a datagram never reaches a real server alone, whose own memory for
// reassembly a flood of halves would fill. Nothing is put together: the change
// of a transport checksum is additive, so that the leader carries it alone.
//
// A datagram lives 30 s from its first packet (RFC 1122 section 3.3.2 asks for
// 60 to 120 s of the final host; Linux takes 30), 1 s once it is whole, so that
// its identification may come again. What is known of a datagram:
//
//	waiting   something is missing; what came is held
//	gone      it was whole and has left; what comes again is dropped
//	dead      fragments overlapped, or were too many; all others are dropped
//
// The ranges seen are kept as disjoint runs. A fragment inside a run is a
// duplicate and is dropped alone; one that overlaps a run in part, or that
// contradicts the end of the datagram, kills the datagram before anything of it
// has left (RFC 5722): a receiver sees neither a mixture nor a torso.
//
// All memory is fixed. Three lists by age keep a flood from starving others:
// all datagrams, those that hold fragments, and those of one source. A source
// that goes beyond its share loses its own oldest datagram; only a flood from
// many sources pushes out the oldest of all. Sources share a list by a seeded
// hash, so that nobody can aim at another's.

const (
	maxDatagrams       = 4096
	maxHeldSlots       = 1024 // slots of heldSlotLen bytes, for all sources
	maxSourceDatagrams = 256
	maxSourceSlots     = 128 // two datagrams of 64 KiB in Ethernet frames
	heldSlotLen        = 2048
	maxRuns            = 32 // every second fragment of 64 can be missing

	sourceLists     = 1024 // a power of two
	datagramBuckets = 8192 // a power of two

	datagramLife = conntrack.Time(30e9)
	completeLife = conntrack.Time(1e9)
)

// fragState is what became of a fragment.
type fragState uint8

const (
	fragHeld  fragState = iota // kept; the caller may reuse its memory
	fragWhole                  // the last that was missing: the datagram is to go
	fragDead                   // to be dropped
)

// fragOutcome is the answer of add.
type fragOutcome struct {
	state  fragState
	reason Reason // with fragDead
	lost   int    // with fragDead: held fragments of the datagram that died with it

	// With fragWhole, about all fragments together.
	held   heldFragments // all but the one at hand, to be taken or dropped before the next call
	ttl    uint8         // the smallest
	length int           // bytes of the datagram's data
	solid  int           // bytes of the largest that must not be cut, the leader apart
	in     uint16        // port that the leader came in by
	from   conntrack.LinkAddr
}

type fragKey struct {
	src, dst conntrack.Addr
	id       uint32
	proto    uint8 // zero in IPv6
}

// run is a range of the datagram's data that was seen, in units of 8 bytes.
type run struct{ from, to uint16 }

type datagramState uint8

const (
	datagramFree datagramState = iota
	datagramWaiting
	datagramGone
	datagramDead
)

// datagram is a row of the table.
type datagram struct {
	key      fragKey
	state    datagramState
	deadline conntrack.Time

	runs    [maxRuns]run // ascending, disjoint, not adjacent
	numRuns uint8
	whole   bool   // every byte was seen
	end     uint16 // of the data, units of 8 bytes rounded up; 0: not known
	length  int    // the same in bytes

	hashNext uint16
	source   uint16 // list that it is in
	all      links
	holding  links // only while firstSlot != 0
	ofSource links

	held                uint16 // slots
	firstSlot, lastSlot uint16 // chain of held fragments: the leader, the others in order of arrival

	// See fragOutcome.
	ttl   uint8
	solid uint16
	in    uint16
	from  conntrack.LinkAddr
}

// heldSlot is what is kept of a fragment, or of a part of one that is longer.
type heldSlot struct {
	next      uint16
	length    uint16
	continues bool // the next slot goes on with the same fragment
	data      [heldSlotLen]byte
}

type fragSource struct {
	ageList
	datagrams, slots uint16
}

// fragments is the table. It belongs to one goroutine.
type fragments struct {
	seed    uint64
	buckets [datagramBuckets]uint16
	sources [sourceLists]fragSource
	rows    [maxDatagrams + 1]datagram
	slots   [maxHeldSlots + 1]heldSlot
	scratch [ipv6MaxLen]byte // a held fragment that fills more than one slot

	all, holding ageList
	freeRow      uint16 // given back, chained by hashNext
	freeSlot     uint16 // given back, chained by next
	freshRow     uint16 // the last that was ever used; those behind it are untouched
	freshSlot    uint16
	numRows      int
	numFreeSlots int
	evicted      int // held fragments that gave way since takeEvicted
}

// newFragments returns an empty table. seed keys the hash and must be secret.
// The table is some 4 MiB, touched as it fills.
func newFragments(seed uint64) *fragments {
	return &fragments{seed: seed, numFreeSlots: maxHeldSlots}
}

// add notes a fragment, parsed as p, and says what becomes of it.
func (t *fragments) add(now conntrack.Time, p *parsed, pkt *Packet) fragOutcome {
	key := fragKey{p.tuple.Src.Addr, p.tuple.Dst.Addr, p.id, p.fragProto}
	i := t.find(&key)
	if i != 0 && t.rows[i].deadline <= now {
		t.evicted += t.remove(i)
		i = 0
	}
	if i != 0 && t.rows[i].state == datagramGone && p.fragOffset == 0 {
		// The next datagram of that identification, or a duplicate of the
		// leader, which will wait for the rest in vain.
		t.remove(i)
		i = 0
	}
	if i == 0 {
		i = t.insert(&key, now)
	}

	d := &t.rows[i]
	if d.state == datagramDead {
		return fragOutcome{state: fragDead, reason: ReasonFragmentLate}
	}
	if r := d.see(p); r != ReasonNone {
		o := fragOutcome{state: fragDead, reason: r}
		if r != ReasonFragmentDuplicate {
			o.lost = t.kill(i)
		}
		return o
	}
	d.ttl = min(d.ttl, p.ttl)
	if p.fragOffset == 0 {
		d.in, d.from = pkt.In, pkt.From
	} else if p.dontFragment {
		d.solid = max(d.solid, uint16(min(len(pkt.Data), 0xffff)))
	}
	if !d.whole {
		if !t.hold(i, p, pkt.Data) {
			return fragOutcome{state: fragDead, reason: ReasonFragmentLimit, lost: t.kill(i)}
		}
		return fragOutcome{state: fragHeld}
	}
	d.state, d.deadline = datagramGone, now+completeLife
	return fragOutcome{
		state: fragWhole, held: heldFragments{table: t, row: i},
		ttl: d.ttl, length: d.length, solid: int(d.solid), in: d.in, from: d.from,
	}
}

// heldFragments walks over the held fragments of a datagram that is whole, the
// leader first, and lets them go.
type heldFragments struct {
	table *fragments
	row   uint16
	taken int
}

// drop lets those go that were not taken. It returns how many fragments were
// held, the taken ones among them.
func (h *heldFragments) drop() int { return h.taken + h.table.drop(h.row) }

// next returns the bytes of the next fragment as it came, or nil. They are
// valid, and may be rewritten in place, until the following call on the table.
// The walk is to be finished, or the rest dropped, before add is called again.
func (h *heldFragments) next() []byte {
	if h.table.rows[h.row].firstSlot == 0 {
		return nil
	}
	h.taken++
	return h.table.takeHeld(h.row)
}

// sweep forgets the datagrams whose time is over and returns how many held
// fragments were lost with them.
func (t *fragments) sweep(now conntrack.Time) int {
	lost := 0
	for t.all.oldest != 0 {
		i := t.all.oldest
		// Rows are in the order of their first fragments and live equally
		// long; a whole one that ends earlier is found by add or here.
		if t.rows[i].deadline > now {
			break
		}
		lost += t.remove(i)
	}
	return lost
}

// takeEvicted returns how many held fragments gave way to others since the
// last call.
func (t *fragments) takeEvicted() int {
	n := t.evicted
	t.evicted = 0
	return n
}

// see adds the range of a fragment to the runs.
func (d *datagram) see(p *parsed) Reason {
	from := uint16(p.fragOffset / 8)
	to := uint16((p.fragOffset + p.totalLen - p.headerLen + 7) / 8)
	runs := d.runs[:d.numRuns]

	// k is the first run that ends at from or later.
	k := 0
	for k < len(runs) && runs[k].to < from {
		k++
	}
	if k < len(runs) && runs[k].from <= from && to <= runs[k].to {
		if !p.moreFragments && d.end != to {
			return ReasonFragmentOverlap
		}
		return ReasonFragmentDuplicate
	}
	joinsLeft := k < len(runs) && runs[k].to == from
	next := k
	if joinsLeft {
		next++
	}
	joinsRight := next < len(runs) && runs[next].from == to
	overlaps := next < len(runs) && runs[next].from < to
	last := to
	if len(runs) > 0 {
		last = max(to, runs[len(runs)-1].to)
	}
	switch {
	case overlaps,
		d.end != 0 && last > d.end,
		!p.moreFragments && (last > to || d.end != 0 && d.end != to):
		return ReasonFragmentOverlap
	}

	switch {
	case joinsLeft && joinsRight:
		runs[k].to = runs[next].to
		copy(runs[next:], runs[next+1:])
		d.numRuns--
	case joinsLeft:
		runs[k].to = to
	case joinsRight:
		runs[next].from = from
	case len(runs) == maxRuns:
		return ReasonFragmentLimit
	default:
		copy(d.runs[k+1:], runs[k:])
		d.runs[k] = run{from, to}
		d.numRuns++
	}
	if !p.moreFragments {
		d.end, d.length = to, p.fragOffset+p.totalLen-p.headerLen
	}
	d.whole = d.numRuns == 1 && d.runs[0] == run{0, d.end}
	return ReasonNone
}
