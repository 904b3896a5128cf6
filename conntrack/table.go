// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/bits"
	"time"
)

// Table is the connections of one shard. Its owner alone may use it, from one
// goroutine: there is no lock. See doc.go for how it is stored.
type Table struct {
	keys    keys
	slab    []Conn
	heads   []link // one per bucket
	seconds []link // the same, for the second way to find an SNAT connection
	paired  int    // slots chained by a pair of endpoints; see home
	cursor  int64  // first tick that is not swept yet
	length  int    // connections
	taken   int    // slots in use, aliases too
	touched int    // slots ever handed out: memory from here on was never used
	free    link   // slots handed back, last in first out
	removed func(*Conn, Removal)
	classes [NumClasses]queue
	states  [NumStates]int // connections in each
	memory  []byte         // the mapping that slab and heads lie in
	slots   [wheelSlots]link
	ahead   ahead
}

// Config of a [Table].
type Config struct {
	// MaxConns is how many connections fit; 1 to 2^30. Memory for all of
	// them is reserved at once and used as they come.
	MaxConns int
	// Seed is the secret of the hash; zero takes one from the system.
	Seed [2]uint64
	// Removed, if not nil, is called once for each connection that ends,
	// whatever the reason. c can no longer be found but still holds its
	// values, until the call returns. It must not change the table.
	Removed func(c *Conn, why Removal)
}

// Removal is why a connection ended.
type Removal uint8

const (
	// Expired: its deadline passed.
	Expired Removal = iota
	// EvictedHalfOpen: it made room, being the oldest of [ClassHalfOpen].
	EvictedHalfOpen
	// EvictedOneWay: it made room, being the oldest of [ClassOneWay].
	EvictedOneWay
	// EvictedTemplate: it made room, being the oldest of [ClassTemplate].
	EvictedTemplate
	// Deleted: the owner removed it.
	Deleted
	// ServerGone: the owner removed it with its server.
	ServerGone
	// Thinned: the owner removed it to have more room.
	Thinned

	// NumRemovals is the number of reasons.
	NumRemovals = int(Thinned) + 1
)

// String is the reason in lower case, as in metrics.
func (r Removal) String() string {
	return [...]string{
		"expired", "evicted-half-open", "evicted-one-way", "evicted-template", "deleted", "server-gone", "thinned", "?",
	}[min(int(r), NumRemovals)]
}

// Insertion is what became of an Insert.
type Insertion uint8

const (
	// Inserted: the connection is in the table.
	Inserted Insertion = iota
	// Exists: there is one with the same client, virtual address and
	// protocol, a template among templates; it is returned.
	Exists
	// Clash: packets of another connection, returned, could not be told
	// from those of this one: the same two ends behind another virtual
	// address. Another server or another port would do. Nothing is returned
	// for a FullNAT connection whose two ways in are the same.
	Clash
	// Full: no room, and nothing that may be evicted.
	Full
)

// String is the outcome in one lower-case word.
func (i Insertion) String() string {
	return [...]string{"inserted", "exists", "clash", "full", "?"}[min(i, Full+1)]
}

// Lookup finds the connection of a packet, and the packet's direction in it;
// nil if there is none. It reads one bucket, and a second one if none is found
// there and connections of SNAT or full NAT are in the table. A connection past
// its deadline is found until a sweep has ended it.
func (t *Table) Lookup(p *Tuple, ours Ours) (*Conn, Direction) {
	// It is findLeaving or findArriving without the calls, which each packet would pay for.
	if ours == DstForeign {
		c := t.leaving(*t.bucket(&p.Dst, p.Proto), &p.Src, &p.Dst, p.Proto)
		if c == nil {
			c = t.leavingPaired(&p.Src, &p.Dst, p.Proto)
		}

		return c, Outbound
	}
	c := t.arriving(*t.bucket(&p.Src, p.Proto), &p.Src, &p.Dst, p.Proto)
	if c == nil {
		c = t.arrivingPaired(&p.Src, &p.Dst, p.Proto)
	}
	if c != nil && c.Flags&alias != 0 {
		return &t.slab[c.Server], Outbound
	}

	return c, Inbound
}

// findArriving finds the slot, alias or not, that answers to src→dst where dst
// is an address of ours.
func (t *Table) findArriving(src, dst *Endpoint, proto uint8) *Conn {
	if c := t.arriving(*t.bucket(src, proto), src, dst, proto); c != nil {
		return c
	}

	return t.arrivingPaired(src, dst, proto)
}

// findLeaving finds the connection that src→dst belongs to, where dst is the
// outside endpoint.
func (t *Table) findLeaving(src, dst *Endpoint, proto uint8) *Conn {
	if c := t.leaving(*t.bucket(dst, proto), src, dst, proto); c != nil {
		return c
	}

	return t.leavingPaired(src, dst, proto)
}

// arrivingPaired is findArriving among what is chained by a pair of endpoints.
func (t *Table) arrivingPaired(src, dst *Endpoint, proto uint8) *Conn {
	if t.paired == 0 {
		return nil
	}

	return t.arriving(*t.pairBucket(t.heads, src, dst, proto), src, dst, proto)
}

// leavingPaired is findLeaving among what is chained by a pair of endpoints.
func (t *Table) leavingPaired(src, dst *Endpoint, proto uint8) *Conn {
	if t.paired == 0 {
		return nil
	}
	for i := *t.pairBucket(t.seconds, dst, src, proto); i != 0; {
		c := t.conn(i)
		if c.Client == *dst && c.Dest == *src && c.Proto == proto {
			return c
		}
		i = c.second
	}

	return nil
}

// arriving finds the slot, alias or not, that answers to src→dst where dst is
// an address of ours, in the chain of src that begins with i.
func (t *Table) arriving(i link, src, dst *Endpoint, proto uint8) *Conn {
	for i != 0 {
		c := t.conn(i)
		if c.Client == *src && c.Virtual == *dst && c.Proto == proto && c.Flags&(Template|OnePacket) == 0 {
			return c
		}
		i = c.next
	}

	return nil
}

// leaving finds the connection that src→dst belongs to, where dst is the
// outside endpoint, in the chain of dst that begins with i.
func (t *Table) leaving(i link, src, dst *Endpoint, proto uint8) *Conn {
	for i != 0 {
		c := t.conn(i)
		if c.Client == *dst && c.Dest == *src && c.Proto == proto && c.Flags&(FullNAT|InputOnly|Template) == 0 {
			return c
		}
		i = c.next
	}

	return nil
}

// Insert copies *c, which must not be in the table itself, into the table with
// the deadline now+life, and returns where it lies. If another connection is
// in the way it returns that one and changes nothing. When there is no room it
// first evicts the oldest half-open connection, or else the oldest one-way
// one; held ones never. TCP begins in [ClassHalfOpen], all else in
// [ClassOneWay]: see [Table.SetClass]. A FullNAT connection takes two slots. A
// template keeps its life, in whole seconds, for [Table.Restart].
func (t *Table) Insert(c *Conn, now Time, life time.Duration) (*Conn, Insertion) {
	return t.InsertChild(c, nil, now, life)
}

// InsertChild is Insert for a connection that parent, nil for none, has to
// outlive; see parent.go. The parent is not evicted to make room. A connection
// of SNAT has none.
func (t *Table) InsertChild(c, parent *Conn, now Time, life time.Duration) (*Conn, Insertion) {
	if other, why := t.inTheWay(c); other != nil {
		return other, why
	}

	need := 1
	if c.Flags&FullNAT != 0 {
		need = 2
		if c.Client == c.Dest && c.Virtual == c.Local {
			return nil, Clash
		}
	}
	if c.Flags&(SNAT|FullNAT) == SNAT {
		parent = nil
	}
	if parent != nil {
		t.addChild(parent)
	}
	for len(t.slab)-t.taken < need {
		if !t.evict() {
			if parent != nil {
				t.loseChild(parent)
			}
			return nil, Full
		}
	}
	if t.length == 0 {
		t.cursor = int64(now >> tickShift) // an empty wheel may stand anywhere
	}

	n := t.take()
	*n = *c
	n.wheel, n.class, n.place, n.second = links{}, links{}, 0, 0
	n.Flags &^= retired
	if parent != nil {
		n.second = t.link(parent)
	}
	if n.Flags&Template != 0 {
		n.setLife(life)
	}
	n.Deadline = now.Add(life)
	t.chain(n)
	t.arm(n, t.ticksAhead(n.Deadline))
	t.enter(n, firstClass(n.Proto))
	t.states[n.State]++
	t.length++

	if need == 2 {
		a := t.take()
		*a = Conn{Client: n.Dest, Virtual: n.Local, Proto: n.Proto, Flags: alias | FullNAT, Server: uint32(t.link(n) - 1)}
		t.chain(a)
	}

	return n, Inserted
}

// inTheWay finds a connection that would make packets of c ambiguous.
func (t *Table) inTheWay(c *Conn) (*Conn, Insertion) {
	if c.Flags&Template != 0 {
		return t.FindTemplate(&c.Client, &c.Virtual, c.Proto), Exists
	}
	if c.Flags&OnePacket != 0 {
		return t.answersInTheWay(c)
	}
	if other := t.findArriving(&c.Client, &c.Virtual, c.Proto); other != nil {
		if other.Flags&alias != 0 {
			return &t.slab[other.Server], Clash
		}

		return other, Exists
	}

	if c.Flags&InputOnly != 0 {
		return nil, Inserted // no reply will be looked for
	}

	return t.answersInTheWay(c)
}

// answersInTheWay finds a connection whose packets the answers of c could be
// taken for.
func (t *Table) answersInTheWay(c *Conn) (*Conn, Insertion) {
	if c.Flags&FullNAT == 0 {
		return t.findLeaving(&c.Dest, &c.Client, c.Proto), Clash
	}

	// The reply of a FullNAT connection arrives as any first packet does.
	other := t.findArriving(&c.Dest, &c.Local, c.Proto)
	if other != nil && other.Flags&alias != 0 {
		other = &t.slab[other.Server]
	}

	return other, Clash
}

// Remove ends c for the reason why, and tells the owner. A connection that is
// gone already stays so. What a connection with children leaves behind is a
// slot that is free when they have ended too.
func (t *Table) Remove(c *Conn, why Removal) {
	if c.Proto == 0 || c.Flags&alias != 0 {
		return
	}

	var a *Conn
	if c.Flags&FullNAT != 0 {
		a = t.findArriving(&c.Dest, &c.Local, c.Proto)
		t.unchain(a)
	}
	t.unchain(c)
	t.disarm(c)
	t.leave(c)
	t.states[c.State]--
	t.length--
	parent := t.parentLink(c)

	if t.removed != nil {
		t.removed(c, why)
	}
	if c.Children() > 0 {
		*c = Conn{place: parentBit, class: links{next: c.class.next}}
	} else {
		t.give(c)
	}
	if a != nil {
		t.give(a)
	}
	if parent != 0 {
		t.bereave(t.conn(parent), why)
	}
}

// home is the bucket that c is chained in. A client has few connections with one
// endpoint of its own, so that its endpoint alone says where they are, for both
// directions. The outside endpoint of SNAT is a server, which the whole inside
// may talk to, and that of an alias is a real server: there the address of ours
// counts as well, or one chain would hold them all. The same holds for what waits
// for a client.
func (t *Table) home(c *Conn) *link {
	if c.byPair() {
		return t.pairBucket(t.heads, &c.Client, &c.Virtual, c.Proto)
	}

	return t.bucket(&c.Client, c.Proto)
}

func (c *Conn) byPair() bool { return c.Flags&(SNAT|alias) != 0 || c.HalfKnown() }

// secondHome is where a packet of the inside endpoint finds c, which is SNAT.
func (t *Table) secondHome(c *Conn) *link {
	return t.pairBucket(t.seconds, &c.Client, &c.Dest, c.Proto)
}

// chain puts c at the head of its bucket, or buckets.
func (t *Table) chain(c *Conn) {
	head, self := t.home(c), t.link(c)
	c.next = *head
	*head = self
	if c.byPair() {
		t.paired++
	}
	if c.Flags&(SNAT|FullNAT) == SNAT {
		head = t.secondHome(c)
		c.second = *head
		*head = self
	}
}

// unchain takes c out again. The walk is as short as a lookup's.
func (t *Table) unchain(c *Conn) {
	self := t.link(c)
	at := t.home(c)
	for *at != self {
		at = &t.conn(*at).next
	}
	*at = c.next
	if c.byPair() {
		t.paired--
	}
	if c.Flags&(SNAT|FullNAT) == SNAT {
		at = t.secondHome(c)
		for *at != self {
			at = &t.conn(*at).second
		}
		*at = c.second
	}
}

// bucket is the head of the chain for an outside endpoint. The hash's high
// half times the number of buckets, shifted back, spreads evenly over any
// number of them and needs no division.
func (t *Table) bucket(e *Endpoint, proto uint8) *link {
	h := t.keys.hash(e, proto)

	return &t.heads[(h>>32)*uint64(len(t.heads))>>32]
}

// pairBucket is bucket for two endpoints.
func (t *Table) pairBucket(heads []link, a, b *Endpoint, proto uint8) *link {
	h := bits.RotateLeft64(t.keys.hash(a, proto), 32) + t.keys.hash(b, proto)

	return &heads[(h>>32)*uint64(len(heads))>>32]
}
