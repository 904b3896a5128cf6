// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"testing"
	"time"
)

// family is a control connection with two data connections under it, in a table
// of n slots.
func family(t *testing.T, n int) (table *Table, parent *Conn, children []*Conn) {
	t.Helper()
	table = newTable(t, n)
	parent = insert(t, table, dnat(client, "192.168.88.23:21", "10.0.0.2:21"))
	for _, c := range []Conn{
		dnat("192.168.88.21:40001", "192.168.88.23:20", "10.0.0.2:20"),
		dnat("10.0.0.3:50000", "192.168.88.23:2000", "10.0.0.2:2000", local),
	} {
		child, did := table.InsertChild(&c, parent, 0, time.Minute)
		if did != Inserted {
			t.Fatal(did)
		}
		children = append(children, child)
	}
	if parent.Children() != 2 || table.Parent(children[0]) != parent || table.Parent(children[1]) != parent {
		t.Fatalf("%d children, of %v and %v", parent.Children(), table.Parent(children[0]), table.Parent(children[1]))
	}

	return table, parent, children
}

// TestParentLivesOn: 60 s at a time, as long as there is a child.
func TestParentLivesOn(t *testing.T) {
	table, parent, children := family(t, 8)
	for _, c := range children {
		table.SetDeadline(c, Time(150*time.Second))
	}
	for _, row := range []struct {
		at, ends time.Duration
		conns    int
	}{
		{59 * time.Second, 60 * time.Second, 3},
		{61 * time.Second, 121 * time.Second, 3},
		{122 * time.Second, 182 * time.Second, 3},
		{151 * time.Second, 182 * time.Second, 1},
		{181 * time.Second, 182 * time.Second, 1},
		{183 * time.Second, 0, 0},
	} {
		table.Sweep(Time(row.at), lots)
		if table.Len() != row.conns || row.conns > 0 && parent.Deadline != Time(row.ends) {
			t.Errorf("at %v: %d connections, the parent until %v; want %d, %v", row.at, table.Len(), time.Duration(parent.Deadline), row.conns, row.ends)
		}
	}
}

// TestParentIsNotEvicted: it makes room when its children have, in its turn.
func TestParentIsNotEvicted(t *testing.T) {
	table, parent, children := family(t, 4)
	table.SetClass(parent, ClassOneWay) // it is over
	for _, c := range children {
		table.SetClass(c, ClassHeld)
	}
	if _, did := table.Insert(&[]Conn{dnat(client, virtual, server)}[0], 0, 0); did != Full {
		t.Fatalf("a table of a family: %s", did)
	}
	table.SetClass(children[0], ClassHalfOpen)
	n := insert(t, table, dnat(client, virtual, server))
	if parent.Children() != 1 || table.Parent(children[1]) != parent {
		t.Fatalf("%d children", parent.Children())
	}
	table.SetClass(n, ClassHeld)
	table.Remove(children[1], Deleted)
	insert(t, table, dnat(client, "192.168.88.23:81", "10.0.0.2:81"))
	insert(t, table, dnat(client, "192.168.88.23:82", "10.0.0.2:82"))
	if c, _ := table.Lookup(tuple(client, "192.168.88.23:21"), DstOurs); c != parent {
		t.Fatal("evicted while there was room")
	}
	if table.Counts()[ClassOneWay] != 1 {
		t.Errorf("counts %v", table.Counts())
	}
	for i := range uint16(3) {
		c := dnat(client, "192.168.88.23:90", "10.0.0.2:90")
		c.Virtual.Port, c.Dest.Port = 90+i, 90+i
		table.SetClass(insert(t, table, c), ClassHeld)
	}
	if c, _ := table.Lookup(tuple(client, "192.168.88.23:21"), DstOurs); c != nil {
		t.Errorf("%s is still there", c)
	}
}

// TestParentRemovedFirst: nobody finds it, and its slot is nobody else's until
// its children have ended.
func TestParentRemovedFirst(t *testing.T) {
	table, parent, children := family(t, 4)
	table.Remove(parent, Deleted)
	table.Remove(parent, Deleted)
	if table.Len() != 2 || table.Parent(children[0]) != nil || listed(table) != 2 {
		t.Errorf("length %d, parent %v, %d listed", table.Len(), table.Parent(children[0]), listed(table))
	}
	if c, _ := table.Lookup(tuple(client, "192.168.88.23:21"), DstOurs); c != nil {
		t.Errorf("still found: %s", c)
	}
	for _, c := range children {
		table.SetClass(c, ClassHeld)
	}
	again := dnat(client, "192.168.88.23:21", "10.0.0.3:21")
	if _, did := table.Insert(&again, 0, 0); did != Full {
		t.Fatalf("the slot was given away: %s", did)
	}
	if err := table.consistent(); err != nil {
		t.Error(err)
	}
	table.Remove(children[0], Deleted)
	insert(t, table, again)
	table.Remove(children[1], Deleted)
	table.SetClass(table.At(1), ClassHeld)
	for i := range uint16(3) {
		c := dnat(client, "192.168.88.23:90", "10.0.0.2:90")
		c.Virtual.Port, c.Dest.Port = 90+i, 90+i
		insert(t, table, c)
	}
	if table.Len() != 4 {
		t.Errorf("length %d of 4", table.Len())
	}
}

// TestChildFails: an insertion that comes to nothing leaves no child behind.
func TestChildFails(t *testing.T) {
	table, parent, children := family(t, 4)
	for _, c := range children {
		table.SetClass(c, ClassHeld)
	}
	same := dnat("192.168.88.21:40001", "192.168.88.23:20", "10.0.0.2:20")
	if _, did := table.InsertChild(&same, parent, 0, 0); did != Exists {
		t.Error(did)
	}
	if _, did := table.InsertChild(&[]Conn{dnat(client, virtual, server)}[0], parent, 0, 0); did != Full {
		t.Error(did)
	}
	if parent.Children() != 2 {
		t.Errorf("%d children", parent.Children())
	}

	snat := newTable(t, 4)
	out := dnat(client, virtual, server)
	out.Flags = SNAT
	p := insert(t, snat, dnat(client, "192.168.88.23:21", "10.0.0.2:21"))
	n, _ := snat.InsertChild(&out, p, 0, 0)
	if p.Children() != 0 || snat.Parent(n) != nil {
		t.Errorf("%d children of SNAT, parent %v", p.Children(), snat.Parent(n))
	}
}
