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
	kind  kind            // kindTCP, kindUDP, kindEcho or kindOther

	at        int // offset of the quoted IP header
	headerLen int // of it, bytes
	l4        int // offset of the quoted transport header, of which 8 bytes at least are there
	end       int // offset behind the last quoted byte; padding and extensions (RFC 4884) follow it
	proto     uint8

	// checksumAt is the offset of the quoted transport checksum, zero if it
	// was cut off (TCP quoted with 8 bytes).
	checksumAt int
	// seq is the sequence number of a quoted TCP segment, for the judgement
	// of RFC 5927 section 4.
	seq uint32
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
	switch p.icmpType {
	case icmpUnreachable, icmpSourceQuench, icmpTimeExceeded:
	default:
		return ReasonICMPType // redirect and parameter problem speak to one hop
	}
	if p.isFragment() {
		return ReasonFragment // half a quotation cannot be verified
	}
	b := pkt.Data
	if fold(sum(b[p.l4:], 0)) != 0xffff {
		return ReasonICMPChecksum
	}

	q.at = p.l4 + icmpHeaderLen
	if len(b) < q.at+ipv4HeaderLen {
		return ReasonICMPQuote
	}
	h := ipv4Header(b[q.at:])
	q.headerLen = h.headerLen()
	q.l4 = q.at + q.headerLen
	if h.version() != 4 || q.headerLen < ipv4HeaderLen ||
		len(b) < q.l4+8 || h.totalLen() < q.headerLen+8 ||
		h.fragment()&ipv4OffsetMask != 0 || !h.checksumOK() {
		return ReasonICMPQuote
	}
	q.end = min(len(b), q.at+h.totalLen())
	if n := icmpHeader(b[p.l4:]).quoteLen(); n >= minExtendedQuote && p.icmpType != icmpSourceQuench {
		q.end = min(q.end, q.at+n)
	}

	q.proto = h.proto()
	q.tuple.Src.Addr, q.tuple.Dst.Addr, q.tuple.Proto = h.src(), h.dst(), q.proto
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
	case protoICMP:
		i := icmpHeader(b[q.l4:])
		switch i.icmpType() {
		case icmpEchoRequest:
			q.kind, q.tuple.Src.Port = kindEcho, i.id()
		case icmpEchoReply:
			q.kind, q.tuple.Dst.Port = kindEcho, i.id()
		default:
			return ReasonICMPQuote
		}
		q.setChecksumAt(icmpChecksumOffset)
	}
	return ReasonNone
}

func (q *quoted) setChecksumAt(offset int) {
	if q.l4+offset+2 <= q.end {
		q.checksumAt = q.l4 + offset
	}
}
