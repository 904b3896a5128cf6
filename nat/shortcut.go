// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// Shortcuts. Somebody nearer to the links than a Forwarder, the kernel, may forward the
// packets in the middle of a connection, by what the Forwarder has found out: a shortcut
// is both ways of a connection, ready for it. The Forwarder remains the judge. It gives a
// shortcut to what hit would forward, and sees all else of the connection itself: what
// begins and ends it, errors, fragments, what does not fit.
//
//	nominate    each nominateEvery bytes the connection that the packet at hand is of:
//	            who moves much is met soon, and nobody has to be counted for it. Small
//	            packets do not count: batches of them go no slower this way
//	open        of the nominees those whose packets take the short way (see shortWays)
//	visit       each row once in visitEvery: what has passed by is counted, the time-out
//	            begins anew, the windows follow; a shortcut that is not what it would be
//	            now, or that nobody takes, is closed
//	close       with a packet that the other has left to us, since it changes something
//	            or is odd; with the connection; with a snapshot by which it would differ
//
// A closed shortcut opens again when its connection is nominated. A packet that is
// under way while one opens or closes may be overtaken or lost, which TCP mends.

// Shortcuts is who takes them. It is called by one Forwarder, rarely, and must not wait.
// Rows are numbers below Rows; one is open or closed.
type Shortcuts interface {
	Rows() int
	// Open begins to forward what arrives by either way. From is how far each has come. It
	// reports false if it cannot.
	Open(row int, ways *[2]ShortWay, from *[2]conntrack.Window) bool
	// Passed is what has been forwarded since Open, by direction. It reports false if the
	// row is to be closed, because something has changed that only it knows of.
	Passed(row int, passed *[2]Passed) bool
	// Close ends it. What Passed said last is final.
	Close(row int)
}

// A ShortWay is one way of a connection.
type ShortWay struct {
	In      uint16             // port that its packets arrive by
	From    conntrack.LinkAddr // neighbour that they come from; zero: any
	Arrives conntrack.Tuple
	Leaves  conntrack.Tuple
	Out     Verdict // port, next hop
	MTU     uint16  // largest IP packet there
}

// Passed is what has gone one way.
type Passed struct {
	Packets, Bytes uint64
	Reached        conntrack.Window // End, Ack and Win
}

const (
	bulky         = 1000      // bytes of a packet of who moves much, at least
	nominateEvery = 128 << 10 // bytes of such packets
	maxNominees   = 16
	visitEvery    = time.Second
	visitParts    = 10 // of the rows, one after the other
	quietVisits   = 30 // after which a shortcut is closed that nobody takes
	// restRows is how long a row is not used again: somebody may be reading it.
	restRows = time.Second
	// shortestLife is the shortest time-out of a connection that may have a shortcut.
	shortestLife = 4 * time.Second
)

// ShortcutStats counts shortcuts, and what was forwarded by them.
type ShortcutStats struct {
	Open           int
	Opened         uint64
	Packets, Bytes uint64
}

func (s *ShortcutStats) add(o *ShortcutStats) {
	s.Open += o.Open
	s.Opened += o.Opened
	s.Packets += o.Packets
	s.Bytes += o.Bytes
}

// shortcuts is a Forwarder's part.
type shortcuts struct {
	by       Shortcuts // nil: there are none
	due      int       // bytes until the next nomination
	nominees [maxNominees]uint32
	waiting  int // nominees
	rows     []shortRow
	free     []freeRow      // a ring as long as rows, of those that are closed
	rested   int            // the one of them that is closed for longest
	of       map[uint32]int // rows, by slot of the connection
	next     int            // row to visit
	visited  conntrack.Time // last time
	stats    ShortcutStats
}

type shortRow struct {
	slot   uint32 // of the connection, NoSlot: closed
	quiet  int    // visits since somebody took it
	ways   [2]ShortWay
	passed [2]Passed // that was counted
}

type freeRow struct {
	row   int
	since conntrack.Time
}

// SetShortcuts has connections take shortcuts by somebody, or by nobody any more. It is
// to be called between batches.
func (f *Forwarder) SetShortcuts(by Shortcuts) {
	s := &f.shortcuts
	for row := range s.rows {
		f.closeRow(row)
	}
	*s = shortcuts{by: by, stats: s.stats, due: nominateEvery}
	if by == nil {
		return
	}
	s.of = make(map[uint32]int)
	s.rows = make([]shortRow, by.Rows())
	s.free = make([]freeRow, len(s.rows))
	for row := range s.rows {
		s.rows[row].slot = conntrack.NoSlot
		s.free[row] = freeRow{row: row, since: f.now - conntrack.Time(restRows)}
	}
}

// weigh counts a packet towards the next nomination.
func (f *Forwarder) weigh(c *conntrack.Conn, bytes int) {
	if bytes >= bulky {
		if f.shortcuts.due -= bytes; f.shortcuts.due < 0 {
			f.nominate(c)
		}
	}
}

// nominate is called when enough was forwarded since the last time.
func (f *Forwarder) nominate(c *conntrack.Conn) {
	s := &f.shortcuts
	s.due = nominateEvery
	if s.by != nil && s.waiting < maxNominees && c.Proto == protoTCP && c.Flags&conntrack.Shortcut == 0 {
		s.nominees[s.waiting] = f.table.Slot(c)
		s.waiting++
	}
}

// tendShortcuts does what is due, between batches.
func (f *Forwarder) tendShortcuts() {
	s := &f.shortcuts
	if s.waiting > 0 {
		for _, slot := range s.nominees[:s.waiting] {
			if c := f.table.At(int(slot)); c != nil && c.Flags&conntrack.Shortcut == 0 {
				f.openShortcut(c)
			}
		}
		s.waiting = 0
	}
	if s.stats.Open == 0 || f.now < s.visited+conntrack.Time(visitEvery/visitParts) {
		return
	}
	s.visited = f.now
	for range (len(s.rows) + visitParts - 1) / visitParts {
		f.visitRow(s.next, true)
		s.next = (s.next + 1) % len(s.rows)
	}
}

// RecheckShortcuts closes what is not right any more, by the snapshot or by who takes
// them. It is to be called between batches.
func (f *Forwarder) RecheckShortcuts() {
	if f.shortcuts.stats.Open > 0 {
		for row := range f.shortcuts.rows {
			f.visitRow(row, false)
		}
	}
}

// countShortcuts brings counters and connections up to date for somebody who asks.
func (f *Forwarder) countShortcuts() {
	for row := range f.shortcuts.rows {
		if slot := f.shortcuts.rows[row].slot; slot != conntrack.NoSlot {
			if moved, _ := f.countRow(row); moved {
				c := f.table.At(int(slot))
				f.table.SetDeadline(c, f.now+f.life(c, c.State))
			}
		}
	}
}

// openShortcut gives a connection a shortcut if it can have one and there is a row.
func (f *Forwarder) openShortcut(c *conntrack.Conn) {
	s := &f.shortcuts
	if s.stats.Open == len(s.rows) || f.now < s.free[s.rested].since+conntrack.Time(restRows) {
		return
	}
	row := s.free[s.rested].row
	r := &s.rows[row]
	var from [2]conntrack.Window
	if !f.shortWays(c, &r.ways, &from) || !s.by.Open(row, &r.ways, &from) {
		return
	}
	s.rested = (s.rested + 1) % len(s.free)
	r.slot, r.quiet, r.passed = f.table.Slot(c), 0, [2]Passed{}
	s.of[r.slot] = row
	c.Flags |= conntrack.Shortcut
	s.stats.Open++
	s.stats.Opened++
}

// shortWays says what both ways of a connection are now, and how far they have come. It
// reports false of a connection that must not have a shortcut: each packet of it has to
// be seen, it is not in the middle, or it does not come or go by links with link addresses.
func (f *Forwarder) shortWays(c *conntrack.Conn, ways *[2]ShortWay, from *[2]conntrack.Window) bool {
	const odd = conntrack.InputOnly | conntrack.OnePacket | conntrack.Helped | conntrack.Template
	if c.Proto != protoTCP || c.State != conntrack.Established || c.Class() != conntrack.ClassHeld ||
		c.Flags&conntrack.Replied == 0 || c.Flags&odd != 0 || c.Server != conntrack.NoSlot && f.snap.server[c.Server].ends() ||
		f.life(c, c.State) < conntrack.Time(shortestLife) {
		return false
	}
	for dir := range from {
		var known bool
		if from[dir], known = c.Reach(conntrack.Direction(dir)); !known {
			return false
		}
	}
	own := &f.snap.own
	if own.find(&c.Virtual.Addr) < 0 || own.find(&c.Client.Addr) >= 0 || own.find(&c.Dest.Addr) >= 0 {
		return false
	}
	in, out := &ways[conntrack.Inbound], &ways[conntrack.Outbound]
	*in = ShortWay{
		In: c.HopPort, From: c.Hop,
		Arrives: conntrack.Tuple{Src: c.Client, Dst: c.Virtual, Proto: protoTCP},
		Leaves:  conntrack.Tuple{Src: c.Client, Dst: c.Dest, Proto: protoTCP},
	}
	*out = ShortWay{
		In:      c.InsidePort,
		Arrives: conntrack.Tuple{Src: c.Dest, Dst: c.Client, Proto: protoTCP},
		Leaves:  conntrack.Tuple{Src: c.Virtual, Dst: c.Client, Proto: protoTCP},
	}
	if c.Flags&conntrack.FullNAT != 0 {
		if own.find(&c.Local.Addr) < 0 {
			return false
		}
		in.Leaves.Src, out.Arrives.Dst = c.Local, c.Local
	}
	for dir := range ways {
		way := f.way(c, conntrack.Direction(dir))
		if way.port >= MaxPorts {
			return false
		}
		ways[dir].Out, ways[dir].MTU = way.verdict(), way.mtu
	}
	if c.Flags&conntrack.SNAT != 0 {
		in.In, in.From = out.Out.Port, conntrack.LinkAddr{} // its neighbour is of no interest
	}
	for dir := range ways {
		if w := &ways[dir]; w.In >= MaxPorts || f.snap.ports[w.In].L3 || f.snap.ports[w.Out.Port].L3 {
			return false
		}
	}
	return true
}

// visitRow looks after an open shortcut.
func (f *Forwarder) visitRow(row int, regular bool) {
	r := &f.shortcuts.rows[row]
	if r.slot == conntrack.NoSlot {
		return
	}
	moved, sound := f.countRow(row)
	c := f.table.At(int(r.slot))
	if moved {
		f.table.SetDeadline(c, f.now+f.life(c, c.State))
	}
	var ways [2]ShortWay
	var from [2]conntrack.Window
	switch {
	case !sound, !f.shortWays(c, &ways, &from), ways != r.ways:
		f.closeRow(row)
	case moved:
		r.quiet = 0
	case regular:
		if r.quiet++; r.quiet >= quietVisits {
			f.closeRow(row)
		}
	}
}

// countRow counts what has gone by a shortcut, as if it had gone through the Forwarder.
func (f *Forwarder) countRow(row int) (moved, sound bool) {
	r := &f.shortcuts.rows[row]
	c := f.table.At(int(r.slot))
	var passed [2]Passed
	sound = f.shortcuts.by.Passed(row, &passed)
	for dir := range passed {
		is, was := &passed[dir], &r.passed[dir]
		if is.Packets == was.Packets {
			continue
		}
		moved = true
		packets, bytes := is.Packets-was.Packets, is.Bytes-was.Bytes
		f.add(c.Server, conntrack.Direction(dir), int(packets), int(bytes))
		f.shortcuts.stats.Packets += packets
		f.shortcuts.stats.Bytes += bytes
		c.Advance(conntrack.Direction(dir), is.Reached)
	}
	r.passed = passed
	return moved, sound
}

// underWay reports whether a packet of a connection that has a shortcut has only been under
// way when that was opened. With full NAT it does not take the way of hit.
func underWay(h *parsed, c *conntrack.Conn) bool {
	return c.Flags&conntrack.FullNAT != 0 && h.kind == kindTCP && h.flags&(flagFIN|flagSYN|flagRST|flagACK) == flagACK && h.ttl > 1
}

// closeShortcut brings a connection back that has a shortcut.
func (f *Forwarder) closeShortcut(c *conntrack.Conn) {
	if row, ok := f.shortcuts.of[f.table.Slot(c)]; ok {
		f.closeRow(row)
	}
}

func (f *Forwarder) closeRow(row int) {
	s := &f.shortcuts
	r := &s.rows[row]
	if r.slot == conntrack.NoSlot {
		return
	}
	s.by.Close(row)
	f.countRow(row)
	f.table.At(int(r.slot)).Flags &^= conntrack.Shortcut
	delete(s.of, r.slot)
	r.slot = conntrack.NoSlot
	s.free[(s.rested+len(s.rows)-s.stats.Open)%len(s.free)] = freeRow{row: row, since: f.now}
	s.stats.Open--
}
