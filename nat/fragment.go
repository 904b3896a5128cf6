// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Only the first fragment of a datagram has ports. What was decided about it
// is remembered by (source, destination, identification, protocol), in
// IPv6 without the protocol (RFC 8200 section 4.5), and the later fragments follow. Those that come early wait for it. Nothing is
// reassembled: the change of a transport checksum is additive, so that the
// first fragment carries it alone.
//
// A datagram lives 30 s from its first packet (RFC 1122 section 3.3.2 asks for
// 60 to 120 s of the final host; Linux takes 30), 1 s once it is whole, so that
// its identification may come again. What is known of a datagram:
//
//	waiting   its first fragment is not there; others are held
//	decided   the first was there; others pass
//	dead      fragments overlapped, or were too many; all others are dropped
//
// The ranges seen are kept as disjoint runs. A fragment inside a run is a
// duplicate and is dropped alone; one that overlaps a run in part, or that
// contradicts the end of the datagram, kills the datagram (RFC 5722 in spirit):
// a receiver never sees a mixture.
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

// fragDecision is what was decided about the first fragment of a datagram and
// holds for all of it.
type fragDecision struct {
	Action   Action // Forward, Pass or Drop
	Reason   Reason // with Drop
	Src, Dst conntrack.Addr
	Port     uint16 // egress port
	NextHop  conntrack.Addr
	To       conntrack.LinkAddr

	// To whom the rest of the datagram is counted.
	Uncounted bool
	Server    uint32
	Dir       conntrack.Direction
}

// fragState is what became of a fragment.
type fragState uint8

const (
	fragFirst fragState = iota // the first of its datagram: decide, then tell decide
	fragKnown                  // the decision about the first holds for it
	fragHeld                   // kept; the caller may reuse its memory
	fragDead                   // to be dropped
)

// fragOutcome is the answer of add.
type fragOutcome struct {
	state    fragState
	reason   Reason        // with fragDead
	decision *fragDecision // with fragKnown; valid until the next call
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
	datagramDecided
	datagramDead
)

// datagram is a row of the table.
type datagram struct {
	key      fragKey
	state    datagramState
	decision fragDecision
	deadline conntrack.Time

	runs    [maxRuns]run // ascending, disjoint, not adjacent
	numRuns uint8
	whole   bool   // every byte was seen
	end     uint16 // of the data, units of 8 bytes rounded up; 0: not known

	hashNext uint16
	source   uint16 // list that it is in
	all      links
	holding  links // only while first != 0
	ofSource links

	held                uint16 // slots
	firstSlot, lastSlot uint16 // chain of held fragments in order of arrival
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

// add notes a fragment, parsed as p, whose bytes are data, and says what
// becomes of it.
func (t *fragments) add(now conntrack.Time, p *parsed, data []byte) fragOutcome {
	key := fragKey{p.tuple.Src.Addr, p.tuple.Dst.Addr, p.id, p.fragProto}
	i := t.find(&key)
	if i != 0 && t.rows[i].deadline <= now {
		t.evicted += t.remove(i)
		i = 0
	}
	if i != 0 && t.rows[i].whole && p.fragOffset == 0 {
		// The next datagram of that identification, or a duplicate of the
		// first fragment: harmless, for the rest of it is gone.
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
		if r != ReasonFragmentDuplicate {
			t.kill(i)
		}
		return fragOutcome{state: fragDead, reason: r}
	}
	if d.whole && d.state == datagramDecided {
		d.deadline = now + completeLife
	}
	switch {
	case p.fragOffset == 0:
		return fragOutcome{state: fragFirst}
	case d.state == datagramDecided && d.decision.Action == Drop:
		return fragOutcome{state: fragDead, reason: ReasonFragmentLate}
	case d.state == datagramDecided:
		return fragOutcome{state: fragKnown, decision: &d.decision}
	}
	if !t.hold(i, data) {
		t.kill(i)
		return fragOutcome{state: fragDead, reason: ReasonFragmentLimit}
	}
	return fragOutcome{state: fragHeld}
}

// decide tells what was decided about the first fragment p, for the rest of
// its datagram. It returns the fragments that were held, to be sent on in the
// order of their arrival: there are none unless the decision is Forward.
func (t *fragments) decide(now conntrack.Time, p *parsed, d fragDecision) heldFragments {
	key := fragKey{p.tuple.Src.Addr, p.tuple.Dst.Addr, p.id, p.fragProto}
	i := t.find(&key)
	if i == 0 || t.rows[i].state != datagramWaiting {
		return heldFragments{}
	}
	r := &t.rows[i]
	r.state, r.decision = datagramDecided, d
	if r.whole {
		r.deadline = now + completeLife
	}
	if d.Action != Forward {
		t.drop(i)
	}
	return heldFragments{table: t, row: i}
}

// heldFragments walks over the held fragments of a datagram and lets them go.
type heldFragments struct {
	table *fragments
	row   uint16
}

// next returns the bytes of the next fragment as it came, or nil. They are
// valid, and may be rewritten in place, until the following call on the table.
// The walk is to be finished before add is called again.
func (h *heldFragments) next() []byte {
	if h.table == nil || h.table.rows[h.row].firstSlot == 0 {
		return nil
	}
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
		d.end = to
	}
	d.whole = d.numRuns == 1 && d.runs[0] == run{0, d.end}
	return ReasonNone
}
