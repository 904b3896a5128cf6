// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/sched"
)

// The first packet of a connection: there is no entry for it.

// first decides about a packet without an entry.
func (f *Forwarder) first(p *Packet, h *parsed, own int32) Verdict {
	service := f.marked(p, &h.tuple, own)
	if own >= 0 || service >= 0 {
		return f.firstInbound(p, h, own, service)
	}
	return f.firstOutbound(p, h)
}

// firstInbound: to an address of ours, or to a service by its mark, if that is
// not -1.
func (f *Forwarder) firstInbound(p *Packet, h *parsed, own, service int32) Verdict {
	from := f.hops.lookup(&f.snap.routes, &h.tuple.Src.Addr)
	if from.broadcast {
		return drop(ReasonSource) // our answer would go to all
	}
	if from.port != p.In && (f.snap.isInside(&h.tuple.Src.Addr) || f.snap.inner.find(&h.tuple.Src.Addr) >= 0) {
		return drop(ReasonSpoofed) // an inside address, from elsewhere
	}
	if h.kind == kindEcho {
		return f.echo(p, h, &f.snap.own.entries[own])
	}
	if f.probes.waiting && f.answersProbe(p, h) {
		return Verdict{Action: Hold}
	}
	if waiting := f.awaited(h); waiting != nil {
		return f.meet(p, h, waiting)
	}
	if service < 0 {
		service = f.snap.serviceOf(&h.tuple)
	}
	if service < 0 {
		return f.noService(p, h, own)
	}
	if h.hasStates() && !h.opens() {
		if h.kind == kindTCP && h.illegalFlags() {
			return drop(ReasonTCPFlags)
		}
		if !f.sloppy(h) {
			// The host would answer with a RST or an ABORT, were the port not ours.
			return f.refuse(p, h, ReasonNoConn)
		}
	}
	if h.ttl <= 1 {
		return f.timeExceeded(p, h)
	}
	return f.schedule(p, h, uint32(service))
}

// sloppy tells whether a packet opens a connection although it is no SYN or INIT
// (tcp_conn_schedule, sctp_conn_schedule).
func (f *Forwarder) sloppy(h *parsed) bool {
	s := &f.snap.settings
	return !h.ends() && (h.kind == kindTCP && s.SloppyTCP || h.kind == kindSCTP && s.SloppySCTP)
}

// noService: to an address of ours, to no service. What the host has beside us
// answers for itself; on an address that is ours alone we answer as a host
// without that port does. Strangers at a mapped port get silence (RFC 5382,
// REQ-4): the answer to a connection from inside may be on its way.
func (f *Forwarder) noService(p *Packet, h *parsed, own int32) Verdict {
	if f.snap.own.entries[own].holds(h.tuple.Dst.Port) {
		return Verdict{Action: Pass}
	}
	if f.mapped(own, h.tuple.Proto, h.tuple.Dst.Port) {
		return drop(ReasonUnsolicited)
	}
	if f.snap.own.entries[own].onHost && !f.snap.reserved[own].leaves(h.tuple.Proto, h.tuple.Dst.Port) {
		return Verdict{Action: Pass}
	}
	if h.kind == kindTCP && h.illegalFlags() {
		return drop(ReasonTCPFlags)
	}
	if f.snap.own.entries[own].onHost {
		f.counters.refusedOnHost++
	}
	return f.refuse(p, h, ReasonNoService)
}

// schedule chooses a real server for a new connection.
func (f *Forwarder) schedule(p *Packet, h *parsed, slot uint32) Verdict {
	if f.defence.refuses() {
		return drop(ReasonDropPacket)
	}
	if h.tuple.Src.Port == portFTPData {
		// It is a server's, whose entry its control connection would have made;
		// IPVS leaves it to the host (ip_vs_core.c, ip_vs_schedule).
		return f.refuse(p, h, ReasonNoConn)
	}
	if f.clients.full(&h.tuple.Src.Addr) {
		return drop(ReasonClientLimit)
	}
	svc := &f.snap.service[slot]
	if svc.persist.life > 0 {
		if t := f.findTemplate(h, svc); t != nil {
			v, clash := f.connect(p, h, slot, t.Server, t)
			if clash {
				return drop(ReasonClash)
			}
			return v
		}
	}
	f.request = sched.Request{
		Proto: h.tuple.Proto, Now: int64(f.now),
		Client:  netip.AddrPortFrom(h.tuple.Src.Addr.Netip(), h.tuple.Src.Port),
		Virtual: netip.AddrPortFrom(h.tuple.Dst.Addr.Netip(), h.tuple.Dst.Port),
	}
	s := svc.pool.Schedule(&f.request)
	if s == nil {
		return f.noServer(p, h, svc)
	}
	why := ReasonNoServer
	if f.knows(s) {
		v, clash := f.connect(p, h, slot, s.Slot, nil)
		if !clash {
			return v
		}
		why = ReasonClash
	}
	// The replies could not be told from those of another connection of the
	// same client endpoint, or the server is one that the next snapshot will
	// bring: any other will do.
	for _, other := range svc.servers {
		e := &f.snap.server[other]
		if e.server == s || e.gone || !e.server.Eligible() {
			continue
		}
		v, clash := f.connect(p, h, slot, other, nil)
		if !clash {
			return v
		}
		why = ReasonClash
	}
	if why == ReasonClash {
		return drop(ReasonClash)
	}
	return f.noServer(p, h, svc)
}

// knows reports whether a server that was scheduled is in the snapshot: the
// scheduler hears of changes at once, the Forwarder with Publish.
func (f *Forwarder) knows(s *sched.Server) bool {
	return int(s.Slot) < len(f.snap.server) && f.snap.server[s.Slot].server == s && !f.snap.server[s.Slot].gone
}

func (f *Forwarder) noServer(p *Packet, h *parsed, svc *serviceEntry) Verdict {
	if svc.noServer == NoServerReset && h.hasStates() {
		return f.refuse(p, h, ReasonNoServer)
	}
	return f.unreachable(p, h, unreachable(icmpPortUnreachable), ReasonNoServer)
}

// prepare begins the entry of a new connection to a server, in f.spec, and finds
// the way of its first packet. It reports false, with the verdict, if there is none.
func (f *Forwarder) prepare(p *Packet, h *parsed, server uint32, dest conntrack.Endpoint) (way, Verdict, bool) {
	to := f.hops.lookup(&f.snap.routes, &dest.Addr)
	if to.port == NoPort {
		return way{}, f.unreachable(p, h, unreachable(icmpHostUnreachable), ReasonNoRoute), false
	}
	f.spec = conntrack.Conn{
		Client: h.tuple.Src, Virtual: h.tuple.Dst, Dest: dest, Proto: h.tuple.Proto,
		Server: server, Flags: f.snap.server[server].method.connFlags(),
		Hop: p.From, HopPort: p.In, InsidePort: to.port,
	}
	c := &f.spec
	if c.Proto == ProtoUDP {
		c.State = conntrack.UDP
	}
	from := f.hops.lookup(&f.snap.routes, &h.tuple.Src.Addr)
	if c.Flags&conntrack.InputOnly == 0 {
		// Where client and server are on one link the reply would go past us
		// (RFC 4787, REQ-9: the client appears with our outside address).
		switch f.hideClient(c, from.link != 0 && from.link == to.link) {
		case ReasonNoPort:
			return way{}, drop(ReasonNoPort), false
		case ReasonNoLocal:
			return way{}, f.unreachable(p, h, unreachable(icmpHostUnreachable), ReasonNoLocal), false
		}
	}
	w := f.way(c, conntrack.Inbound)
	if v, ok := f.fits(p, h, &w); !ok {
		f.giveBack(c)
		return way{}, v, false
	}
	return w, Verdict{}, true
}

// connect makes the entry of a new connection to a server and sends its first
// packet; t is the template that it obeys, if any. It reports a clash instead if
// the entry would be ambiguous.
func (f *Forwarder) connect(p *Packet, h *parsed, service, server uint32, t *conntrack.Conn) (v Verdict, clash bool) {
	s, svc := &f.snap.server[server], &f.snap.service[service]
	way, v, ok := f.prepare(p, h, server, svc.at(s, h.tuple.Dst.Port))
	if !ok {
		return v, false
	}
	c := &f.spec
	if svc.onePacket && c.Proto == ProtoUDP {
		from := f.hops.lookup(&f.snap.routes, &c.Client.Addr)
		return f.scheduleOnce(p, h, service, t, &way, from.port == p.In)
	}
	if svc.helps(c) {
		c.Flags |= conntrack.Helped
	}
	c, outcome := f.insert(c, svc, t)
	if outcome == conntrack.Clash && c != nil && (h.hasStates() && over(c.State) || c.Flags&conntrack.OnePacket != 0) {
		// The other one is over and gives way, as it would to a SYN of its own; or
		// it only waits for answers.
		f.table.Remove(c, conntrack.Deleted)
		c, outcome = f.insert(&f.spec, svc, t)
	}
	if outcome != conntrack.Inserted {
		f.giveBack(&f.spec)
		if outcome == conntrack.Full {
			return drop(ReasonTableFull), false
		}
		return Verdict{}, true
	}
	s.server.ConnOpened()
	f.clients.add(c)
	f.counters.opened(service, server)
	if h.kind == kindICMPError {
		return f.passOn(p, &f.parsed, c, conntrack.Inbound), false
	}
	f.begin(h, c, conntrack.Inbound)
	f.count(c, conntrack.Inbound, len(p.Data))
	return f.send(p, h, c, conntrack.Inbound, &way), false
}

// begin follows the first packet of a new entry.
func (f *Forwarder) begin(h *parsed, c *conntrack.Conn, dir conntrack.Direction) {
	if dir == conntrack.Inbound {
		c.Hear()
		f.asked(c)
	}
	if h.hasStates() {
		f.table.SetClass(c, conntrack.ClassHalfOpen)
		f.advance(h, c, dir)
		return
	}
	f.table.SetClass(c, conntrack.ClassOneWay)
	f.refresh(h, c, dir)
}

// hairpin has the client appear with the virtual address and a port of its own
// there. It reports false if no port is left.
func (f *Forwarder) hairpin(c *conntrack.Conn) bool {
	own := f.snap.own.find(&c.Virtual.Addr)
	if own < 0 || f.pools[own] < 0 {
		own = f.anyPool(c.Virtual.Addr.Is4()) // the virtual address is ours by a mark rule to a network
	}
	lo, hi := classOf(c.Client.Port)
	var port uint16
	if c.Rule, port = f.mapPort(own, &c.Client, c.Proto, lo, hi, f.place.locals()); c.Rule == 0 {
		return false
	}
	c.Flags |= conntrack.FullNAT
	c.Local = conntrack.Endpoint{Addr: f.snap.own.entries[own].addr, Port: port}
	return true
}

func (f *Forwarder) giveBack(c *conntrack.Conn) {
	if c.Rule != 0 {
		f.mapper.release(c.Rule)
	}
}

// firstOutbound: to an address that is not ours. It is our business if a SNAT
// rule covers its source, or if it is a real server's.
func (f *Forwarder) firstOutbound(p *Packet, h *parsed) Verdict {
	if c := f.once(&h.tuple); c != nil {
		return f.answerOnce(p, h, c)
	}
	if slices.Contains(f.snap.host, h.tuple.Dst.Addr) {
		return Verdict{Action: Pass} // for the host's own sockets: checks of servers, for one
	}
	rule := f.snap.snatFor(&h.tuple.Src.Addr)
	if rule == nil {
		if h.kind != kindEcho && f.snap.endpoint.holds(&h.tuple.Src, h.tuple.Proto) {
			return f.stray(p, h)
		}
		return Verdict{Action: Pass}
	}
	if !forwardable(&h.tuple.Dst.Addr) {
		return Verdict{Action: Pass}
	}
	back := f.hops.lookup(&f.snap.routes, &h.tuple.Src.Addr)
	if back.port != p.In {
		return drop(ReasonSpoofed)
	}
	to := f.hops.lookup(&f.snap.routes, &h.tuple.Dst.Addr)
	if to.broadcast || to.link != 0 && to.link == back.link {
		return Verdict{Action: Pass} // neighbours on one link need no director
	}
	switch h.kind {
	case kindTCP:
		if !h.opens() || h.flags&flagACK != 0 {
			return f.stray(p, h)
		}
	case kindSCTP:
		if !h.opens() {
			return f.stray(p, h)
		}
	case kindEcho:
		if !h.echoRequest() {
			return drop(ReasonNoConn)
		}
	}
	if h.ttl <= 1 {
		return f.timeExceeded(p, h)
	}
	if to.port == NoPort {
		return f.unreachable(p, h, unreachable(icmpHostUnreachable), ReasonNoRoute)
	}
	return f.masquerade(p, h, rule)
}

// stray: a packet of a connection that is not in the table, from inside. It
// never leaves with its private address, as it does with IPVS; its sender is
// told that the connection is over: with a RST, or if NATICMPSend is set and it
// is a real server, with ICMP.
func (f *Forwarder) stray(p *Packet, h *parsed) Verdict {
	if h.kind == kindTCP && h.illegalFlags() {
		return drop(ReasonStray)
	}
	if f.snap.settings.NATICMPSend && !h.ends() && f.snap.endpoint.holds(&h.tuple.Src, h.tuple.Proto) {
		return f.unreachable(p, h, unreachable(icmpPortUnreachable), ReasonStray)
	}
	if !h.hasStates() {
		return drop(ReasonStray)
	}
	return f.refuse(p, h, ReasonStray)
}

// masquerade makes the entry of a connection opened from inside under a SNAT
// rule, and sends its first packet.
func (f *Forwarder) masquerade(p *Packet, h *parsed, rule *snatRule) Verdict {
	if rule.own < 0 || f.pools[rule.own] < 0 {
		return drop(ReasonNoPort)
	}
	lo, hi := classOf(h.tuple.Src.Port)
	if h.kind == kindEcho {
		lo, hi = 1, 65535
	}
	if rule.max != 0 {
		lo, hi = rule.min, rule.max
	}
	m, port := f.mapPort(rule.own, &h.tuple.Src, h.tuple.Proto, lo, hi, anyPort)
	if m == 0 {
		return f.unreachable(p, h, unreachable(icmpHostUnreachable), ReasonNoPort)
	}
	f.spec = conntrack.Conn{
		Client: h.tuple.Dst, Dest: h.tuple.Src, Proto: h.tuple.Proto,
		Virtual: conntrack.Endpoint{Addr: rule.to, Port: port},
		Flags:   conntrack.SNAT, Server: conntrack.NoSlot, Rule: m,
		HopPort: NoPort, InsidePort: p.In,
	}
	c := &f.spec
	switch h.kind {
	case kindUDP:
		c.State = conntrack.UDP
	case kindEcho:
		c.State = conntrack.ICMP
	}
	way := f.way(c, conntrack.Outbound)
	if v, ok := f.fits(p, h, &way); !ok {
		f.giveBack(c)
		return v
	}
	c, outcome := f.table.Insert(c, f.now, lifeOf)
	switch outcome {
	case conntrack.Inserted:
	case conntrack.Full:
		f.giveBack(&f.spec)
		return drop(ReasonTableFull)
	default:
		f.giveBack(&f.spec)
		return drop(ReasonClash)
	}
	f.counters.snat.Conns++
	f.begin(h, c, conntrack.Outbound)
	f.count(c, conntrack.Outbound, len(p.Data))
	return f.send(p, h, c, conntrack.Outbound, &way)
}

// forwardable reports whether packets to a go through a router at all.
func forwardable(a *conntrack.Addr) bool {
	if a.Is4() {
		return a[12] != 0 && a[12] != 127 && a[12] < 224
	}
	return a[0] != 0xff && !(a[0] == 0xfe && a[1]&0xc0 == 0x80)
}
