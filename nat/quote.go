// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// minExtendedQuote is the least length of a quotation that extensions follow
// (RFC 4884 section 5.1), in bytes. A smaller number in its field is noise from
// before that RFC.
const minExtendedQuote = 128

// quoted is the packet that an ICMP error quotes, as far as it is there. Like
// parsed it holds offsets from the start of Packet.Data, no bytes.
type quoted struct {
	tuple conntrack.Tuple // as in the quoted packet: Src is who sent it
	kind  kind            // kindTCP, kindUDP, kindSCTP, kindEcho or kindOther

	at     int  // offset of the quoted IP header
	length int  // of the quoted packet when it was whole, bytes
	part   bool // it is the first fragment of a datagram
	l4     int  // offset of the quoted transport header, of which 8 bytes at least are there
	end    int  // offset behind the last quoted byte; padding and extensions (RFC 4884) follow it
	proto  uint8

	// checksumAt is the offset of the quoted transport checksum, zero if it
	// was cut off (TCP quoted with 8 bytes).
	checksumAt int
	// seq is the sequence number of a quoted TCP segment, for the judgement
	// of RFC 5927 section 4.
	seq uint32
	// tag is the verification tag of a quoted SCTP packet, and sctpLen its
	// length, zero if the checksum was cut off or covers more than one
	// fragment.
	tag     uint32
	sctpLen int
}

// parseQuote reads what the ICMP error pkt, parsed as p, quotes. ReasonNone
// means that the error may be translated if the quoted connection is known.
//
// The checksum of the message and that of the quoted IP header must be right,
// for the translation would otherwise repair them; the quoted transport
// checksum is not looked at, since it mostly covers what was cut (RFC 5508
// REQ-3). Errors about a later fragment or about an ICMP error are refused.
func (p *parsed) parseQuote(pkt *Packet, q *quoted) Reason {
	*q = quoted{}
	if !p.translated() {
		return ReasonICMPType
	}
	if p.isFragment() {
		return ReasonFragment // half a quotation cannot be verified
	}
	b := pkt.Data
	if ipHeader(b).icmpSum(p.l4) != 0xffff {
		return ReasonICMPChecksum
	}
	q.at = p.l4 + icmpHeaderLen
	if p.proto == protoICMPv6 && !q.readIPv6(b) || p.proto == protoICMP && !q.readIPv4(b) {
		return ReasonICMPQuote
	}
	if n := p.quoteLen(b); n >= minExtendedQuote {
		q.end = min(q.end, q.at+n)
	}
	if q.l4+8 > q.end || !q.readTransport(b) {
		return ReasonICMPQuote
	}
	return ReasonNone
}

// translated tells whether errors of this type are for the one who sent the
// quoted packet. An ICMP redirect and parameter problem speak to one hop; the
// parameter problem of ICMPv6 is what a host says to an unknown protocol.
func (p *parsed) translated() bool {
	if p.proto == protoICMPv6 {
		switch p.icmpType {
		case icmpv6Unreachable, icmpv6PacketTooBig, icmpv6TimeExceeded, icmpv6ParameterProblem:
			return true
		}
		return false
	}
	switch p.icmpType {
	case icmpUnreachable, icmpSourceQuench, icmpTimeExceeded:
		return true
	}
	return false
}

// quoteLen is the length of the quotation that an error says to have, in bytes,
// zero if it does not say (RFC 4884 sections 4.1, 4.2, 4.4 and 4.5).
func (p *parsed) quoteLen(b []byte) int {
	rest := b[p.l4+4 : p.l4+icmpHeaderLen]
	switch {
	case p.proto == protoICMP && p.icmpType != icmpSourceQuench:
		return int(rest[1]) * 4
	case p.proto == protoICMPv6 && (p.icmpType == icmpv6Unreachable || p.icmpType == icmpv6TimeExceeded):
		return int(rest[0]) * 8
	}
	return 0
}

// readIPv4 reads the header of a quoted IPv4 packet in b, up to the first byte
// of its transport header.
func (q *quoted) readIPv4(b []byte) bool {
	if len(b) < q.at+ipv4HeaderLen {
		return false
	}
	h := ipv4Header(b[q.at:])
	n := h.headerLen()
	q.l4 = q.at + n
	if h.version() != 4 || n < ipv4HeaderLen || len(b) < q.l4 ||
		h.fragment()&ipv4OffsetMask != 0 || !h.checksumOK() {
		return false
	}
	q.length, q.part = h.totalLen(), h.fragment()&ipv4MoreFragments != 0
	q.end = min(len(b), q.at+q.length)
	q.proto = h.proto()
	q.tuple.Src.Addr, q.tuple.Dst.Addr = h.src(), h.dst()
	return true
}

// readIPv6 is readIPv4 for IPv6, with the extension headers.
func (q *quoted) readIPv6(b []byte) bool {
	if len(b) < q.at+ipv6HeaderLen {
		return false
	}
	h := ipv6Header(b[q.at:])
	var c extensionChain
	if h[0]>>4 != 6 || c.walk(b[q.at:], false) != ReasonNone ||
		c.fragment != 0 && fragmentHeader(h[c.fragment:]).offset() != 0 {
		return false
	}
	q.l4 = q.at + c.end
	q.length = ipv6HeaderLen + h.payloadLen()
	q.part = c.fragment != 0 && fragmentHeader(h[c.fragment:]).more()
	q.end = min(len(b), q.at+q.length)
	q.proto = c.proto
	q.tuple.Src.Addr, q.tuple.Dst.Addr = h.src(), h.dst()
	return true
}

// readTransport reads the first 8 bytes of the quoted transport header in b.
func (q *quoted) readTransport(b []byte) bool {
	q.tuple.Proto = q.proto
	switch q.proto {
	case protoTCP:
		t := tcpHeader(b[q.l4:])
		q.kind, q.seq = kindTCP, t.seq()
		q.tuple.Src.Port, q.tuple.Dst.Port = t.srcPort(), t.dstPort()
		q.setChecksumAt(tcpChecksumOffset)
	case protoUDP:
		u := udpHeader(b[q.l4:])
		q.kind = kindUDP
		q.tuple.Src.Port, q.tuple.Dst.Port = u.srcPort(), u.dstPort()
		q.setChecksumAt(udpChecksumOffset)
	case protoSCTP:
		s := sctpHeader(b[q.l4:])
		q.kind, q.tag = kindSCTP, s.tag()
		q.tuple.Src.Port, q.tuple.Dst.Port = s.srcPort(), s.dstPort()
		if !q.part && q.l4+sctpHeaderLen <= q.end {
			q.sctpLen = q.at + q.length - q.l4
		}
	case protoICMP, protoICMPv6:
		i := icmpHeader(b[q.l4:])
		if icmpKind(q.proto, i.icmpType()) != kindEcho {
			return false
		}
		q.kind = kindEcho
		if i.echoRequest() {
			q.tuple.Src.Port = i.id()
		} else {
			q.tuple.Dst.Port = i.id()
		}
		q.setChecksumAt(icmpChecksumOffset)
	}
	return true
}

func (q *quoted) setChecksumAt(offset int) {
	if q.l4+offset+2 <= q.end {
		q.checksumAt = q.l4 + offset
	}
}
