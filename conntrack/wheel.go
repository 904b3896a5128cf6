// SPDX-License-Identifier: Apache-2.0

package conntrack

// The wheel has one list of connections per slot, and a slot per tick. A tick
// is a power of two so that a deadline becomes a slot by a shift, and the
// whole wheel, 1,099 s, is longer than the longest usual life (ESTABLISHED,
// 900 s), so that one look per life is the rule.
const (
	tickShift  = 28 // 2^28 ns = 268 ms
	tick       = Time(1) << tickShift
	wheelBits  = 12
	wheelSlots = 1 << wheelBits
)

// SetDeadline sets when c ends, unless it is set again before. A later
// deadline is one store: the wheel looks at c when the old one is due, and
// then finds the new one. An earlier one moves c in the wheel, at once and in
// constant time, and so is kept to within one tick too.
func (t *Table) SetDeadline(c *Conn, d Time) {
	was := c.Deadline
	c.Deadline = d
	if d < was {
		t.hasten(c)
	}
}

// hasten arms c, whose deadline is earlier now, where that is.
func (t *Table) hasten(c *Conn) {
	if ahead := t.ticksAhead(c.Deadline); ahead < t.armedAhead(c) {
		t.disarm(c)
		t.arm(c, ahead)
	}
}

// Sweep ends the connections whose deadline is not after now, oldest tick
// first, and returns how many; one that has children gets [ParentLife] more. It
// looks at no more than budget connections, counting those that turn out to live
// on, and goes on where it stopped at the next call. A connection ends at most one tick (268 ms) late, plus what the
// budget puts off; never early.
//
// If the clock has jumped by more than a turn of the wheel, every connection
// is due for a look, in whatever order; the cursor is set so that each slot is
// passed once and no turns are run empty. If it has jumped back, nothing
// happens until it has caught up.
func (t *Table) Sweep(now Time, budget int) int {
	today := int64(now >> tickShift)
	if today-t.cursor >= wheelSlots {
		t.cursor = today - wheelSlots + 1
	}

	expired := 0
	for t.cursor <= today {
		first := t.slots[t.cursor&(wheelSlots-1)]
		if first == 0 {
			t.cursor++
			continue
		}
		if budget <= 0 {
			break
		}
		budget--

		c := t.conn(first)
		if c.Deadline <= now {
			if c.Children() == 0 {
				t.Remove(c, Expired)
				expired++
				continue
			}
			t.prolong(c, now)
		}
		t.disarm(c)
		t.arm(c, t.ticksAhead(c.Deadline)) // after today, so never this slot again
	}

	return expired
}

// Due says whether Sweep had more to look at than its budget let it, at the time now.
func (t *Table) Due(now Time) bool { return t.length > 0 && t.cursor <= int64(now>>tickShift) }

// ticksAhead is the number of ticks from the cursor to the first one that
// begins after d, within the wheel.
func (t *Table) ticksAhead(d Time) int64 {
	return min(max(int64(d>>tickShift)+1-t.cursor, 0), wheelSlots-1)
}

// armedAhead is the number of ticks from the cursor to where c is armed.
func (t *Table) armedAhead(c *Conn) int64 {
	return (int64(c.place.slot()) - t.cursor) & (wheelSlots - 1)
}

// arm puts c in the slot ahead ticks from the cursor.
func (t *Table) arm(c *Conn, ahead int64) {
	slot := uint16(t.cursor+ahead) & (wheelSlots - 1)
	c.place = c.place.withSlot(slot)

	self, first := t.link(c), t.slots[slot]
	c.wheel = links{next: first}
	if first != 0 {
		t.conn(first).wheel.prev = self
	}
	t.slots[slot] = self
}

// disarm takes c out of its slot.
func (t *Table) disarm(c *Conn) {
	if c.wheel.next != 0 {
		t.conn(c.wheel.next).wheel.prev = c.wheel.prev
	}
	if c.wheel.prev != 0 {
		t.conn(c.wheel.prev).wheel.next = c.wheel.next
		return
	}
	t.slots[c.place.slot()] = c.wheel.next
}
