// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"time"
)

func (m *model) insert(a, b, c int, parent *modelConn) {
	conn := modelConnFrom(a, b, c)
	conn.Rule = uint32(m.next)
	life := time.Duration(c) * 3 * time.Second

	n := &modelConn{want: conn, class: ClassHalfOpen, parent: parent, life: Time(life), under: map[*modelConn]bool{}}
	want := m.expect(&conn, parent)
	var above *Conn
	if parent != nil {
		above = parent.conn
		if want == Inserted || want == Full {
			parent.under[n] = true
		}
	}
	got, did := m.table.InsertChild(&conn, above, m.now, life)
	if did != want {
		m.t.Fatalf("insert %s: %s, want %s", &conn, did, want)
	}
	if did != Inserted {
		if did == Full && parent != nil {
			m.unbind(n)
		}
		if (did == Full) != (got == nil) && conn.Client != conn.Dest {
			m.t.Fatalf("insert %s: %s returned %v", &conn, did, got)
		}
		return
	}
	if m.conns[m.next] != nil || got.Client != conn.Client || got.Dest != conn.Dest {
		m.t.Fatalf("insert %s: %s", &conn, got)
	}
	m.order++
	n.conn, n.since = got, m.order
	if conn.Proto != protoTCP && conn.Proto != protoSCTP {
		n.class = ClassOneWay
	}
	n.want.Deadline = m.now.Add(life)
	n.due = n.want.Deadline
	m.conns[m.next] = n
	m.next++
}

// expect says what an insertion must come to.
func (m *model) expect(c *Conn, parent *modelConn) Insertion {
	const apart = Template | OnePacket
	for _, o := range m.conns {
		same := o.want.Proto == c.Proto && o.want.Client == c.Client && o.want.Virtual == c.Virtual
		if same && o.want.Flags&retired == 0 && o.want.Flags&apart == c.Flags&apart && c.Flags&OnePacket == 0 {
			return Exists
		}
	}
	// Two packets that look the same must not belong to two connections, nor
	// to two directions of one.
	for _, o := range m.conns {
		for _, p := range packets(&o.want) {
			for _, q := range packets(c) {
				if p == q {
					return Clash
				}
			}
		}
	}
	if c.Flags&FullNAT != 0 && c.Client == c.Dest && c.Virtual == c.Local {
		return Clash
	}

	kept := map[*modelConn]bool{}
	for p := parent; p != nil; p = p.parent {
		kept[p] = true
	}
	room := m.table.Cap() - m.slots()
	for _, o := range m.conns {
		if o.evictable(kept) {
			room += slotsOf(&o.want)
		}
	}
	for o := range m.left() {
		if o.evictable(kept) {
			room++
		}
	}
	if room < slotsOf(c) {
		return Full
	}

	return Inserted
}

// evictable says whether n can make room, if need be after its children have.
func (n *modelConn) evictable(kept map[*modelConn]bool) bool {
	if kept[n] || !n.gone && n.class == ClassHeld {
		return false
	}
	for c := range n.under {
		if !c.evictable(kept) {
			return false
		}
	}

	return true
}

// left are the connections that were removed before their children.
func (m *model) left() map[*modelConn]bool {
	left := map[*modelConn]bool{}
	for _, o := range m.conns {
		if o.parent != nil && o.parent.gone {
			left[o.parent] = true
		}
	}

	return left
}

// unbind takes n away from its parent, which enters its class anew with the
// last.
func (m *model) unbind(n *modelConn) {
	delete(n.parent.under, n)
	if len(n.parent.under) == 0 {
		m.order++
		n.parent.since = m.order
	}
}

// seen is what tells a packet from others: the tuple and which end is outside.
type seen struct {
	tuple Tuple
	ours  Ours
}

// packets are those of a connection as they come in, by direction.
func packets(c *Conn) map[Direction]seen {
	if c.Flags&Template != 0 {
		return nil
	}
	list := map[Direction]seen{Outbound: {Tuple{c.Dest, c.Client, c.Proto}, DstForeign}}
	switch {
	case c.Flags&FullNAT != 0:
		list[Outbound] = seen{Tuple{c.Dest, c.Local, c.Proto}, DstOurs}
	case c.Flags&InputOnly != 0:
		delete(list, Outbound)
	}
	if c.Flags&OnePacket == 0 {
		list[Inbound] = seen{Tuple{c.Client, c.Virtual, c.Proto}, DstOurs}
	}

	return list
}

func slotsOf(c *Conn) int { return 1 + int(c.Flags&FullNAT/FullNAT) }

func (m *model) slots() int {
	n := len(m.left())
	for _, c := range m.conns {
		n += slotsOf(&c.want)
	}

	return n
}

// removed checks the reason that the table gives, and forgets the connection.
func (m *model) removed(c *Conn, why Removal) {
	n := m.conns[int(c.Rule)]
	if n == nil || n.conn != c {
		m.t.Fatalf("removed an unknown connection: %s", c)
	}
	n.gone = true
	delete(m.conns, int(c.Rule))
	if m.table.Len() != len(m.conns) {
		m.t.Fatalf("%d in the table when %s is removed", m.table.Len(), c)
	}
	switch why {
	case Expired:
		if n.want.Deadline > m.now || len(n.under) > 0 {
			m.t.Fatalf("%s expired %v early, with %d children", c, time.Duration(n.want.Deadline-m.now), len(n.under))
		}
	case EvictedHalfOpen, EvictedOneWay, EvictedTemplate:
		if why != evictions[n.class] || len(n.under) > 0 {
			m.t.Fatalf("%s of class %s with %d children: %s", c, n.class, len(n.under), why)
		}
		for _, o := range m.conns {
			if n != m.follows && len(o.under) == 0 && (o.class < n.class || o.class == n.class && o.since < n.since) {
				m.t.Fatalf("%s was evicted before %s", c, o.conn)
			}
		}
	}
	if m.follows == n {
		m.follows = nil
	} else if m.follows != nil {
		m.t.Fatalf("%s was removed, and not %s with its last child", c, m.follows.conn)
	}
	if n.parent == nil {
		return
	}
	m.unbind(n)
	p := n.parent
	if !p.gone && len(p.under) == 0 && p.want.Flags&Template != 0 && p.class < ClassTemplate && (why == EvictedHalfOpen || why == EvictedOneWay) {
		m.follows = p
	}
}

// pick is one of the connections, by any number.
func (m *model) pick(i int) *modelConn {
	for k := range m.next {
		if c := m.conns[(i+k)%m.next]; c != nil {
			return c
		}
	}

	return nil
}

func (m *model) deadline(i, b int) {
	if c := m.pick(i); c != nil {
		c.want.Deadline = m.now + Time(b-16)*Time(7*time.Second)
		c.due = max(m.now, c.want.Deadline)
		m.table.SetDeadline(c.conn, c.want.Deadline)
	}
}

// template does what only a template can: it begins its life anew, or retires.
func (m *model) template(c *modelConn, op int) {
	if c.want.Flags&Template == 0 {
		return
	}
	if op > 160 {
		m.table.Retire(c.conn)
		c.want.Flags |= retired
		c.want.Virtual.Port = 0xffff
		return
	}
	m.table.Restart(c.conn, m.now)
	c.want.Deadline = m.now + c.life
	c.due = c.want.Deadline
}

func (m *model) setClass(c *modelConn, k Class) {
	m.table.SetClass(c.conn, k)
	if c.class == k {
		return
	}
	m.order++
	c.class, c.since = k, m.order
	if p := c.parent; k == ClassHeld && p != nil && !p.gone && p.want.Flags&Template != 0 {
		p.class = ClassTemplate // in no list, having a child
	}
}

func (m *model) lookup(a, b, c int) {
	conn := modelConnFrom(a, b, c)
	for _, p := range packets(&conn) {
		m.find(p)
	}
	m.findTemplate(&conn)
}

func (m *model) findTemplate(c *Conn) {
	var want *Conn
	for _, o := range m.conns {
		if w := &o.want; w.Flags&(Template|retired) == Template && w.Client == c.Client && w.Virtual == c.Virtual && w.Proto == c.Proto {
			want = o.conn
		}
	}
	if got := m.table.FindTemplate(&c.Client, &c.Virtual, c.Proto); got != want {
		m.t.Fatalf("template of %s: %v, want %v", c, got, want)
	}
}

// find looks up one packet in the table and in the model.
func (m *model) find(p seen) {
	var want *Conn
	var way Direction
	for _, o := range m.conns {
		for d, q := range packets(&o.want) {
			if p == q {
				want, way = o.conn, d
			}
		}
	}
	got, d := m.table.Lookup(&p.tuple, p.ours)
	if got != want || got != nil && d != way {
		m.t.Fatalf("lookup %s: %v %s, want %v %s", p.tuple, got, d, want, way)
	}
}

// sweep moves the clock, by up to 25 s or now and then by far more.
func (m *model) sweep(a, b int) {
	step := Time(a) * Time(100*time.Millisecond)
	if a%32 == 31 {
		step = Time(a) * Time(30*time.Second)
	}
	m.now += step
	if b%4 == 0 {
		m.prolonged(func() {
			if n := m.table.Sweep(m.now, b%16); n > b%16 {
				m.t.Fatalf("%d expired with a budget of %d", n, b%16)
			}
		})
		return
	}
	m.sweepAll()
}

// prolonged lets sweep give parents a longer life, and nobody else.
func (m *model) prolonged(sweep func()) {
	parents := map[*modelConn]bool{}
	for _, c := range m.conns {
		parents[c] = len(c.under) > 0
	}
	sweep()
	for _, c := range m.conns {
		if c.conn.Deadline == c.want.Deadline {
			continue
		}
		if !parents[c] || c.want.Deadline > m.now || c.conn.Deadline != m.now+Time(ParentLife) {
			m.t.Fatalf("%s, parent %t, due %v ago, lives on for %v", c.conn, parents[c],
				time.Duration(m.now-c.want.Deadline), time.Duration(c.conn.Deadline-m.now))
		}
		c.want.Deadline, c.life = c.conn.Deadline, Time(ParentLife)
		c.due = c.want.Deadline
	}
}

func (m *model) sweepAll() {
	m.prolonged(func() { m.table.Sweep(m.now, lots) })
	for _, c := range m.conns {
		if late := m.now - c.due; late > tick {
			m.t.Fatalf("%s is %v late", c.conn, time.Duration(late))
		}
	}
}
