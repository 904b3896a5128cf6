// SPDX-License-Identifier: Apache-2.0

package nat

// The way of a packet, in the order in which it meets the functions below:
//
//	Begin                    load the snapshot and the time, once per batch
//	Forward
//	  hit                    what comes most, by the short way; see hit.go
//	  parse                  offsets, tuple, flags; or a reason to drop it
//	  fragment, icmpError    packets without ports of their own, see there
//	  Table.Lookup           one bucket, both directions
//	  first                  no entry: service → scheduler → insert,
//	                         or SNAT rule → port → insert; see first.go
//	  follow                 entry: state, window, deadline, counters
//	  send                   TTL, route, MTU, rewrite; see send.go
//	Outbox                   what the Forwarder had to say itself
//	Sweep                    ageing, once per batch
//
// No step calls back into an earlier one, but for a SYN whose old entry gave
// way to a new one.

import (
	"time"
	"unsafe"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/sched"
)

// A Forwarder moves the packets of one shard. It owns its connection table; one
// goroutine uses it. Several are made at once, and share what shards.go says.
type Forwarder struct {
	rules *Rules
	snap  *snapshot
	now   conntrack.Time

	table     *conntrack.Table
	place     place
	common    *commons
	mapper    *portMapper // of common
	pools     []int16     // of the mapper, by index in own.entries; -1: none
	frags     *fragments
	hops      hopCache
	paths     pathCache
	lessons   uint64 // of common.paths, that are in paths
	limit     limiter
	outbox    outbox
	defence   defence
	ftp       ftpTable
	farewells limiter
	clients   clientCounts
	probes    probes
	probeSeq  uint32 // of the last probe that was begun here
	shortcuts shortcuts
	gone      visit  // of the connections of deleted servers
	departed  uint64 // servers deleted until the snapshot
	id        uint16 // of the last packet that we made
	cutID     uint32 // of the last one that was cut, in IPv6

	counters counters

	// Scratch of the packet at hand.
	expects  bool // something was said to Ahead
	glimpse  glimpse
	parsed   parsed
	leader   parsed // of the datagram that a fragment completes
	quote    quoted
	said     parsed                             // of a packet that is made in the name of an end
	empty    [ipv6HeaderLen + udpHeaderLen]byte // a datagram that an ICMP error of our own is about
	spec     conntrack.Conn                     // the entry about to be inserted
	template conntrack.Conn                     // the template about to be inserted; see findTemplate
	request  sched.Request                      // to the scheduler
	mtu      int                                // of the way out
	split    uint16                             // MTU that the packet is to be cut to, or 0
	wrapping wrapping                           // what the packet is to be wrapped in, if it is
	scratch  []byte                             // for one packet
	moved    []byte                             // where the packet came, if it is in the outbox since

	counted counted
}

// Close gives the memory of the connection table back.
func (f *Forwarder) Close() error { return f.table.Close() }

// Begin starts a batch at the time now: what was published last counts for all
// of it. The outbox is emptied.
func (f *Forwarder) Begin(now conntrack.Time) {
	f.now = now
	f.outbox.reset()
	f.common.paths.follow(&f.paths, &f.lessons)
	if s := f.rules.current.Load(); s != f.snap {
		f.snap = s
		f.hops.clear()
		f.pools = f.mapper.sync(s, f.pools)
		f.counters.sync(s)
		f.limit.setRate(s.settings.ICMPRate)
		if s.helpers {
			f.ftp.claim(f.table.Cap())
		}
		f.clients.setLimit(s.settings.ClientLimit)
		f.defend()
		f.RecheckShortcuts()
		if f.departed != s.departed {
			f.departed = s.departed
			f.gone.left = f.table.Extent()
		}
	}
}

// Forward decides about one packet and rewrites it in place.
func (f *Forwarder) Forward(p *Packet) (v Verdict) {
	if f.expects {
		f.expects = false
		f.table.Fetch()
	}
	if f.hit(p, &v) {
		return v
	}
	return f.walk(p)
}

// walk is Forward for all that hit leaves.
func (f *Forwarder) walk(p *Packet) Verdict {
	f.split, f.wrapping.on, f.moved = 0, false, nil
	v := f.forward(p)
	if v.Action == Forward {
		switch {
		case f.wrapping.on:
			v = f.wrap(p, v, &f.wrapping)
		case f.split != 0:
			v = f.cut(p, v)
		}
	}
	if v.Action == Pass && f.straysFrom(p) {
		v = drop(ReasonStray)
	}
	if f.moved != nil {
		v = f.sendMoved(p, v)
	}
	f.counters.verdicts[v.Action]++
	if v.Action == Drop {
		f.counters.drops[v.Reason]++
	}
	return v
}

func (f *Forwarder) forward(p *Packet) Verdict {
	h := &f.parsed
	if r := h.parse(p); r != ReasonNone {
		return drop(r)
	}
	if f.snap.own.find(&h.tuple.Src.Addr) >= 0 {
		return drop(ReasonSource) // nobody else may send with an address of ours
	}
	if h.kind == kindICMPError {
		return f.icmpError(p, h)
	}
	if h.isFragment() {
		return f.fragment(p, h)
	}
	return f.whole(p, h)
}

// whole decides about a packet that has its ports: not a fragment, or the
// first one of a datagram.
func (f *Forwarder) whole(p *Packet, h *parsed) Verdict {
	own := f.snap.own.find(&h.tuple.Dst.Addr)
	if h.kind == kindOther {
		return f.otherProtocol(p, h, own)
	}
	c, dir := f.lookup(&h.tuple, own)
	if c == nil {
		if f.place.n > 1 {
			if v, away := f.elsewhere(p, &h.tuple, own); away {
				return v
			}
		}
		return f.first(p, h, own)
	}
	if f.place.n > 1 {
		f.meets(c)
	}
	if c.Flags&conntrack.Shortcut != 0 && !underWay(h, c) {
		f.closeShortcut(c)
	}
	return f.follow(p, h, c, dir)
}

// lookup finds the entry of a packet. own is the index of its destination among
// our addresses, or -1: then it is on its way out, to an outside endpoint; or it
// comes from one, to an address that a mark rule to a network has made a virtual
// one. What leaves is looked for first: a client may well be in such a network,
// while the other would need a real server that opens connections from the very
// port it serves at.
func (f *Forwarder) lookup(t *conntrack.Tuple, own int32) (*conntrack.Conn, conntrack.Direction) {
	if own >= 0 {
		return f.table.Lookup(t, conntrack.DstOurs)
	}
	c, dir := f.table.Lookup(t, conntrack.DstForeign)
	if c == nil && f.snap.marks.wide {
		return f.table.Lookup(t, conntrack.DstOurs)
	}
	return c, dir
}

// otherProtocol leaves what is neither TCP, UDP, SCTP nor ICMP to a host that has the
// address; IPVS does the same. What the host has routed to us (a port without
// link addresses) from a network of a SNAT rule is on its way out, and would
// leave with its inside address.
func (f *Forwarder) otherProtocol(p *Packet, h *parsed, own int32) Verdict {
	if own >= 0 && !f.snap.own.entries[own].onHost {
		return drop(ReasonProtocol)
	}
	if own < 0 && f.snap.ports[p.In%MaxPorts].L3 && f.snap.snatFor(&h.tuple.Src.Addr) != nil {
		return drop(ReasonProtocol)
	}
	return Verdict{Action: Pass}
}

// follow moves a packet that belongs to an entry.
func (f *Forwarder) follow(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction) Verdict {
	if dir == conntrack.Outbound && p.In != c.InsidePort {
		// The inside endpoint is not behind this port: somebody else uses
		// its address, or its way here has changed.
		if f.hops.lookup(&f.snap.routes, &c.Dest.Addr).port != p.In {
			return drop(ReasonSpoofed)
		}
		c.InsidePort = p.In
	}
	if h.kind == kindTCP && h.illegalFlags() {
		return drop(ReasonTCPFlags) // IPVS ends the connection with a null segment
	}
	if dir == conntrack.Inbound && c.Server != conntrack.NoSlot && f.snap.server[c.Server].gone {
		return f.toGone(p, h, c)
	}
	if h.ttl <= 1 {
		f.stopped(p, h, c, dir)
		return f.timeExceeded(p, h)
	}

	way := f.way(c, dir)
	if v, ok := f.fits(p, h, &way); !ok {
		f.stopped(p, h, c, dir)
		return v
	}
	if h.hasStates() {
		// A SYN or INIT on the tuple of a connection that is over begins a new
		// one, at a server chosen anew, and is itself forwarded. Under a template
		// or a control connection the entry and its server stay.
		if h.opens() {
			if dir == conntrack.Inbound && f.renews(c) || c.Flags&conntrack.SNAT != 0 && over(c.State) && !f.covered(c) {
				f.table.Remove(c, conntrack.Deleted)
				return f.first(p, h, f.snap.own.find(&h.tuple.Dst.Addr))
			}
			if sideOf(c, dir) != conntrack.Outbound && over(c.State) {
				f.reopen(c)
			}
		}
		if c.Flags&conntrack.Helped != 0 {
			if v, ok := f.helpFTP(p, h, c, dir, &way); !ok {
				return v
			}
		}
		if r := f.advance(h, c, dir); r != ReasonNone {
			return drop(r)
		}
	} else {
		f.refresh(h, c, dir)
	}
	if dir == conntrack.Inbound {
		c.Hear()
		if c.Hop != p.From || c.HopPort != p.In {
			f.moveHop(p, h, c)
		}
	}
	f.count(c, dir, len(p.Data))
	return f.send(p, h, c, dir, &way)
}

// stopped counts a packet of an entry that gets no further. IPVS counts what comes
// for a service, and follows it, before it looks whether it can go on; what comes
// from a server after.
func (f *Forwarder) stopped(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction) {
	if dir != conntrack.Inbound || c.Server == conntrack.NoSlot || h.opens() && f.renews(c) {
		return
	}
	f.count(c, dir, len(p.Data))
	if h.hasStates() {
		f.advance(h, c, dir)
		return
	}
	f.refresh(h, c, dir)
}

// over reports whether a connection in state s has ended at both ends.
func over(s conntrack.State) bool {
	return s == conntrack.TimeWait || s == conntrack.Close || s == conntrack.SCTPClosed
}

// advance moves a TCP entry by one segment, or an association by one packet.
//
// A RST outside the receiver's window changes nothing and goes no further; one
// inside it that is not exact goes on, so that the receiver can challenge it
// (RFC 5961, 3), and changes nothing either, unless the connection is closing
// anyway. A FIN outside the window goes on unbelieved.
func (f *Forwarder) advance(h *parsed, c *conntrack.Conn, dir conntrack.Direction) Reason {
	if h.kind == kindSCTP {
		f.advanceSCTP(h, c, dir)
		return ReasonNone
	}
	event := conntrack.EventOf(h.flags)
	if event == conntrack.RST || event == conntrack.FIN {
		switch c.InWindow(dir, h.seq) {
		case conntrack.Outside:
			if event == conntrack.RST && c.Flags&conntrack.InputOnly == 0 {
				return ReasonWindow
			}
			event = conntrack.ACK
		case conntrack.Inside:
			if event == conntrack.RST && c.State == conntrack.Established {
				event = conntrack.ACK
			}
		}
	}
	side := sideOf(c, dir)
	if side == conntrack.Outbound && c.Flags&conntrack.Replied == 0 {
		c.Flags |= conntrack.Replied
		f.serverHeard(h, c)
	}
	next := f.defence.tables[c.Flags&conntrack.SNAT].Next(c.State, side, event)
	if event != conntrack.RST {
		if h.flags&flagSYN != 0 {
			if dir == conntrack.Outbound && c.State == conntrack.Established && begunAnew(h, c) {
				c.Window = [2]conntrack.Window{}
				f.table.SetState(c, conntrack.SynRecv) // as active as ESTABLISHED, for what follows next
			}
			c.FollowSYN(dir, h.seq, h.ack, h.window, h.flags, h.payload, int(h.scale))
		} else {
			c.Follow(dir, h.seq, h.ack, h.window, h.flags, h.payload)
		}
	}
	f.setState(c, next)
	return ReasonNone
}

// begunAnew reports whether a SYN of the inside endpoint in ESTABLISHED is of
// another connection than the one seen so far: both ends have lost that, and
// its numbers would make us take the new one's for a stranger's. Nobody outside
// can send such a SYN (see the port check in follow); those of a client change
// nothing, as they can be forged.
func begunAnew(h *parsed, c *conntrack.Conn) bool {
	const apart = 1 << 20 // more than a handshake leaves unacknowledged
	seq, w := h.seq, &c.Window[conntrack.Outbound]
	if h.flags&flagACK != 0 {
		seq, w = h.ack, &c.Window[conntrack.Inbound]
	}
	return w.Flags&conntrack.WindowSeen != 0 && min(seq-w.End, w.End-seq) > apart
}

// sideOf returns the side that a packet comes from as the state table means it:
// Inbound is the side that opened the connection.
func sideOf(c *conntrack.Conn, dir conntrack.Direction) conntrack.Direction {
	switch {
	case c.Flags&conntrack.SNAT != 0:
		return dir.Other()
	case c.Flags&conntrack.InputOnly != 0:
		return conntrack.InboundOnly
	}
	return dir
}

// refresh restarts the timer of an entry without states.
func (f *Forwarder) refresh(h *parsed, c *conntrack.Conn, dir conntrack.Direction) {
	if sideOf(c, dir) == conntrack.Outbound && c.Flags&(conntrack.Replied|conntrack.OnePacket) == 0 {
		c.Flags |= conntrack.Replied
		f.serverHeard(h, c)
		f.table.SetClass(c, conntrack.ClassHeld)
		f.assure(c)
	}
	f.table.SetDeadline(c, f.now+f.life(c, c.State))
}

// life is how long an entry lives after a packet that leaves it in state s.
func (f *Forwarder) life(c *conntrack.Conn, s conntrack.State) conntrack.Time {
	t := &f.snap.settings.Timeouts
	if c.Server != conntrack.NoSlot {
		t = f.snap.server[c.Server].timeouts
	}
	return conntrack.Time(t[s])
}

// setState moves an entry to a state, restarts its timer, keeps the server's
// counts, and says how dear the entry is when the table is full: one is held
// from when both sides have been heard, since a SYN and an ACK can be forged,
// until it is over. Where the server is never heard, the client's ACK has to do.
func (f *Forwarder) setState(c *conntrack.Conn, next conntrack.State) {
	if next != c.State {
		if was, is := c.State.Active(), next.Active(); was != is && c.Server != conntrack.NoSlot {
			if s := f.snap.server[c.Server].server; is {
				s.ConnActivated()
			} else {
				s.ConnDeactivated()
			}
		}
		f.table.SetState(c, next)
		if next == conntrack.Established || next == conntrack.SCTPEstablished {
			f.assure(c)
		}
	}
	switch {
	case over(next):
		f.table.SetClass(c, conntrack.ClassOneWay)
	case (next == conntrack.Established || next == conntrack.SCTPEstablished) && c.Flags&(conntrack.Replied|conntrack.InputOnly) != 0:
		f.table.SetClass(c, conntrack.ClassHeld)
	}
	f.table.SetDeadline(c, f.now+f.life(c, next))
}

// removed is told by the table of each entry that leaves it.
func (f *Forwarder) removed(c *conntrack.Conn, why conntrack.Removal) {
	f.counters.removals[why]++
	if c.Flags&conntrack.Shortcut != 0 {
		f.closeShortcut(c)
	}
	if why == conntrack.Expired {
		f.expired(c)
	}
	if c.Server != conntrack.NoSlot {
		switch s := f.snap.server[c.Server].server; {
		case c.Flags&conntrack.Template != 0:
			s.TemplateClosed()
		case c.State.Active():
			s.ConnClosedActive()
		default:
			s.ConnClosedInactive()
		}
	}
	f.clients.drop(c)
	if c.Rule != 0 {
		f.mapper.release(c.Rule)
	}
	f.forgetFTP(c)
}

// sweepMost bounds what ends by its time in one call of Sweep: a fraction of a
// millisecond's worth, in a table that is in no cache.
const sweepMost = 1024

// Sweep ages the table and the fragments: at most budget entries are removed,
// the rest waits for the next call. It reports whether there is a rest, of what is
// over by its time. What it has to say is in the outbox then.
func (f *Forwarder) Sweep(budget int) (more bool) {
	f.tendShortcuts()
	f.table.Sweep(f.now, min(budget, sweepMost))
	f.visitGone(budget * slotsPerBudget)
	if f.now >= f.defence.due {
		f.defend()
	}
	f.thinOut(budget * slotsPerBudget)
	f.counters.drops[ReasonFragmentTimeout] += uint64(f.frags.sweep(f.now))
	f.counters.drops[ReasonFragmentLimit] += uint64(f.frags.takeEvicted())
	return f.table.Due(f.now)
}

// bytes is the memory that the Forwarder has claimed: all that it will ever
// use, but for the port rows of SNAT addresses still to come and the counts of the
// first limit of connections per client.
func (f *Forwarder) bytes() int64 {
	var shared int64 // is counted once
	if f.place.self == 0 {
		shared = f.mapper.bytes()
	}
	return f.table.Bytes() + shared + f.ftp.bytes() + f.clients.bytes() + int64(unsafe.Sizeof(*f.frags)) +
		outboxBytes + int64(len(f.scratch))
}

// lifeOf is the first deadline of a new entry, before its own packet is
// followed (ip_vs_conn.c, ip_vs_conn_new).
const lifeOf = 3 * time.Second
