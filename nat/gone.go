// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// What becomes of the connections of a deleted server. Its service said it with
// OnServerDown when the server was deleted, alone or with its service:
//
//	keep    IPVS. The client's packets are dropped and restart no timer; if the
//	        server is back in time they go on to it
//	expire  keep, under ExpireNodestConn: the entries go at once and nobody is
//	        told; the client's next packet is a first one
//	repick  UDP: the client's next datagram is a first one. A handshake that the
//	        server has not answered: the client's next SYN or INIT is. Else as reset
//	reset   the entries go at once, and the ends are told (farewell.go)
//
// Keep and repick need nothing but the next packet. For the others the Forwarder
// visits its table, when a snapshot brings servers that are newly deleted: once
// around, a part of it with each Sweep, and no further than it may tell the ends.
// A packet that comes before the visit is met in the same way (toGone).
//
// What the server still says goes on to the client for as long as there is an
// entry. Connections that are over stay until their time is.
//
// A weight of 0 ends nothing.

// A fate is what becomes of a deleted server's connections.
type fate uint8

const (
	fateKeep fate = iota
	fateExpire
	fateRepick
	fateReset
)

func fateOf(down ServerDown, expire bool) fate {
	switch {
	case down == ServerDownReset:
		return fateReset
	case down == ServerDownRepick:
		return fateRepick
	case expire:
		return fateExpire
	}
	return fateKeep
}

// publishEnds fills in what a snapshot knows of the ends of a server's connections:
// their time-outs, and what becomes of them if it is deleted.
func (r *Rules) publishEnds(s *snapshot, d *server, e *serverEntry) {
	idle := d.last.Idle
	if !d.gone {
		idle = d.service.Idle
	}
	e.timeouts = &s.settings.Timeouts
	if idle != 0 {
		t := s.settings.Timeouts.WithIdle(idle)
		e.timeouts = &t
	}
	if d.drain == DrainAll {
		s.departed = r.departed
	}
	if d.gone {
		e.fate = fateOf(d.last.OnServerDown, s.settings.ExpireNodestConn)
		if e.fate != fateKeep {
			s.departed = r.departed
		}
	}
}

// toGone decides about a client's packet to a server that is deleted.
func (f *Forwarder) toGone(p *Packet, h *parsed, c *conntrack.Conn) Verdict {
	fate := f.snap.server[c.Server].fate
	switch {
	case fate == fateKeep && h.opens() && !(f.snap.settings.HoldGoneSYN && !f.renews(c)):
		// IPVS drops it as any other packet, and the client waits for a second.
	case fate == fateKeep && f.snap.idle:
		return f.first(p, h, f.snap.own.find(&h.tuple.Dst.Addr)) // without a service IPVS looks at no packet
	case fate == fateKeep:
		return drop(ReasonServerGone)
	case fate == fateExpire, h.opens(), fate == fateRepick && c.State == conntrack.UDP:
	case over(c.State):
		return drop(ReasonServerGone)
	default:
		if c.Proto != ProtoUDP {
			f.tellEnd(c, conntrack.Inbound)
		}
		f.table.Remove(c, conntrack.ServerGone)
		return f.refuse(p, h, ReasonServerGone)
	}
	f.table.Remove(c, conntrack.ServerGone)
	return f.first(p, h, f.snap.own.find(&h.tuple.Dst.Addr))
}

// removeWithTemplate removes an entry, and its template if that was for it alone.
func (f *Forwarder) removeWithTemplate(c *conntrack.Conn, why conntrack.Removal) {
	t := f.table.Parent(c)
	f.table.Remove(c, why)
	if t != nil && t.Flags&conntrack.Template != 0 && t.Children() == 0 {
		f.table.Remove(t, why)
	}
}

// unanswered tells whether all that was seen of a connection is the client's first
// packet, which it will send again.
func unanswered(c *conntrack.Conn) bool {
	return c.Flags&conntrack.Replied == 0 &&
		(c.State == conntrack.SynRecv || c.State == conntrack.SCTPInit1 || c.State == conntrack.SCTPInit)
}

// slotsPerBudget is how many slots of the table are visited for each entry that
// Sweep may remove.
const slotsPerBudget = 8

// visit is a walk around the table in portions.
type visit struct{ at, left int }

// next returns the slot to look at, or -1 when the walk is at its end.
func (v *visit) next(extent int) int {
	if v.left <= 0 {
		return -1
	}
	if v.at >= extent {
		v.at = 0
	}
	return v.at
}

// done goes on to the slot after.
func (v *visit) done() { v.at, v.left = v.at+1, v.left-1 }

// visitGone ends connections of deleted servers.
func (f *Forwarder) visitGone(slots int) {
	for ; slots > 0; slots-- {
		i := f.gone.next(f.table.Extent())
		if i < 0 {
			return
		}
		c := f.table.At(i)
		if c != nil && c.Server != conntrack.NoSlot && f.snap.server[c.Server].ends() && !f.endGone(c) {
			return // here again with the next Sweep
		}
		f.gone.done()
	}
}

// endGone does with an entry of a deleted server, or one that ends what it has, what is to be done at once. It
// reports false if that has to wait.
func (f *Forwarder) endGone(c *conntrack.Conn) bool {
	if !f.snap.server[c.Server].gone {
		return f.endDrained(c)
	}
	fate := f.snap.server[c.Server].fate
	if fate == fateKeep || c.Flags&conntrack.Template != 0 && fate != fateExpire {
		return true
	}
	switch fate {
	case fateExpire:
		if c.Children() == 0 { // else it goes with the last of them, or in its time
			f.removeWithTemplate(c, conntrack.ServerGone)
		}
		return true
	case fateRepick:
		if c.State == conntrack.UDP {
			return true
		}
		if unanswered(c) {
			f.table.Remove(c, conntrack.ServerGone)
			return true
		}
	}
	if over(c.State) {
		return true
	}
	if !f.mayTell() {
		return false
	}
	f.tell(c)
	f.table.Remove(c, conntrack.ServerGone)
	return true
}
