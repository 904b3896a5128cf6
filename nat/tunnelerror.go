// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// ICMP errors about what we sent through a tunnel (ip_vs_core.c, ip_vs_in_icmp). A
// router between us and the server, or the server, quotes the outer packet, and if
// it quotes enough of it, the client's packet inside. The client is told what was
// said, as if we had said it; an MTU is remembered for the way to the server as
// well, since many routers quote too little to find a client by.

// outerError decides about an error that quotes no connection: q is what it quotes.
// It reports false if that is no packet of a tunnel.
func (f *Forwarder) outerError(p *Packet, h *parsed, q *quoted) (Verdict, bool) {
	t := f.snap.tunnelOf(&q.tuple, q.proto)
	if t == nil || h.tuple.Dst.Addr != t.src {
		return Verdict{}, false
	}
	e := errorIn4(h, p.Data)
	tooBig := e.kind == icmpUnreachable && e.code == icmpFragNeeded
	var inner quoted
	c, told := f.innerConn(p.Data, q, t, &inner)
	if c == nil && told && p.Hops < maxHops {
		if k := f.place.key.Of(&inner.tuple.Src.Addr, f.place.n); k != f.place.self {
			return elsewhere(k, maxHops), true
		}
	}
	if c != nil && inner.kind == kindTCP && !sent(c, conntrack.Inbound, inner.seq) {
		return drop(ReasonICMPQuote), true // never sent: believe nothing of it
	}
	if tooBig {
		f.common.paths.learn(&t.dst, e.rest, f.now)
		f.common.paths.follow(&f.paths, &f.lessons)
	}
	if c == nil || e.kind == icmpSourceQuench {
		return Verdict{Action: Hold}, true // nobody to be told, or nothing (RFC 6633)
	}
	about := p.Data[inner.at:inner.end]
	if tooBig {
		if !ipHeader(about).dontFragment() {
			return Verdict{Action: Hold}, true // the next one will be cut
		}
		e.rest = uint32(f.way(c, conntrack.Inbound).mtu)
		if ipHeader(about).is6() {
			e.rest = max(e.rest, ipv6MinMTU)
		}
	}
	f.tellClient(c, e, about, p.In)
	return Verdict{Action: Hold}, true
}

// innerConn finds the connection of the packet that a quoted outer one holds, and
// reads that into inner. nil if it is of no connection through t here, and not told if
// too little of it was quoted.
func (f *Forwarder) innerConn(b []byte, q *quoted, t *tunnel, inner *quoted) (c *conntrack.Conn, told bool) {
	six, ok := t.holds(b[q.l4:q.end], q.proto)
	inner.at = q.l4 + t.shim()
	if !ok || six && !inner.readIPv6(b) || !six && !inner.readIPv4(b) {
		return nil, false
	}
	inner.end = min(inner.end, q.end)
	if inner.l4+8 > inner.end || !inner.readTransport(b) {
		return nil, false
	}
	c, _ = f.table.Lookup(&inner.tuple, conntrack.DstOurs)
	if c == nil || c.Flags&conntrack.Tunnel == 0 || c.Dest.Addr != t.dst {
		return nil, true
	}
	return c, true
}

// holds tells the family of what the tunnel's own header b, as far as it was quoted,
// announces behind an IP header of the protocol proto.
func (t *tunnel) holds(b []byte, proto uint8) (six, ok bool) {
	if len(b) < t.shim() {
		return false, false
	}
	switch t.kind {
	case GRE:
		etherType := binary.BigEndian.Uint16(b[2:])
		return etherType == etherTypeIPv6, etherType == etherTypeIPv6 || etherType == etherTypeIPv4
	case GUE:
		proto = b[udpHeaderLen+1]
	}
	return proto == protoIPv6, proto == protoIPv6 || proto == protoIPv4
}

// errorIn4 is what an error says, in the numbers of ICMP.
func errorIn4(h *parsed, b []byte) icmpError {
	e := icmpError{kind: h.icmpType, code: h.icmpCode, rest: binary.BigEndian.Uint32(b[h.l4+4:])}
	if h.proto == protoICMP {
		if e.code == icmpFragNeeded && e.kind == icmpUnreachable {
			e.rest &= 0xffff
		} else {
			e.rest = 0
		}
		return e
	}
	switch h.icmpType {
	case icmpv6PacketTooBig:
		return icmpError{kind: icmpUnreachable, code: icmpFragNeeded, rest: e.rest}
	case icmpv6TimeExceeded:
		return timeExceeded()
	case icmpv6ParameterProblem:
		return unreachable(icmpProtoUnreachable)
	}
	switch h.icmpCode {
	case icmpv6PortUnreachable:
		return unreachable(icmpPortUnreachable)
	case icmpv6NoRoute:
		return unreachable(icmpNetUnreachable)
	}
	return unreachable(icmpHostUnreachable)
}
