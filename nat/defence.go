// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// The defences of IPVS against floods (ip_vs_ctl.c, update_defense_level), all off
// unless set. Each has a mode: 0 off, 3 always, 1 and 2 when memory is short.
//
//	DropEntry   entries that are half-open, and such as were hardly used and have
//	            been idle for a minute, are thinned out: all others of the table
//	            come by every 32 s
//	DropPacket  one of so many first packets is dropped, before it is scheduled
//	SecureTCP   the other table of states: the client's word makes no connection
//
// The kernel looks at the pages that are free; here what can run out is the
// connection table. Memory is short while less than a sixteenth of its slots is
// free. Then one packet of N is dropped, N being that sixteenth divided by what
// is missing of it, but not less than 2: the kernel drops all in the end, while
// here a full table still makes room for a newcomer.

// defence is what is in force.
type defence struct {
	due    conntrack.Time        // when to look again
	tables [2]conntrack.TCPTable // by the flag SNAT: what was opened from inside keeps to the usual one
	rate   int                   // one of so many first packets is dropped; 0: none
	count  int                   // until the next one
	thin   bool
	visit  visit
	few    [tooMany]int // as count, by the number of packets of an entry
}

const (
	defencePeriod = conntrack.Time(time.Second)
	// shortOf is the part of the table that is free when memory is not short.
	shortOf = 16
	// thinPart is the part of the table that is thinned out in a period.
	thinPart = 32
	// thinIdle is the least time that an entry is idle before it is thinned out.
	thinIdle = conntrack.Time(time.Minute)
	// tooMany packets of the client show that an entry is used.
	tooMany = 9
)

// Defence says which of the defences are in force.
type Defence struct {
	DropEntry, DropPacket, SecureTCP bool
	DropRate                         int // one of so many first packets is dropped; 0: none
}

// Add makes d what is in force in any of two Forwarders.
func (d *Defence) Add(o Defence) {
	d.DropEntry = d.DropEntry || o.DropEntry
	d.SecureTCP = d.SecureTCP || o.SecureTCP
	d.DropPacket = d.DropPacket || o.DropPacket
	if d.DropRate == 0 || o.DropRate != 0 && o.DropRate < d.DropRate {
		d.DropRate = o.DropRate
	}
}

// Defence returns what is in force. It is to be called between batches.
func (f *Forwarder) Defence() Defence {
	d := &f.defence
	return Defence{
		DropEntry: d.thin, DropPacket: d.rate != 0, DropRate: d.rate,
		SecureTCP: d.tables[0] == conntrack.SecureTCP,
	}
}

// defend decides what is in force, by the settings and the level of the table.
func (f *Forwarder) defend() {
	d, s := &f.defence, &f.snap.settings
	d.due = f.now + defencePeriod
	reserve := max(f.table.Cap()/shortOf, 1)
	missing := max(reserve-f.table.Free(), 0)
	inForce := func(mode int) bool { return mode == 3 || mode != 0 && missing > 0 }

	d.thin = inForce(s.DropEntry)
	if d.thin {
		d.visit.left = (f.table.Extent() + thinPart - 1) / thinPart
	}
	switch {
	case s.DropPacket == 3:
		d.rate = max(s.DropRate, 0)
	case inForce(s.DropPacket):
		d.rate = max(reserve/missing, 2)
		d.count = d.rate
	default:
		d.rate = 0
	}
	d.tables[0] = conntrack.UsualTCP
	if inForce(s.SecureTCP) {
		d.tables[0] = conntrack.SecureTCP
	}
}

// refuses reports whether a first packet is one of those to be dropped
// (ip_vs_todrop).
func (d *defence) refuses() bool {
	if d.rate == 0 {
		return false
	}
	if d.count--; d.count > 0 {
		return false
	}
	d.count = d.rate
	return true
}

// thinOut looks at a part of the table and removes what it can do without.
func (f *Forwarder) thinOut(slots int) {
	for ; slots > 0; slots-- {
		i := f.defence.visit.next(f.table.Extent())
		if i < 0 {
			return
		}
		if c := f.table.At(i); c != nil && f.dispensable(c) {
			f.removeWithTemplate(c, conntrack.Thinned)
		}
		f.defence.visit.done()
	}
}

// dispensable reports whether an entry is to be thinned out
// (ip_vs_random_dropentry).
func (f *Forwarder) dispensable(c *conntrack.Conn) bool {
	if c.Server == conntrack.NoSlot || c.Children() > 0 {
		return false
	}
	switch c.State { // no template's: one that has served nobody goes with its last connection
	case conntrack.SynRecv, conntrack.SynAck, conntrack.SCTPInit1, conntrack.SCTPInit:
		return true
	case conntrack.Established, conntrack.UDP, conntrack.SCTPEstablished:
		return f.hardlyUsed(c)
	}
	return false
}

// hardlyUsed picks, of the entries with n packets of the client, n not more than
// 8, that have been idle for a minute, every n-th (todrop_entry).
func (f *Forwarder) hardlyUsed(c *conntrack.Conn) bool {
	last := c.Deadline - f.life(c, c.State)
	n := c.Heard()
	if f.now-last < thinIdle || n == 0 || n >= tooMany {
		return false
	}
	count := &f.defence.few[n]
	if *count--; *count > 0 {
		return false
	}
	*count = n
	return true
}
