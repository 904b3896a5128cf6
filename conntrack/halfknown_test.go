// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"testing"
	"time"
)

// What waits for a client is found with port 0 for the client's and else by no
// packet, and is in nobody's way.
func TestHalfKnown(t *testing.T) {
	table := newTable(t, 16)
	waiting := insert(t, table, dnat("192.168.88.21:0", "192.168.88.23:5001", "10.0.0.2:5001"))
	template := insert(t, table, func() Conn {
		c := dnat("192.168.88.21:0", "192.168.88.23:5001", "10.0.0.3:0")
		c.Flags = Template
		return c
	}())
	if !waiting.HalfKnown() || template.HalfKnown() {
		t.Fatal("half-known: not the one with a port to come, or the template")
	}
	find := func(src string, want *Conn) {
		t.Helper()
		if c, way := table.Lookup(tuple(src, "192.168.88.23:5001"), DstOurs); c != want || c != nil && way != Inbound {
			t.Errorf("%s finds %v", src, c)
		}
	}
	find("192.168.88.21:0", waiting)
	find("192.168.88.21:40000", nil)
	find("192.168.88.22:0", nil)
	if c, _ := table.Lookup(tuple("10.0.0.2:5001", "192.168.88.21:40000"), DstForeign); c != nil {
		t.Errorf("a packet of the server finds %v", c)
	}
	if c := table.FindTemplate(&waiting.Client, &waiting.Virtual, protoTCP); c != template {
		t.Errorf("the template is %v", c)
	}
	again := dnat("192.168.88.21:0", "192.168.88.23:5001", "10.0.0.3:5001")
	if c, did := table.Insert(&again, 0, time.Minute); did != Exists || c != waiting {
		t.Errorf("once more: %s %v", did, c)
	}
	come := insert(t, table, dnat("192.168.88.21:40000", "192.168.88.23:5001", "10.0.0.2:5001"))
	find("192.168.88.21:40000", come)
	if table.Slot(waiting) == table.Slot(come) || table.At(int(table.Slot(come))) != come {
		t.Error("slots")
	}
	table.Remove(waiting, Deleted)
	find("192.168.88.21:0", nil)
	find("192.168.88.21:40000", come)
	table.Remove(come, Deleted)
	table.Remove(template, Deleted)
	if table.paired != 0 {
		t.Errorf("%d in chains of pairs", table.paired)
	}
}

// One client that is waited for at a thousand ports has no chain of them.
func TestHalfKnownSpread(t *testing.T) {
	table := newTable(t, 2000)
	for i := range 1000 {
		insert(t, table, dnat("192.168.88.21:0", fmt.Sprintf("192.168.88.23:%d", 2000+i), fmt.Sprintf("10.0.0.2:%d", 2000+i)))
	}
	longest := 0
	for _, first := range table.heads {
		n := 0
		for i := first; i != 0; i = table.conn(i).next {
			n++
		}
		longest = max(longest, n)
	}
	if longest > 8 {
		t.Errorf("a chain of %d", longest)
	}
}
