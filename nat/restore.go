// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// The way back of what keep.go has written down. A connection goes to the Forwarder that
// has its outside address now, under the server, the ports and the mapping that are the
// same as before by what they are. What is not configured any more, or cannot be as it
// was, is left; it never comes back in part, and nothing has to make room for it. Its
// packets are then met as those of any connection that nobody knows: with a RST.

// A Loss is why a connection was not restored.
type Loss uint8

// The reasons, in the order in which they are found out.
const (
	LossMalformed Loss = iota // the record makes no sense
	LossOver                  // its time is over by now
	LossServer                // its server is not configured, or gets its packets in another way
	LossAddress               // its address or its SNAT rule is not configured
	LossPort                  // its port is taken, or not to be handed out any more
	LossClash                 // another one is in its place
	LossFull                  // there is no room

	NumLosses = int(LossFull) + 1
)

// String is the reason in a few words.
func (l Loss) String() string {
	return [...]string{
		"malformed", "over meanwhile", "server not configured", "address not configured", "port not free", "another in its place", "no room", "?",
	}[min(int(l), NumLosses)]
}

// Restored says what became of records.
type Restored struct {
	Conns, Templates int
	Lost             [NumLosses]int // of both
}

// A Restoration puts connections into Forwarders beside each other, which have none and
// are used by nobody meanwhile. Each must have begun a batch under the rules in force,
// at the time of the restoration.
type Restoration struct {
	Restored

	forwarders []*Forwarder
	rules      *Rules
	elapsed    time.Duration
	servers    map[uint32]uint32  // slots, by number
	links      map[string]uint16  // ports, by name of the link
	ports      map[uint16]uint16  // ports, by number
	parents    map[uint32]adopted // by number
	helped     *ftpControl        // of the next record
}

// adopted is a connection in its new place.
type adopted struct {
	*conntrack.Conn
	in *Forwarder
}

// NewRestoration begins one, elapsed after the time at which the records were written.
// It is to be used by the goroutine that owns the Rules.
func NewRestoration(forwarders []*Forwarder, elapsed time.Duration) *Restoration {
	r := &Restoration{
		forwarders: forwarders, rules: forwarders[0].rules, elapsed: elapsed,
		servers: make(map[uint32]uint32), links: make(map[string]uint16), ports: make(map[uint16]uint16),
		parents: make(map[uint32]adopted),
	}
	for i := range forwarders[0].snap.ports {
		if name := forwarders[0].snap.ports[i].Name; name != "" {
			r.links[name] = uint16(i)
		}
	}
	return r
}

// Take takes the next record.
func (r *Restoration) Take(kind RecordKind, body []byte) {
	if kind == RecordConn {
		r.conn(body)
		r.helped = nil
		return
	}
	switch kind {
	case RecordServer:
		if number, k, server, ok := readServer(body); ok && r.rules.byKey[k] != nil {
			if d := r.rules.byKey[k].find(server.Addr(), server.Port()); d != nil {
				r.servers[number] = d.slot
			}
		}
	case RecordLink:
		if len(body) > 2 {
			if port, ok := r.links[string(body[2:])]; ok {
				r.ports[binary.BigEndian.Uint16(body)] = port
			}
		}
	case RecordFTP:
		r.helped = new(ftpControl)
		if !r.helped.parse(body) {
			r.helped = nil
		}
	}
}

// conn restores one connection, or counts it as lost.
func (r *Restoration) conn(body []byte) {
	var c conntrack.Record
	if c.Parse(body) != nil {
		r.Lost[LossMalformed]++
		return
	}
	if c.Left -= r.elapsed; c.Left <= 0 && c.Number == 0 {
		r.Lost[LossOver]++
		return
	}
	c.Left = max(c.Left, 0) // of a parent, that waits for its children
	f := r.forwarders[0]
	f = r.forwarders[f.place.key.Of(&c.Client.Addr, f.place.n)]
	c.HopPort, c.InsidePort = r.port(c.HopPort), r.port(c.InsidePort)
	if c.Server != conntrack.NoSlot {
		slot, ok := r.servers[c.Server]
		if !ok || int(slot) >= len(f.snap.server) || !f.snap.server[slot].takes(&c.Conn) {
			r.Lost[LossServer]++
			return
		}
		c.Server = slot
	}
	if !f.has(&c.Conn) {
		r.Lost[LossAddress]++
		return
	}
	if !f.resumePort(&c.Conn) {
		r.Lost[LossPort]++
		return
	}
	parent := r.parents[c.Parent]
	if parent.in != f {
		parent.Conn = nil // its template counts for other clients now
	}
	n, lost := f.resume(&c, parent.Conn, r.helped)
	if n == nil {
		r.Lost[lost]++
		return
	}
	if c.Number != 0 {
		r.parents[c.Number] = adopted{n, f}
	}
	if n.Flags&conntrack.Template != 0 {
		r.Templates++
		return
	}
	r.Conns++
}

// port is the port of the link that had a number.
func (r *Restoration) port(number uint16) uint16 {
	if port, ok := r.ports[number]; ok {
		return port
	}
	return NoPort
}

// takes reports whether a server has a connection's packets as it had before.
func (e *serverEntry) takes(c *conntrack.Conn) bool {
	return e.server != nil && !e.gone && e.dest.Addr == c.Dest.Addr && (c.Flags&conntrack.Template != 0 || e.method == methodOf(c))
}

// has reports whether the addresses of a connection are still what they were.
func (f *Forwarder) has(c *conntrack.Conn) bool {
	s := f.snap
	switch {
	case c.Flags&conntrack.Template != 0:
		return true // its server's service has it
	case c.Flags&conntrack.SNAT != 0:
		rule := s.snatFor(&c.Dest.Addr)
		return rule != nil && rule.to == c.Virtual.Addr
	case c.Flags&conntrack.OnePacket != 0:
		if s.inner.find(&c.Dest.Addr) < 0 {
			return false
		}
	}
	return (s.own.find(&c.Virtual.Addr) >= 0 || s.marks.wide) && (c.Flags&conntrack.FullNAT == 0 || s.own.find(&c.Local.Addr) >= 0)
}

// resumePort has the port of ours that stands for an end of c do so again, if there is
// one. It reports false if it cannot.
func (f *Forwarder) resumePort(c *conntrack.Conn) bool {
	if c.Rule == 0 {
		return c.Flags&conntrack.SNAT == 0
	}
	inside, ours, kind := &c.Dest, &c.Virtual, anyPort
	if c.Flags&conntrack.FullNAT != 0 {
		inside, ours, kind = &c.Client, &c.Local, f.place.locals()
		if !f.tells(c.Local.Port) {
			kind = f.place.strange()
		}
	}
	own := f.snap.own.find(&ours.Addr)
	if own < 0 || f.pools[own] < 0 {
		return false
	}
	c.Rule = f.mapper.resume(&ours.Addr, uint8(f.pools[own]), inside, c.Proto, ours.Port, kind)
	return c.Rule != 0
}

// resume puts a connection into the table, with all that is kept beside it.
func (f *Forwarder) resume(r *conntrack.Record, parent *conntrack.Conn, helped *ftpControl) (*conntrack.Conn, Loss) {
	counted := r.Flags&conntrack.Counted != 0
	r.Flags &^= conntrack.Counted
	c, outcome := f.table.Restore(r, parent, f.now)
	if outcome != conntrack.Inserted {
		f.giveBack(&r.Conn)
		if outcome == conntrack.Full {
			return nil, LossFull
		}
		return nil, LossClash
	}
	if c.Flags&conntrack.FullNAT != 0 && !f.tells(c.Local.Port) {
		f.common.strangers.note(c, f)
	}
	if counted {
		f.clients.add(c)
	}
	if c.HalfKnown() {
		f.ftp.waiting++
	}
	if c.Server != conntrack.NoSlot {
		switch s := f.snap.server[c.Server].server; {
		case c.Flags&conntrack.Template != 0:
			s.TemplateOpened()
		default:
			s.ConnOpened()
			if c.State.Active() {
				s.ConnActivated()
			}
		}
	}
	if helped != nil && c.Flags&conntrack.Helped != 0 {
		k := f.ftp.take(f.table.Slot(c), c)
		if k == nil {
			f.table.Remove(c, conntrack.Deleted) // its stream could not be followed
			return nil, LossFull
		}
		k.first, k.phase, k.streams = helped.first, helped.phase, helped.streams
	}
	return c, 0
}
