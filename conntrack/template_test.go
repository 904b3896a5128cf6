// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// templateOf is what a template of virtual with server looks like.
func templateOf(client, virtual, server string) Conn {
	c := dnat(client, virtual, server)
	c.Flags = Template

	return c
}

func find(t *Table, c Conn) *Conn { return t.FindTemplate(&c.Client, &c.Virtual, c.Proto) }

// TestTemplateIsNoConnection: no packet finds one, and none is in the way of a
// connection, not even where the ports are 0.
func TestTemplateIsNoConnection(t *testing.T) {
	table := newTable(t, 8)
	const nobody = "192.168.88.21:0"
	one := insert(t, table, templateOf(nobody, virtual, server))
	other := insert(t, table, templateOf(nobody, "192.168.88.24:80", server)) // the same server
	if _, did := table.Insert(&[]Conn{templateOf(nobody, virtual, "10.0.0.3:80")}[0], 0, 0); did != Exists {
		t.Errorf("a second template for one client and service: %s", did)
	}
	if find(table, *one) != one || find(table, *other) != other || find(table, templateOf(client, virtual, server)) != nil {
		t.Error("the wrong template was found")
	}
	if c, _ := table.Lookup(tuple(nobody, virtual), DstOurs); c != nil {
		t.Errorf("a packet from port 0 finds %s", c)
	}
	if c, _ := table.Lookup(tuple(server, nobody), DstForeign); c != nil {
		t.Errorf("a packet to port 0 finds %s", c)
	}
	c := insert(t, table, dnat(nobody, virtual, server))
	if got, _ := table.Lookup(tuple(nobody, virtual), DstOurs); got != c {
		t.Errorf("a connection from port 0 beside its template: %v", got)
	}
	if find(table, *one) != one {
		t.Error("a connection was found as a template, or in its place")
	}
}

// TestTemplateByMark: the mark stands for the address, and no protocol is told.
func TestTemplateByMark(t *testing.T) {
	for _, row := range []struct {
		mark uint32
		ip4  bool
		want string
	}{
		{1, true, "0.0.0.1"}, {1, false, "0:1::"}, {0xc0a85817, true, "192.168.88.23"},
	} {
		if got := MarkAddr(row.mark, row.ip4); got.String() != row.want {
			t.Errorf("mark %#x: %s, want %s", row.mark, got, row.want)
		}
	}
	table := newTable(t, 4)
	c := templateOf("192.168.88.21:0", "0.0.0.1:0", "10.0.0.2:0")
	c.Proto = ProtoMark
	n := insert(t, table, c)
	if n.String() != "NONE ip c:192.168.88.21:0 v:0.0.0.1:0 d:10.0.0.2:0" {
		t.Error(n)
	}
	if find(table, c) != n {
		t.Error("not found")
	}
}

// TestTemplateLife: its own time, given again by Restart; 60 s and no other from
// when it had to wait for its children.
func TestTemplateLife(t *testing.T) {
	table := newTable(t, 4)
	c := templateOf("192.168.88.21:0", virtual, server)
	tpl, _ := table.Insert(&c, 0, 29500*time.Millisecond)
	ends := func(at time.Duration) {
		t.Helper()
		if tpl.Deadline != Time(at) {
			t.Errorf("ends at %v, want %v", time.Duration(tpl.Deadline), at)
		}
	}
	ends(29500 * time.Millisecond)
	table.Restart(tpl, Time(10*time.Second))
	ends(40 * time.Second)

	child := dnat(client, virtual, server)
	held, _ := table.InsertChild(&child, tpl, 0, 5*time.Minute)
	if n := table.Sweep(Time(41*time.Second), lots); n != 0 {
		t.Fatalf("%d ended", n)
	}
	ends(101 * time.Second)
	if find(table, *tpl) != tpl {
		t.Fatal("not found while its child lives")
	}
	table.Restart(tpl, Time(50*time.Second))
	ends(110 * time.Second)

	table.Remove(held, Deleted)
	if table.Sweep(Time(109*time.Second), lots); table.Len() != 1 {
		t.Fatal("gone before its time")
	}
	if table.Sweep(Time(111*time.Second), lots); table.Len() != 0 {
		t.Fatal("still there, without a child")
	}
}

// TestRetire: another may take the place of a template, twice.
func TestRetire(t *testing.T) {
	table := newTable(t, 4)
	c := templateOf("192.168.88.21:0", virtual, server)
	for range 2 {
		n := insert(t, table, c)
		table.Retire(n)
		if n.Virtual.Port != 65535 || n.Dest.Port != 65535 || find(table, c) != nil || find(table, *n) != nil {
			t.Errorf("retired: %s", n)
		}
	}
	insert(t, table, c)
	if table.Len() != 3 || table.At(0).Flags&retired == 0 || table.At(2).Flags&retired != 0 {
		t.Errorf("length %d", table.Len())
	}
	again := *table.At(0)
	again.Virtual.Port = 81
	if n := insert(t, table, again); find(table, again) != n {
		t.Error("a copy of a retired template is not found")
	}
}

// TestOnePacket: found by answers alone, from either service; the service may
// change under it.
func TestOnePacket(t *testing.T) {
	table := newTable(t, 8)
	c := dnat(client, virtual, server)
	c.Flags = OnePacket
	n := insert(t, table, c)
	if got, _ := table.Lookup(tuple(client, virtual), DstOurs); got != nil {
		t.Errorf("a datagram finds %s", got)
	}
	if got, way := table.Lookup(tuple(server, client), DstForeign); got != n || way != Outbound {
		t.Errorf("an answer finds %v", got)
	}
	c.Virtual = ep("192.168.88.24:80")
	if got, did := table.Insert(&c, 0, 0); did != Clash || got != n {
		t.Errorf("the same answers: %s %v", did, got)
	}
	c.Dest = ep("10.0.0.3:80")
	insert(t, table, c) // another server: other answers
	if got, did := table.Insert(&[]Conn{dnat(client, virtual, "10.0.0.4:80")}[0], 0, 0); did != Inserted {
		t.Errorf("a connection of the same ends as a datagram: %s %v", did, got)
	}
	table.Remove(n, Deleted)

	h := dnat("10.0.0.3:50000", virtual, server, local)
	h.Flags |= OnePacket
	n = insert(t, table, h)
	if got, way := table.Lookup(tuple(server, local), DstOurs); got != n || way != Outbound {
		t.Errorf("an answer on the same network finds %v", got)
	}
	if got, _ := table.Lookup(tuple("10.0.0.3:50000", virtual), DstOurs); got != nil {
		t.Errorf("a datagram of the same network finds %s", got)
	}
}

// TestTemplateGoesAlong: with its last connection if that makes room, and if nobody
// was served.
func TestTemplateGoesAlong(t *testing.T) {
	for _, row := range []struct {
		why    Removal
		served bool
		left   int
	}{
		{Thinned, false, 0}, {EvictedHalfOpen, false, 0}, {EvictedOneWay, false, 0},
		{Expired, false, 1}, {Deleted, false, 1}, {ServerGone, false, 1}, {Thinned, true, 1},
	} {
		table := newTable(t, 4)
		tpl := insert(t, table, templateOf("192.168.88.21:0", virtual, server))
		var children []*Conn
		for _, c := range []Conn{dnat(client, virtual, server), dnat("192.168.88.21:40001", virtual, server)} {
			child, _ := table.InsertChild(&c, tpl, 0, time.Minute)
			children = append(children, child)
		}
		if row.served {
			table.SetClass(children[0], ClassHeld)
		}
		table.Remove(children[0], row.why)
		if table.Len() != 2 {
			t.Errorf("%s: %d left with one connection", row.why, table.Len())
		}
		if table.Remove(children[1], row.why); table.Len() != row.left {
			t.Errorf("%s, served %v: %d left, want %d", row.why, row.served, table.Len(), row.left)
		}
	}
}

// TestFloodOfTemplates: a first packet from everywhere on a persistent service,
// each with a template, beside clients that are answered. The table holds what it
// must, and of the flood no template outlives its connection.
func TestFloodOfTemplates(t *testing.T) {
	for _, proto := range []uint8{protoTCP, protoUDP} {
		table := newTable(t, 1000)
		open := func(c Conn, now Time) (child, parent *Conn) {
			c.Proto = proto
			key := c
			key.Client.Port, key.Flags = 0, Template
			parent = find(table, key)
			if parent == nil {
				p, did := table.Insert(&key, now, time.Hour)
				if did != Inserted {
					t.Fatalf("template: %s", did)
				}
				parent = p
			}
			child, did := table.InsertChild(&c, parent, now, time.Minute)
			if did != Inserted {
				t.Fatalf("connection: %s", did)
			}
			return child, parent
		}
		var held, kept []*Conn
		for i := range 50_000 {
			c := numbered(i)
			c.Client.Addr = AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
			open(c, Time(i))
			if i%500 != 0 {
				continue
			}
			c.Client.Addr = AddrFrom4([4]byte{198, 51, 100, byte(i / 500)})
			child, parent := open(c, Time(i))
			table.SetClass(child, ClassHeld)
			if i%1000 == 0 {
				held = append(held, child, parent)
				continue
			}
			table.Remove(child, Expired) // the connection is over, the template waits for the next
			kept = append(kept, parent)
		}
		for _, c := range slices.Concat(held, kept) {
			if c.Proto != proto || table.link(c) == 0 {
				t.Fatalf("%s is gone", c)
			}
		}
		if len(held) != 100 || len(kept) != 50 {
			t.Fatalf("%d held, %d kept", len(held), len(kept))
		}
		counts := table.Counts()
		if counts[ClassHeld] != 50 || counts[ClassTemplate] != 100 || table.Len() != table.Cap() {
			t.Errorf("counts %v of %d", counts, table.Len())
		}
		if err := table.consistent(); err != nil {
			t.Error(err)
		}
	}
}

// TestTemplatesGoLast: those without a connection, when nothing else is left; the
// one that lost its last connection first before the others.
func TestTemplatesGoLast(t *testing.T) {
	var gone []string
	table, err := NewTable(Config{MaxConns: 5, Removed: func(c *Conn, why Removal) {
		gone = append(gone, fmt.Sprintf("%d %s", c.Client.Addr[15], why))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()

	for i := range 3 {
		tpl := insert(t, table, templateOf(fmt.Sprintf("192.168.88.%d:0", i+1), virtual, server))
		table.SetClass(tpl, ClassTemplate)
	}
	child := dnat("192.168.88.1:4000", virtual, server)
	first, _ := table.InsertChild(&child, table.At(0), 0, time.Minute)
	table.SetClass(first, ClassHeld)
	insert(t, table, dnat("192.168.88.7:1", virtual, server))
	for i := range 4 {
		c, did := table.Insert(&[]Conn{dnat(fmt.Sprintf("192.168.88.%d:1", 10+i), virtual, server)}[0], 0, time.Minute)
		if (did == Inserted) != (i < 3) {
			t.Fatalf("%d: %s", i, did)
		}
		if did == Inserted {
			table.SetClass(c, ClassHeld)
		}
	}
	table.Remove(first, Deleted) // its slot is free, and its template is idle
	insert(t, table, dnat("192.168.88.20:1", virtual, server))
	table.SetClass(table.At(1), ClassHeld)
	for range 2 {
		c := dnat("192.168.88.21:1", virtual, server)
		c.Client.Port = uint16(2 + len(gone))
		table.Insert(&c, 0, 0)
	}
	want := []string{"7 evicted-half-open", "2 evicted-template", "3 evicted-template", "1 deleted", "20 evicted-half-open", "21 evicted-half-open"}
	if !slices.Equal(gone, want) {
		t.Errorf("gone %q\nwant %q", gone, want)
	}
}
