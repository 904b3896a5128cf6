// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
)

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
