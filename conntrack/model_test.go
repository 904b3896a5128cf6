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
}

type modelConn struct {
	conn  *Conn // where the table put it
	want  Conn
	class Class
	since int  // order of entering the class
	due   Time // when its end can first be noticed
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
		case 0, 1, 2:
			m.insert(byteOr0(), byteOr0(), byteOr0())
		case 3:
			m.deadline(byteOr0(), byteOr0())
		case 4:
			if c := m.pick(byteOr0()); c != nil {
				m.setClass(c, Class(byteOr0()%NumClasses))
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
	m.now += Time(48 * time.Hour)
	m.table.Sweep(m.now, lots)
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

	return conn
}

func modelEndpoint(i int) Endpoint {
	return Endpoint{AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80}
}

func (m *model) insert(a, b, c int) {
	conn := modelConnFrom(a, b, c)
	conn.Rule = uint32(m.next)
	life := time.Duration(c) * 3 * time.Second

	want := m.expect(&conn)
	got, did := m.table.Insert(&conn, m.now, life)
	if did != want {
		m.t.Fatalf("insert %s: %s, want %s", &conn, did, want)
	}
	if did != Inserted {
		if (did == Full) != (got == nil) && conn.Client != conn.Dest {
			m.t.Fatalf("insert %s: %s returned %v", &conn, did, got)
		}
		return
	}
	if m.conns[m.next] != nil || got.Client != conn.Client || got.Dest != conn.Dest {
		m.t.Fatalf("insert %s: %s", &conn, got)
	}
	m.order++
	n := &modelConn{conn: got, want: conn, class: ClassHalfOpen, since: m.order}
	if conn.Proto != protoTCP && conn.Proto != protoSCTP {
		n.class = ClassOneWay
	}
	n.want.Deadline = m.now.Add(life)
	n.due = n.want.Deadline
	m.conns[m.next] = n
	m.next++
}

// expect says what an insertion must come to.
func (m *model) expect(c *Conn) Insertion {
	for _, o := range m.conns {
		if o.want.Proto == c.Proto && o.want.Client == c.Client && o.want.Virtual == c.Virtual {
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
	if own := packets(c); len(own) == 2 && own[0] == own[1] {
		return Clash
	}

	free := m.table.Cap() - m.slots()
	evictable := 0
	for _, o := range m.conns {
		if o.class != ClassHeld {
			evictable += slotsOf(&o.want)
		}
	}
	if free+evictable < slotsOf(c) {
		return Full
	}

	return Inserted
}

// seen is what tells a packet from others: the tuple and which end is outside.
type seen struct {
	tuple Tuple
	ours  Ours
}

// packets are the packets of a connection as they come in, one for each way.
func packets(c *Conn) []seen {
	in := seen{Tuple{c.Client, c.Virtual, c.Proto}, DstOurs}
	switch {
	case c.Flags&FullNAT != 0:
		return []seen{in, {Tuple{c.Dest, c.Local, c.Proto}, DstOurs}}
	case c.Flags&InputOnly != 0:
		return []seen{in}
	}

	return []seen{in, {Tuple{c.Dest, c.Client, c.Proto}, DstForeign}}
}

func slotsOf(c *Conn) int { return 1 + int(c.Flags&FullNAT/FullNAT) }

func (m *model) slots() int {
	n := 0
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
	switch why {
	case Expired:
		if n.want.Deadline > m.now {
			m.t.Fatalf("%s expired %v early", c, time.Duration(n.want.Deadline-m.now))
		}
	case EvictedHalfOpen, EvictedOneWay:
		want := ClassHalfOpen
		if why == EvictedOneWay {
			want = ClassOneWay
		}
		if m.table.Len() != len(m.conns)-1 || n.class != want {
			m.t.Fatalf("%s of class %s: %s", c, n.class, why)
		}
		for _, o := range m.conns {
			if o.class < n.class || o.class == n.class && o.since < n.since {
				m.t.Fatalf("%s was evicted before %s", c, o.conn)
			}
		}
	}
	delete(m.conns, int(c.Rule))
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

func (m *model) setClass(c *modelConn, k Class) {
	m.table.SetClass(c.conn, k)
	if c.class != k {
		m.order++
		c.class, c.since = k, m.order
	}
}

func (m *model) lookup(a, b, c int) {
	conn := modelConnFrom(a, b, c)
	for _, p := range packets(&conn) {
		m.find(p)
	}
}

// find looks up one packet in the table and in the model.
func (m *model) find(p seen) {
	var want *Conn
	var way Direction
	for _, o := range m.conns {
		for d, q := range packets(&o.want) {
			if p == q {
				want, way = o.conn, Direction(d)
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
		if n := m.table.Sweep(m.now, b%16); n > b%16 {
			m.t.Fatalf("%d expired with a budget of %d", n, b%16)
		}
		return
	}
	m.table.Sweep(m.now, lots)
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
	if chained != t.taken || free != t.touched-t.taken {
		return fmt.Errorf("%d in chains, %d free, of %d taken, %d touched", chained, free, t.taken, t.touched)
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
	queued := t.classes[ClassHeld].count
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
	if armed != t.length || queued != t.length {
		return fmt.Errorf("%d armed, %d queued, of %d", armed, queued, t.length)
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
