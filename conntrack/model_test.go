// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// model is what a Table promises, kept in a plain map and searched from end to
// end, and the table beside it.
type model struct {
	t     testing.TB
	table *Table
	now   Time
	conns map[int]*modelConn // by Rule, which numbers the insertions
	next  int
	order int

	follows *modelConn // the template that its evicted child takes along
}

type modelConn struct {
	conn   *Conn // where the table put it
	want   Conn
	class  Class
	since  int  // order of entering the list of the class
	due    Time // when its end can first be noticed
	life   Time // of a template
	parent *modelConn
	under  map[*modelConn]bool // its children
	gone   bool
}

func newModel(t testing.TB, n int) *model {
	m := &model{t: t, conns: map[int]*modelConn{}}
	table, err := NewTable(Config{MaxConns: n, Removed: m.removed})
	if err != nil {
		t.Fatal(err)
	}
	m.table = table

	return m
}

// run takes operations from data, a few bytes each, until it ends.
func (m *model) run(data []byte) {
	byteOr0 := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	for steps := 0; len(data) > 0; steps++ {
		switch op := byteOr0(); op % 8 {
		case 0, 1:
			m.insert(byteOr0(), byteOr0(), byteOr0(), nil)
		case 2:
			m.insert(byteOr0(), byteOr0(), byteOr0(), m.pick(op))
		case 3:
			m.deadline(byteOr0(), byteOr0())
		case 4:
			if c := m.pick(byteOr0()); c != nil {
				m.setClass(c, Class(byteOr0()%NumClasses))
				m.table.SetState(c.conn, State(op%NumStates))
				m.template(c, op)
			}
		case 5:
			if c := m.pick(byteOr0()); c != nil && op > 128 {
				m.table.Remove(c.conn, Deleted)
			}
		case 6:
			m.lookup(byteOr0(), byteOr0(), byteOr0())
		case 7:
			m.sweep(byteOr0(), byteOr0())
		}
		if steps%16 == 0 {
			m.check()
		}
	}
	m.check()
	for range len(m.conns) + 1 { // parents outlive their children
		m.now += Time(48 * time.Hour)
		m.sweepAll()
	}
	if m.table.Len() != 0 || len(m.conns) != 0 {
		m.t.Fatalf("%d left at the end, %d in the model", m.table.Len(), len(m.conns))
	}
	m.check()
}

// A small world, so that everything meets: 16 clients of which some are
// servers too, 4 addresses of ours, 4 servers.
func modelConnFrom(a, b, c int) Conn {
	conn := Conn{
		Client:  modelEndpoint(a & 15),
		Virtual: Endpoint{AddrFrom4([4]byte{192, 168, 88, 23}), uint16(80 + b&3)},
		Dest:    modelEndpoint(b >> 2 & 3),
		Proto:   [4]uint8{protoTCP, protoSCTP, protoUDP, 1}[a>>4&3],
	}
	switch a >> 6 {
	case 0:
		conn.Flags |= FullNAT
		conn.Local = Endpoint{conn.Virtual.Addr, uint16(80 + c&7)}
	case 1:
		conn.Flags |= InputOnly
	}
	switch {
	case a>>6 == 2 && b>>6 == 0:
		conn.Flags |= Template
	case conn.Flags&InputOnly == 0 && b>>6 == 1:
		conn.Flags |= OnePacket
	}

	return conn
}

func modelEndpoint(i int) Endpoint {
	return Endpoint{AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80}
}

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

// check compares everything there is to see.
func (m *model) check() {
	m.t.Helper()
	var counts [NumClasses]int
	for _, c := range m.conns {
		counts[c.class]++
		for _, p := range packets(&c.want) {
			m.find(p)
		}
		if c.conn.Deadline != c.want.Deadline || c.conn.Rule != c.want.Rule || c.conn.Proto != c.want.Proto {
			m.t.Fatalf("%s is not what was put in", c.conn)
		}
		parent := m.table.Parent(c.conn)
		if c.conn.Children() != len(c.under) || (parent != nil) != (c.parent != nil && !c.parent.gone) || parent != nil && parent != c.parent.conn {
			m.t.Fatalf("%s has %d children and the parent %v; the model %d", c.conn, c.conn.Children(), parent, len(c.under))
		}
		m.findTemplate(&c.want)
	}
	if m.table.Len() != len(m.conns) || m.table.Counts() != counts || listed(m.table) != len(m.conns) {
		m.t.Fatalf("length %d, %d listed, %v; want %d, %v", m.table.Len(), listed(m.table), m.table.Counts(), len(m.conns), counts)
	}
	if err := m.table.consistent(); err != nil {
		m.t.Fatal(err)
	}
}

// consistent walks every list and counts what is on it.
func (t *Table) consistent() error {
	chained := 0
	for _, i := range t.heads {
		for ; i != 0; i = t.conn(i).next {
			chained++
		}
	}
	paired, seconds, chainedTwice := 0, 0, 0
	for i := range t.slab[:t.touched] {
		if c := &t.slab[i]; c.Proto != 0 && c.Flags&(SNAT|alias) != 0 {
			paired++
			if c.Flags&(FullNAT|alias) == 0 {
				seconds++
			}
		}
	}
	for _, i := range t.seconds {
		for ; i != 0; i = t.conn(i).second {
			chainedTwice++
		}
	}
	if paired != t.paired || seconds != chainedTwice {
		return fmt.Errorf("%d paired, counted %d; %d to be chained twice, are %d", paired, t.paired, seconds, chainedTwice)
	}
	free := 0
	for i := t.free; i != 0; i = t.conn(i).next {
		free++
	}
	left, inLists := 0, t.length-t.classes[ClassHeld].count
	for i := range t.slab[:t.touched] {
		switch c := &t.slab[i]; {
		case c.Proto == 0 && c.place&parentBit != 0:
			left++
		case c.Proto != 0 && c.place&parentBit != 0 && c.place.class() != ClassHeld:
			inLists--
		}
	}
	if chained+left != t.taken || free != t.touched-t.taken {
		return fmt.Errorf("%d in chains, %d left for children, %d free, of %d taken, %d touched", chained, left, free, t.taken, t.touched)
	}
	var states [NumStates]int
	for i := range t.slab[:t.touched] {
		if c := t.At(i); c != nil {
			states[c.State]++
		}
	}
	if states != t.States() {
		return fmt.Errorf("states %v, counted %v", states, t.States())
	}
	armed := 0
	for slot, i := range t.slots {
		prev := link(0)
		for ; i != 0; prev, i = i, t.conn(i).wheel.next {
			if c := t.conn(i); c.wheel.prev != prev || int(c.place.slot()) != slot {
				return fmt.Errorf("%s stands wrongly in the wheel", c)
			}
			armed++
		}
	}
	queued := 0
	for k := ClassHalfOpen; k < ClassHeld; k++ {
		prev := link(0)
		for i := t.classes[k].oldest; i != 0; prev, i = i, t.conn(i).class.next {
			if c := t.conn(i); c.class.prev != prev || c.place.class() != k {
				return fmt.Errorf("%s stands wrongly in class %s", c, k)
			}
			queued++
		}
		if t.classes[k].youngest != prev {
			return fmt.Errorf("class %s ends wrongly", k)
		}
	}
	if armed != t.length || queued != inLists {
		return fmt.Errorf("%d armed of %d, %d queued of %d", armed, t.length, queued, inLists)
	}

	return nil
}

func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		for _, n := range []int{1, 2, 7, 40, 300} {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			data := make([]byte, 12_000)
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			m := newModel(t, n)
			m.run(data)
			if err := m.table.Close(); err != nil {
				t.Fatal(err)
			}
			if m.next < n {
				t.Errorf("seed %d, %d slots: only %d insertions", seed, n, m.next)
			}
		}
	}
}

// FuzzTable reads operations from the input; see model.run.
func FuzzTable(f *testing.F) {
	f.Add(uint8(2), []byte("\x00\x40\x00\x10\x00\x40\x00\x10"))                     // the same twice
	f.Add(uint8(2), []byte("\x00\x40\x00\x10\x00\x40\x01\x10"))                     // reply clash
	f.Add(uint8(3), []byte("\x00\x05\x00\x10\x00\x06\x00\x11\x05\x00\x85\x00"))     // full NAT, evicted, removed
	f.Add(uint8(4), []byte("\x00\x41\x00\xff\x07\x05\x01\x03\x00\x11\x07\xdf\x01")) // a deadline moved earlier, a jump
	f.Fuzz(func(t *testing.T, n uint8, data []byte) {
		if len(data) > 4096 {
			return
		}
		m := newModel(t, int(n)+1)
		defer m.table.Close()
		m.run(data)
	})
}
