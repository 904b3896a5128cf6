// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// ICMP errors about packets that we rewrote (RFC 5508, 4;
// ip_vs_core.c, ip_vs_in_icmp and ip_vs_out_icmp).
//
// An error quotes the packet as we sent it. Exchanging the quoted source and
// destination gives the tuple of the answer, and with it the entry. Then the
// quotation is put back to what its sender wrote, and the outer addresses are
// those of the entry's other side. No error changes an entry.

// icmpError translates an ICMP error, or leaves it to the host if it is about
// none of our connections and to an address that the host has.
func (f *Forwarder) icmpError(p *Packet, h *parsed) Verdict {
	q := &f.quote
	if r := h.parseQuote(p, q); r != ReasonNone {
		return f.unrelated(h, r)
	}
	t := conntrack.Tuple{Src: q.tuple.Dst, Dst: q.tuple.Src, Proto: q.tuple.Proto}
	c, dir := f.lookup(&t, f.snap.own.find(&t.Dst.Addr))
	if c == nil {
		c, dir = f.once(&t), conntrack.Outbound
	}
	if c == nil {
		if v, ok := f.outerError(p, h, q); ok {
			return v
		}
		if f.place.n > 1 {
			if v, away := f.elsewhere(p, &t, f.snap.own.find(&t.Dst.Addr)); away {
				return v
			}
		}
		if f.snap.settings.ScheduleICMP && h.tuple.Dst.Addr == q.tuple.Src.Addr {
			if v, ok := f.firstError(p, h, &t); ok {
				return v
			}
		}
		if f.snap.endpoint.holds(&q.tuple.Dst, q.tuple.Proto) {
			return drop(ReasonICMPNoConn) // about a service's server: its address is not to be seen
		}
		return f.unrelated(h, ReasonICMPNoConn)
	}
	if c.Flags&conntrack.Shortcut != 0 {
		f.closeShortcut(c)
	}
	// The error must have been sent to whom the quoted packet names as its
	// sender; a real server's network speaks only through its own port.
	if h.tuple.Dst.Addr != q.tuple.Src.Addr {
		return drop(ReasonICMPQuote)
	}
	if dir == conntrack.Outbound && p.In != c.InsidePort {
		return drop(ReasonSpoofed)
	}
	// The quoted packet went the other way. A segment that was never sent is
	// no reason to believe the rest (RFC 5927, 4.1).
	// Neither is a packet with a tag that its sender does not use (RFC 9260,
	// 10); an INIT has none.
	if q.kind == kindTCP && !sent(c, dir.Other(), f.forSender(c, dir.Other(), q.seq)) ||
		q.kind == kindSCTP && q.tag != 0 && !c.HasTag(dir.Other(), q.tag, false) {
		return drop(ReasonICMPQuote)
	}
	return f.passOn(p, h, c, dir)
}

// firstError has an error about no connection, but of a service, open one as the
// client's first packet would, if ScheduleICMP is set: for flows whose entry is
// gone, or was another director's. The entry lives for 3 s unless the client says
// something itself. t is the tuple of the client's packets.
func (f *Forwarder) firstError(p *Packet, h *parsed, t *conntrack.Tuple) (v Verdict, ok bool) {
	service := f.marked(p, t, f.snap.own.find(&t.Dst.Addr))
	if service < 0 {
		service = f.snap.serviceOf(t)
	}
	if service < 0 {
		return v, false
	}
	asked := &f.said
	*asked = *h
	asked.tuple = *t
	return f.schedule(p, asked, uint32(service)), true
}

// passOn rewrites an error, which f.quote has the quotation of, and says where
// it goes.
func (f *Forwarder) passOn(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction) Verdict {
	q := &f.quote
	if h.ttl <= 1 {
		return drop(ReasonTTL)
	}
	w := f.way(c, dir)
	if w.port == NoPort {
		return drop(ReasonNoRoute)
	}
	if c.Flags&conntrack.InputOnly != 0 {
		return f.errorPastUs(p, h, c, &w)
	}
	if len(p.Data) > int(w.mtu) {
		if h.dontFragment {
			return drop(ReasonTooBig) // and never an error about an error
		}
		f.split = w.mtu
	}
	f.count(c, dir, len(p.Data))
	f.refusedByError(p, h, c, dir)

	ip := ipHeader(p.Data)
	f.takeHop(ip, w.port)
	quoted := ipHeader(p.Data[q.at:])
	var outer, inner delta
	if dir == conntrack.Inbound {
		ip.replaceDestination(&c.Dest.Addr, &outer)
		f.putBack(p, q, quoted, &c.Dest, nil, &inner)
		if c.Flags&conntrack.FullNAT != 0 {
			if h.tuple.Src.Addr == c.Client.Addr {
				ip.replaceSource(&c.Local.Addr, &outer)
			}
			f.putBack(p, q, quoted, nil, &c.Local, &inner)
		}
	} else {
		ip.replaceSource(&c.Virtual.Addr, &outer)
		f.putBack(p, q, quoted, nil, &c.Virtual, &inner)
		if c.Flags&conntrack.FullNAT != 0 {
			ip.replaceDestination(&c.Client.Addr, &outer)
			f.putBack(p, q, quoted, &c.Client, nil, &inner)
		}
	}
	f.unnumber(p.Data, q, c, dir.Other(), &inner)
	q.apply(p.Data, inner)
	ip.computeICMPChecksum(h.l4)
	return w.verdict()
}

// putBack replaces source or destination of the quoted packet.
func (f *Forwarder) putBack(p *Packet, q *quoted, ip ipHeader, src, dst *conntrack.Endpoint, d *delta) {
	l4 := p.Data[q.l4:]
	if src != nil {
		ip.replaceSource(&src.Addr, d)
		q.replacePort(l4, 0, src.Port, d)
	}
	if dst != nil {
		ip.replaceDestination(&dst.Addr, d)
		q.replacePort(l4, 2, dst.Port, d)
	}
}

// replacePort replaces a quoted port, at offset at of the transport header. An
// echo has one number for both sides; that of the side that is not ours is
// left out.
func (q *quoted) replacePort(l4 []byte, at int, port uint16, d *delta) {
	switch q.kind {
	case kindTCP, kindUDP:
		ports := tcpHeader(l4) // both protocols begin with the ports
		if at == 0 {
			ports.replaceSrcPort(port, d)
		} else {
			ports.replaceDstPort(port, d)
		}
	case kindSCTP:
		s := sctpHeader(l4)
		if at == 0 {
			s.replacePorts(port, s.dstPort(), q.sctpLen)
		} else {
			s.replacePorts(s.srcPort(), port, q.sctpLen)
		}
	case kindEcho:
		echo := icmpHeader(l4)
		if echo.echoRequest() == (at == 0) {
			echo.replaceEchoID(port, d)
		}
	}
}

// apply brings the quoted transport checksum up to date, if it was quoted.
func (q *quoted) apply(data []byte, d delta) {
	if q.checksumAt == 0 {
		return
	}
	switch q.kind {
	case kindTCP:
		tcpHeader(data[q.l4:]).apply(d)
	case kindUDP:
		udpHeader(data[q.l4:]).apply(d)
	case kindEcho:
		icmpHeader(data[q.l4:]).apply(q.proto, d)
	}
}

// sent reports whether seq may be the number of a segment that sender sent:
// not after the last one seen, nor longer ago than a window can be.
func sent(c *conntrack.Conn, sender conntrack.Direction, seq uint32) bool {
	w := &c.Window[sender]
	if w.Flags&conntrack.WindowSeen == 0 {
		return true
	}
	back := w.End - seq
	return back <= 1<<30
}

// unrelated is an error about no connection of ours.
func (f *Forwarder) unrelated(h *parsed, r Reason) Verdict {
	own := f.snap.own.find(&h.tuple.Dst.Addr)
	if own >= 0 && f.snap.own.entries[own].onHost || own < 0 && !f.snap.isInside(&h.tuple.Src.Addr) {
		return Verdict{Action: Pass}
	}
	return drop(r)
}
