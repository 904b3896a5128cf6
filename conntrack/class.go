// SPDX-License-Identifier: Apache-2.0

package conntrack

// Class is how dear a connection is when the table is full.
type Class uint8

const (
	// ClassHalfOpen: TCP or SCTP whose handshake is not finished. Evicted
	// first: this is what a flood of SYN or INIT consists of.
	ClassHalfOpen Class = iota
	// ClassOneWay: UDP or ICMP that has not been answered. Evicted next.
	ClassOneWay
	// ClassTemplate: a template under which there was a held connection. Evicted
	// last: what is lost is where a client belongs, not a connection.
	ClassTemplate
	// ClassHeld: seen both ways. Never evicted: one that is refused can
	// try again, one that is cut can't.
	ClassHeld

	// NumClasses is the number of classes.
	NumClasses = int(ClassHeld) + 1
)

// String is the class in one lower-case word.
func (k Class) String() string {
	return [...]string{"half-open", "one-way", "template", "held", "?"}[min(int(k), NumClasses)]
}

// queue is the connections of a class in the order in which they entered it,
// oldest first. The held ones, and those with children, are only counted.
type queue struct {
	oldest, youngest link
	count            int
}

// SetClass moves c to the end of class k. If it is in k already it keeps its
// place, so a repeated SYN makes nobody younger. While it has children it is
// not evicted, whatever its class. With a connection under a template that
// becomes held, the template moves to [ClassTemplate].
func (t *Table) SetClass(c *Conn, k Class) {
	if c.place.class() == k {
		return
	}
	t.leave(c)
	t.enter(c, k)
	if p := t.Parent(c); k == ClassHeld && p != nil && p.Flags&Template != 0 {
		t.SetClass(p, ClassTemplate)
	}
}

// Class is the class that c is in.
func (c *Conn) Class() Class { return c.place.class() }

// Counts is the number of connections in each class.
func (t *Table) Counts() [NumClasses]int {
	return [NumClasses]int{
		ClassHalfOpen: t.classes[ClassHalfOpen].count,
		ClassOneWay:   t.classes[ClassOneWay].count,
		ClassTemplate: t.classes[ClassTemplate].count,
		ClassHeld:     t.classes[ClassHeld].count,
	}
}

// firstClass is where a new connection begins: nothing is held that has not
// been answered yet.
func firstClass(proto uint8) Class {
	if proto == protoTCP || proto == protoSCTP {
		return ClassHalfOpen
	}

	return ClassOneWay
}

// evict ends the connection that is missed least, and says whether there was one.
func (t *Table) evict() bool {
	for k := range ClassHeld {
		if c := t.classes[k].oldest; c != 0 {
			t.Remove(t.conn(c), evictions[k])
			return true
		}
	}

	return false
}

// evictions is the reason for which a connection of a class makes room.
var evictions = [...]Removal{
	ClassHalfOpen: EvictedHalfOpen,
	ClassOneWay:   EvictedOneWay,
	ClassTemplate: EvictedTemplate,
}

// enter puts c, which is in no class, at the end of k.
func (t *Table) enter(c *Conn, k Class) {
	c.place = c.place.withClass(k)
	t.classes[k].count++
	if c.place.listed() {
		t.enlist(c)
	}
}

// leave takes c out of its class.
func (t *Table) leave(c *Conn) {
	t.classes[c.place.class()].count--
	if c.place.listed() {
		t.strike(c)
	}
}

// enlist puts c at the end of the list of its class.
func (t *Table) enlist(c *Conn) {
	q, self := &t.classes[c.place.class()], t.link(c)
	c.class = links{prev: q.youngest}
	if q.youngest != 0 {
		t.conn(q.youngest).class.next = self
	} else {
		q.oldest = self
	}
	q.youngest = self
}

// strike takes c off the list of its class.
func (t *Table) strike(c *Conn) {
	q := &t.classes[c.place.class()]
	if c.class.prev != 0 {
		t.conn(c.class.prev).class.next = c.class.next
	} else {
		q.oldest = c.class.next
	}
	if c.class.next != 0 {
		t.conn(c.class.next).class.prev = c.class.prev
	} else {
		q.youngest = c.class.prev
	}
	c.class = links{}
}
