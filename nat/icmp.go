// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// The packets that we make ourselves. Builders write into memory that the
// caller lends, allocate nothing and return the length of what they wrote,
// zero if nothing may be answered. Field values are those of the kernel's own
// answers, so that nobody sees a difference.

const (
	// maxErrorLen is the room that an ICMP error of either family takes, IP
	// header included (RFC 4443 section 2.4).
	maxErrorLen = ipv6MinMTU
	// ipv4ErrorLen is the longest of IPv4 (RFC 1812 section 4.3.2.3).
	ipv4ErrorLen = 576
	// resetLen is the room that a TCP reset of either family takes, IP header
	// included.
	resetLen = ipv6HeaderLen + tcpHeaderLen

	// generatedTTL is the time to live of what we send ourselves.
	generatedTTL = 64
	// internetworkControl is the precedence of ICMP errors (RFC 1812 section
	// 4.3.2.5).
	internetworkControl uint8 = 0xc0
	// tosMask are the bits of the type of service that an error takes over
	// from the packet it is about; ECN is not among them.
	tosMask uint8 = 0x1c
)

// icmpError is what an ICMP error says, in the numbers of ICMP.
type icmpError struct {
	kind, code uint8
	rest       uint32 // the second word of the header
}

// unreachable has one of the codes of icmpUnreachable.
func unreachable(code uint8) icmpError { return icmpError{kind: icmpUnreachable, code: code} }

func timeExceeded() icmpError { return icmpError{kind: icmpTimeExceeded} }

// fragNeeded says that a packet that must not be cut is larger than mtu, the
// MTU of the way out in bytes (RFC 1191 section 4).
func fragNeeded(mtu int) icmpError {
	return icmpError{kind: icmpUnreachable, code: icmpFragNeeded, rest: uint32(uint16(mtu))}
}

// in6 says the same in the numbers of ICMPv6 (RFC 4443 section 3; the table is
// that of RFC 7915 section 4.2).
func (e icmpError) in6() icmpError {
	switch {
	case e.kind == icmpTimeExceeded:
		return icmpError{kind: icmpv6TimeExceeded}
	case e.code == icmpFragNeeded:
		return icmpError{kind: icmpv6PacketTooBig, rest: e.rest}
	case e.code == icmpPortUnreachable:
		return icmpError{kind: icmpv6Unreachable, code: icmpv6PortUnreachable}
	case e.code == icmpHostUnreachable:
		return icmpError{kind: icmpv6Unreachable, code: icmpv6AddressUnreachable}
	}
	return icmpError{kind: icmpv6Unreachable, code: icmpv6NoRoute}
}

// mayAnswer tells whether an error about the packet, or a reset, may be sent at
// all: never about an ICMP error, about a fragment other than the first, or
// about what went to or came from more than one host (RFC 1122 section 3.2.2,
// RFC 4443 section 2.4). The caller knows the directed broadcasts and the
// frame's link address.
func (p *parsed) mayAnswer() bool {
	if p.kind == kindICMPError || p.fragOffset != 0 {
		return false
	}
	return routable(&p.tuple.Src.Addr) && routable(&p.tuple.Dst.Addr)
}

// buildICMPError writes the error e about packet into b, which holds at least
// maxErrorLen bytes and does not overlap packet. The error goes to the source
// of packet, as src, an address of the same family; id is the IP identification
// where there is one. The quotation is of packet as its bytes are now, cut to
// fit; a partial checksum in it is completed, for the receiver knows only full
// ones.
func buildICMPError(b []byte, e icmpError, src *conntrack.Addr, id uint16, packet *Packet) int {
	about := ipHeader(packet.Data)
	l4, longest := ipv4HeaderLen, ipv4ErrorLen
	if about.is6() {
		l4, longest, e = ipv6HeaderLen, maxErrorLen, e.in6()
	}
	quote := b[l4+icmpHeaderLen : longest]
	quote = quote[:copy(quote, packet.Data)]
	b = b[:l4+icmpHeaderLen+len(quote)]

	if o := &packet.Offload; o.NeedsChecksum {
		start, field := int(o.ChecksumStart), int(o.ChecksumStart)+int(o.ChecksumOffset)
		if start <= len(packet.Data) && field+2 <= len(quote) {
			check := nonZero(^fold(sum(packet.Data[start:], 0)))
			binary.BigEndian.PutUint16(quote[field:], check)
		}
	}

	m := icmpHeader(b[l4:])
	m.setType(e.kind)
	m.setCode(e.code)
	m.setRest(e.rest)
	dst := about.src()
	if about.is6() {
		writeIPv6(b, protoICMPv6, src, &dst)
	} else {
		writeIPv4(b, protoICMP, src, &dst, id, 0, ipv4Header(about).tos()&tosMask|internetworkControl)
	}
	ipHeader(b).computeICMPChecksum(l4)
	return len(b)
}

// writeIPv4 writes a header without options in front of what b already holds
// behind it. fragment is the word of flags and offset.
func writeIPv4(b []byte, proto uint8, src, dst *conntrack.Addr, id, fragment uint16, tos uint8) {
	h := ipv4Header(b)
	h.setVersionAndLen(ipv4HeaderLen)
	h.setTOS(tos)
	h.setTotalLen(len(b))
	h.setID(id)
	h.setFragment(fragment)
	h.setTTL(generatedTTL)
	h.setProto(proto)
	h.setSrc(src)
	h.setDst(dst)
	h.computeChecksum()
}

// writeIPv6 is writeIPv4 for IPv6. There is no identification and no class, and
// the flow label says that there is no flow.
func writeIPv6(b []byte, proto uint8, src, dst *conntrack.Addr) {
	h := ipv6Header(b)
	h.setVersion()
	h.setPayloadLen(len(b) - ipv6HeaderLen)
	h.setNextHeader(proto)
	h.setHopLimit(generatedTTL)
	h.setSrc(src)
	h.setDst(dst)
}

// makeEchoReply turns the echo request in data, parsed as p, into its reply:
// addresses exchanged, type changed, everything the sender wrote kept (RFC 792).
// id is the IP identification of the reply, where there is one. The first fragment of a request
// keeps its own: with the addresses of the others exchanged too, the reply is
// whole. It reports false, and changes nothing, if the packet is no request.
func makeEchoReply(data []byte, p *parsed, id uint16) bool {
	if p.kind != kindEcho || !p.echoRequest() || !p.mayAnswer() {
		return false
	}
	m := icmpHeader(data[p.l4:])
	old := binary.BigEndian.Uint16(m[0:2])
	if p.proto == protoICMPv6 {
		h := ipv6Header(data)
		h.setSrc(&p.tuple.Dst.Addr)
		h.setDst(&p.tuple.Src.Addr)
		h.setHopLimit(generatedTTL)
		m.setType(icmpv6EchoReply)
	} else {
		h := ipv4Header(data)
		h.setSrc(&p.tuple.Dst.Addr)
		h.setDst(&p.tuple.Src.Addr)
		h.setTTL(generatedTTL)
		if !p.isFragment() {
			h.setID(id)
			h.setFragment(0)
		}
		h.computeChecksum()
		m.setType(icmpEchoReply)
	}
	// A wrong checksum stays wrong, so that a damaged request is not answered
	// with a good reply. The pseudo-header of ICMPv6 has the same sum with the
	// addresses exchanged.
	m.setChecksum(update16(m.checksum(), old, binary.BigEndian.Uint16(m[0:2])))
	return true
}

// buildReset writes the reset that answers the TCP segment p when there is no
// connection for it (RFC 9293 section 3.10.7.1): with the sequence number that
// the segment acknowledges, or if it acknowledges none, acknowledging all of
// the segment. A reset is never answered. b holds at least resetLen bytes.
func buildReset(b []byte, p *parsed) int {
	if p.kind != kindTCP || p.flags&flagRST != 0 || p.isFragment() || !p.mayAnswer() {
		return 0
	}
	if p.flags&flagACK != 0 {
		return buildResetSegment(b, &p.tuple.Dst, &p.tuple.Src, p.ack, 0, flagRST)
	}
	length := uint32(p.payload)
	if p.flags&flagSYN != 0 {
		length++
	}
	if p.flags&flagFIN != 0 {
		length++
	}
	return buildResetSegment(b, &p.tuple.Dst, &p.tuple.Src, 0, p.seq+length, flagRST|flagACK)
}

// buildResetSegment writes a reset from src to dst with these numbers. flags
// is flagRST, with flagACK if ack counts. b holds at least resetLen bytes.
func buildResetSegment(b []byte, src, dst *conntrack.Endpoint, seq, ack uint32, flags uint8) int {
	l4 := ipv6HeaderLen
	if src.Addr.Is4() {
		l4 = ipv4HeaderLen
	}
	b = b[:l4+tcpHeaderLen]
	clear(b)
	t := tcpHeader(b[l4:])
	t.setSrcPort(src.Port)
	t.setDstPort(dst.Port)
	t.setSeq(seq)
	t.setAck(ack)
	t.setHeaderLen(tcpHeaderLen)
	t.setFlags(flags)
	t.setChecksum(transportChecksum(&src.Addr, &dst.Addr, protoTCP, t))
	if src.Addr.Is4() {
		writeIPv4(b, protoTCP, &src.Addr, &dst.Addr, 0, ipv4DontFragment, 0)
	} else {
		writeIPv6(b, protoTCP, &src.Addr, &dst.Addr)
	}
	return len(b)
}
