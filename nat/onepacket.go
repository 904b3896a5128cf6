// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// One-packet scheduling: each datagram of the service is given a server for
// itself, and no entry is made that the next could find. It counts as a
// connection that is over at once.
//
// IPVS lets the answers out with the server's address. Here they are
// translated. Whose answer a datagram of a server is follows from the endpoint
// that it comes from, if only one service has that endpoint: nothing has to be
// remembered then, and the answer goes by the routes. Otherwise an entry is kept
// that answers alone find (conntrack.OnePacket), one for each client endpoint and
// server, not for each datagram; it is never held, so that it makes room first:
//
//	the server is one of several services, or of all ports, or of a mark
//	the client is on the server's link and appears with an address of ours
//	the routes do not lead back to where the client's packets come from
//
// What a server sends from the port of such a service on its own account is
// taken for an answer too. Answers are not counted, as IPVS does not.

// scheduleOnce sends a datagram to the server of f.spec, which connect has filled
// in, w being the way there. straight says that the routes lead back to the client
// the way it came. It reports a clash if the answers would be ambiguous.
func (f *Forwarder) scheduleOnce(p *Packet, h *parsed, service uint32, t *conntrack.Conn, w *way, straight bool) (v Verdict, clash bool) {
	c, svc, server := &f.spec, &f.snap.service[service], f.spec.Server
	s := &f.snap.server[server]
	if c.Flags&conntrack.InputOnly == 0 && (c.Flags&conntrack.FullNAT != 0 || !straight || !s.once) {
		if r := f.expectAnswers(c); r != ReasonNone {
			return drop(r), r == ReasonClash
		}
	}
	if svc.persist.life > 0 {
		if t == nil {
			if t = f.newTemplate(svc, server); t == nil {
				return drop(ReasonTableFull), false
			}
		}
		f.table.Restart(t, f.now)
	}
	s.server.ConnOpened()
	s.server.ConnClosedInactive()
	f.counters.opened(service, server)
	if h.kind == kindICMPError {
		return f.passOn(p, &f.parsed, c, conntrack.Inbound), false
	}
	f.counted = counted{server: server, dir: conntrack.Inbound}
	f.add(server, conntrack.Inbound, 1, len(p.Data))
	return f.send(p, h, c, conntrack.Inbound, w), false
}

// expectAnswers has the answers to a datagram find their way back by an entry. It
// is none of the server's, which may be forgotten meanwhile.
func (f *Forwarder) expectAnswers(c *conntrack.Conn) Reason {
	c.Flags |= conntrack.OnePacket
	c.Server = conntrack.NoSlot
	life := f.life(c, conntrack.UDP)
	n, outcome := f.table.Insert(c, f.now, time.Duration(life))
	switch {
	case outcome == conntrack.Inserted:
		return ReasonNone
	case outcome == conntrack.Clash && n != nil && n.Flags&conntrack.OnePacket != 0:
		// The last service that the client asked is the one that is answered for.
		f.giveBack(c)
		n.Virtual = c.Virtual
		n.Hop, n.HopPort, n.InsidePort = c.Hop, c.HopPort, c.InsidePort
		f.table.SetDeadline(n, f.now+life)
		return ReasonNone
	}
	f.giveBack(c)
	if outcome == conntrack.Full {
		return ReasonTableFull
	}
	return ReasonClash
}

// once returns what an entry would be of which t is an answer, if t is sent by a
// server of a service with one-packet scheduling that needs none; else nil. It
// lies in f.spec.
func (f *Forwarder) once(t *conntrack.Tuple) *conntrack.Conn {
	if len(f.snap.once.slot) == 0 || t.Proto != protoUDP {
		return nil
	}
	service := f.snap.once.find(&serviceKey{t.Src, t.Proto})
	if service < 0 {
		return nil
	}
	f.spec = conntrack.Conn{
		Client: t.Dst, Virtual: f.snap.service[service].key.Endpoint, Dest: t.Src, Proto: t.Proto,
		State: conntrack.UDP, Flags: conntrack.OnePacket, Server: conntrack.NoSlot,
		HopPort: NoPort, InsidePort: f.hops.lookup(&f.snap.routes, &t.Src.Addr).port,
	}
	return &f.spec
}

// answerOnce translates an answer that needs no entry; c is from once.
func (f *Forwarder) answerOnce(p *Packet, h *parsed, c *conntrack.Conn) Verdict {
	if p.In != c.InsidePort {
		return drop(ReasonSpoofed)
	}
	if h.ttl <= 1 {
		return f.timeExceeded(p, h)
	}
	way := f.way(c, conntrack.Outbound)
	if v, ok := f.fits(p, h, &way); !ok {
		return v
	}
	f.count(c, conntrack.Outbound, len(p.Data))
	return f.send(p, h, c, conntrack.Outbound, &way)
}

// publishOnce says of each server whether its answers tell by their source alone
// which service with one-packet scheduling they are of.
func (r *Rules) publishOnce(s *snapshot) {
	type place struct {
		proto uint8
		addr  netip.AddrPort
	}
	users := make(map[place]ServiceKey)
	shared := make(map[place]bool)
	for _, d := range r.servers.all {
		if d == nil {
			continue
		}
		at := place{d.key.Proto, netip.AddrPortFrom(d.Addr, d.Port)}
		if d.anyPort() {
			at.addr = netip.AddrPortFrom(d.Addr, 0)
		}
		if user, ok := users[at]; ok && user != d.key {
			shared[at] = true
		}
		users[at] = d.key
	}
	takesAll := func(addr netip.Addr) bool { // a server at any port, for the packets of a mark too
		for _, proto := range []uint8{0, ProtoUDP} {
			if _, ok := users[place{proto, netip.AddrPortFrom(addr, 0)}]; ok {
				return true
			}
		}
		return false
	}
	for i, d := range r.servers.all {
		if d == nil || d.service.deleted || !d.replies || !d.service.OnePacket || d.Method != Masquerade || d.key.Port == 0 || d.anyPort() {
			continue
		}
		at := netip.AddrPortFrom(d.Addr, d.Port)
		if _, marked := users[place{0, at}]; marked || shared[place{ProtoUDP, at}] || takesAll(d.Addr) {
			continue
		}
		if len(s.once.slot) == 0 {
			s.once = emptyServiceTable(len(r.servers.all))
		}
		s.once.put(serviceKey{s.server[i].dest, ProtoUDP}, int32(d.service.slot))
		s.server[i].once = true
	}
}
