// SPDX-License-Identifier: Apache-2.0

package conntrack

import "time"

// A connection may have a parent that has to outlive it: the template that chose
// its server, the control connection that announced it. A parent may be a child
// itself. The child knows its parent, the parent only how many children it has.
//
// A parent whose deadline passes lives on while it has children, and while it
// has them it is not evicted. If its owner removes it, its slot is kept, to be
// found by nobody, until the children have gone: so a child's link is good as
// long as the child.

// ParentLife is how much longer a connection lives each time its deadline
// passes while it has children (ip_vs_conn.c, ip_vs_conn_expire).
const ParentLife = 60 * time.Second

// Children is how many connections have c for a parent.
func (c *Conn) Children() int {
	if c.place&parentBit == 0 {
		return 0
	}

	return int(c.class.next)
}

// Parent is the parent of c; nil if it has none or that was removed.
func (t *Table) Parent(c *Conn) *Conn {
	l := t.parentLink(c)
	if l == 0 || t.conn(l).Proto == 0 {
		return nil
	}

	return t.conn(l)
}

// parentLink is the link to the parent of c, 0 for none.
func (t *Table) parentLink(c *Conn) link {
	if c.Flags&(SNAT|FullNAT) == SNAT {
		return 0
	}

	return c.second
}

// addChild counts a child of p, and takes p off the list of its class with the
// first.
func (t *Table) addChild(p *Conn) {
	if p.place&parentBit == 0 {
		if p.place.listed() {
			t.strike(p)
		}
		p.place |= parentBit
	}
	p.class.next++
}

// loseChild counts a child of p less. When it was the last, p goes to the end of
// its class.
func (t *Table) loseChild(p *Conn) {
	p.class.next--
	if p.class.next > 0 {
		return
	}
	if p.Proto == 0 {
		t.give(p)
		return
	}
	p.place &^= parentBit
	if p.place.listed() {
		t.enlist(p)
	}
}

// bereave is loseChild for a child that ended for the reason why. A template
// that has served nobody goes with its last child if that had to make room: a
// flood of first packets must not leave a template for each.
func (t *Table) bereave(p *Conn, why Removal) {
	t.loseChild(p)
	if why != EvictedHalfOpen && why != EvictedOneWay && why != Thinned || p.Flags&Template == 0 || p.Children() > 0 {
		return
	}
	if k := p.place.class(); k < ClassTemplate {
		if why != Thinned {
			why = evictions[k]
		}
		t.Remove(p, why)
	}
}

// prolong has c, whose time is over, wait for its children. A template goes on
// with that life, whatever it had before.
func (t *Table) prolong(c *Conn, now Time) {
	c.Deadline = now.Add(ParentLife)
	if c.Flags&Template != 0 {
		c.setLife(ParentLife)
	}
}
