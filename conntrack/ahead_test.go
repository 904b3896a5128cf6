// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"testing"
	"time"
	"unsafe"
)

// TestAhead: more than there is room for, of which some are not there, changes nothing
// and costs no memory; what is told of is loaded.
func TestAhead(t *testing.T) {
	table := newTable(t, 1000)
	for i := range 500 {
		c := numbered(i)
		table.Insert(&c, 0, time.Hour)
	}
	i := 0
	if n := testing.AllocsPerRun(20, func() {
		for range 2 * MaxAhead {
			c := numbered(i)
			table.Ahead(&c.Client, c.Proto)
			i++
		}
		table.Fetch()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if table.Len() != 500 || table.ahead.count != 0 {
		t.Errorf("%d connections, %d still told of", table.Len(), table.ahead.count)
	}
}

// TestAheadLoads: of what is told of, the connection is loaded and all that stand before
// it in its chain, whole chains of others too; nothing of what is not there.
func TestAheadLoads(t *testing.T) {
	table := newTable(t, 1000)
	for i := range 1000 { // chains are long in a full table
		c := numbered(i)
		c.InsidePort = 1
		table.Insert(&c, 0, time.Hour)
	}
	stranger := numbered(5000)
	for i := range 1000 {
		for _, e := range []Endpoint{numbered(i).Client, stranger.Client, {Addr: stranger.Client.Addr, Port: uint16(i)}} {
			want, before := uint32(0), 0
			for l := *table.bucket(&e, protoTCP); l != 0; l = table.conn(l).next {
				c := table.conn(l)
				want += c.touch()
				before++
				if c.Client == e {
					break
				}
			}
			table.Ahead(&e, protoTCP)
			if table.Fetch(); table.ahead.sum != want {
				t.Fatalf("%v: %d loaded, want %d of %d connections", e, table.ahead.sum, want, before)
			}
		}
	}
}

// TestTouch: wherever a connection begins in a line of the cache, touch meets each line
// that what a packet needs of it lies in: from one load to the next it is no more than a
// line, from the beginning to the end.
func TestTouch(t *testing.T) {
	const line = 64
	var c Conn
	loads := []struct {
		at   uintptr
		from Conn // has nothing else
	}{
		{unsafe.Offsetof(c.Client), Conn{Client: Endpoint{Addr: Addr{0: 1}}}},
		{unsafe.Offsetof(c.Deadline), Conn{Deadline: 1}},
		{unsafe.Offsetof(c.InsidePort), Conn{InsidePort: 1}},
	}
	before := uintptr(0)
	for _, l := range loads {
		if l.from.touch() == 0 {
			t.Errorf("what is at %d is not loaded", l.at)
		}
		if l.at > before+line {
			t.Errorf("nothing is loaded between %d and %d", before, l.at)
		}
		before = l.at
	}
	if end := unsafe.Offsetof(c.Local); before+unsafe.Sizeof(c.InsidePort) != end {
		t.Errorf("a packet needs what is before %d, the last that is loaded is at %d", end, before)
	}
}
