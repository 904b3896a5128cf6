// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Polite ends. A connection that ends here while both ends think that it lives
// would leave them waiting, for hours or for ever. They are told:
//
//	TCP   a RST to each, with the number that its receiver waits for. One that has
//	      missed a segment answers with a challenge (RFC 5961 section 3.2), to a
//	      connection that is not there any more, and gets the right one for that
//	SCTP  an ABORT to each, with the tag that its receiver asks for
//	UDP   ICMP port unreachable to the client, about a datagram as it would send it.
//	      Only if its server is gone: after a pause its next datagram opens a new
//	      entry, and an error would spoil that
//
// It is done for connections that time out (Settings.ResetOnExpiry) and for those
// of deleted servers (gone.go), at most farewells a second, beside the limit of
// Settings.ICMPRate: what is told here is not an answer, so that nobody can call
// forth more of it than there were connections. Of what times out beyond that
// nobody is told, which is counted; the visit of a deleted server's waits.
const farewells = 20_000

// unfinished tells whether the ends of a connection in state s have something
// left to say to each other: it is open, in one direction at least.
func unfinished(s conntrack.State) bool {
	return s == conntrack.Established || s == conntrack.FinWait || s == conntrack.CloseWait || s == conntrack.SCTPEstablished
}

// expired is told of entries whose time was over, when they are gone already.
func (f *Forwarder) expired(c *conntrack.Conn) {
	if !unfinished(c.State) {
		return
	}
	f.counters.expiredOpen++
	if !f.snap.settings.ResetOnExpiry {
		return
	}
	if !f.mayTell() {
		f.counters.suppressed[ReasonRateLimit] += 2
		return
	}
	f.tell(c)
}

// mayTell reports whether both ends of a connection may be told that it is over.
func (f *Forwarder) mayTell() bool {
	return f.farewells.has(f.now, 2) && f.outbox.fits(2, maxErrorLen)
}

// tell tells the ends of a connection that it is over.
func (f *Forwarder) tell(c *conntrack.Conn) {
	if c.Proto == ProtoUDP {
		f.refuseClient(c)
		return
	}
	f.tellEnd(c, conntrack.Outbound)
	f.tellEnd(c, conntrack.Inbound)
}

// tellEnd ends a connection in the name of sender: Outbound, towards the client. The
// packet is made as sender would have made it, and goes the way of its packets.
func (f *Forwarder) tellEnd(c *conntrack.Conn, sender conntrack.Direction) {
	way := f.way(c, sender)
	if way.port == NoPort {
		return
	}
	b := f.reserve(&f.farewells, maxErrorLen)
	if b == nil {
		return
	}
	p := Packet{In: c.HopPort}
	src, dst := &c.Client, &c.Virtual
	if sender == conntrack.Outbound {
		p.In = c.InsidePort
		src, dst = &c.Dest, &c.Client
		switch {
		case c.Flags&conntrack.FullNAT != 0:
			dst = &c.Local
		case c.Flags&conntrack.InputOnly != 0:
			src = &c.Virtual
		}
	}
	p.Data = b[:buildEnd(b, c, sender, src, dst)]
	h := &f.said
	if h.parse(&p) != ReasonNone {
		return
	}
	f.countAnew(&p, h, c, sender)
	f.wrapping.on = false
	v := f.send(&p, h, c, sender, &way)
	if f.wrapping.on {
		f.wrap(&p, v, &f.wrapping)
	} else {
		f.outbox.put(len(p.Data), p, v)
	}
	f.counters.farewells++
}

// buildEnd writes what ends c in the name of sender: a RST, or an ABORT of SCTP
// (RFC 9260 section 3.3.7). Zero: too little was seen to be believed.
func buildEnd(b []byte, c *conntrack.Conn, sender conntrack.Direction, src, dst *conntrack.Endpoint) int {
	switch c.Proto {
	case ProtoTCP:
		seq, seqKnown := c.NextSeq(sender)
		ack, ackKnown := c.NextAck(sender)
		flags := uint8(flagRST)
		if ackKnown {
			flags |= flagACK
		}
		if seqKnown || ackKnown {
			return buildResetSegment(b, src, dst, seq, ack, flags)
		}
	case ProtoSCTP:
		if tag, known := c.Tag(sender); known {
			return buildChunk(b, src, dst, sctpAbort, 0, tag)
		}
	}
	return 0
}

// refuseClient tells the client of a UDP flow that nobody is there any more. The
// error quotes an empty datagram of the client's: what counts are its endpoints.
func (f *Forwarder) refuseClient(c *conntrack.Conn) {
	way := f.way(c, conntrack.Outbound)
	if way.port == NoPort {
		return
	}
	b := f.reserve(&f.farewells, maxErrorLen)
	if b == nil {
		return
	}
	about := Packet{Data: buildDatagram(f.empty[:], &c.Client, &c.Virtual)}
	n := buildICMPError(b, unreachable(icmpPortUnreachable), &c.Virtual.Addr, f.nextID(), &about)
	f.outbox.put(n, Packet{In: c.InsidePort}, way.verdict())
	f.counters.farewells++
}

// buildDatagram writes an empty datagram from src to dst and returns it. b holds
// at least an IPv6 header and one of UDP.
func buildDatagram(b []byte, src, dst *conntrack.Endpoint) []byte {
	l4 := ipv6HeaderLen
	if src.Addr.Is4() {
		l4 = ipv4HeaderLen
	}
	b = b[:l4+udpHeaderLen]
	clear(b)
	u := udpHeader(b[l4:])
	u.setSrcPort(src.Port)
	u.setDstPort(dst.Port)
	u.setLength(udpHeaderLen)
	u.setChecksum(transportChecksum(&src.Addr, &dst.Addr, protoUDP, u))
	if src.Addr.Is4() {
		writeIPv4(b, protoUDP, &src.Addr, &dst.Addr, 0, ipv4DontFragment, 0)
	} else {
		writeIPv6(b, protoUDP, &src.Addr, &dst.Addr)
	}
	return b
}
