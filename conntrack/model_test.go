// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
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
