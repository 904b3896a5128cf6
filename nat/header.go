// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// The types below are views over the bytes of a packet, from the first byte of
// their header on. They own nothing and check nothing: parse has made sure
// that the whole header is there. Plain setters leave every checksum alone and
// are for packets under construction; replace… methods keep the checksum of
// their own header right and note in a delta what the transport checksum needs.

// Protocol numbers of the IP header.
const (
	protoICMP uint8 = 1
	protoTCP  uint8 = 6
	protoUDP  uint8 = 17
	protoSCTP uint8 = 132
)

// Header lengths without options, in bytes.
const (
	ipv4HeaderLen    = 20
	ipv4MaxHeaderLen = 60
	ipv4MaxLen       = 65535
	tcpHeaderLen     = 20
	udpHeaderLen     = 8
	icmpHeaderLen    = 8
)

// Offsets of the checksum field from the start of the transport header.
const (
	tcpChecksumOffset  = 16
	udpChecksumOffset  = 6
	icmpChecksumOffset = 2
)

// Bits of the IPv4 flags and fragment offset word.
const (
	ipv4DontFragment  uint16 = 0x4000
	ipv4MoreFragments uint16 = 0x2000
	ipv4OffsetMask    uint16 = 0x1fff // in units of 8 bytes
)

// ipv4Header is an IPv4 header (RFC 791 section 3.1).
type ipv4Header []byte

func (h ipv4Header) version() int        { return int(h[0] >> 4) }
func (h ipv4Header) headerLen() int      { return int(h[0]&0x0f) * 4 } // bytes, options included
func (h ipv4Header) tos() uint8          { return h[1] }
func (h ipv4Header) totalLen() int       { return int(binary.BigEndian.Uint16(h[2:4])) }
func (h ipv4Header) id() uint16          { return binary.BigEndian.Uint16(h[4:6]) }
func (h ipv4Header) fragment() uint16    { return binary.BigEndian.Uint16(h[6:8]) } // flags and offset as on the wire
func (h ipv4Header) ttl() uint8          { return h[8] }
func (h ipv4Header) proto() uint8        { return h[9] }
func (h ipv4Header) checksum() uint16    { return binary.BigEndian.Uint16(h[10:12]) }
func (h ipv4Header) src() conntrack.Addr { return mapped(h[12:16]) }
func (h ipv4Header) dst() conntrack.Addr { return mapped(h[16:20]) }
func (h ipv4Header) options() []byte     { return h[ipv4HeaderLen:h.headerLen()] }

func (h ipv4Header) setVersionAndLen(headerLen int) { h[0] = 4<<4 | uint8(headerLen/4) }
func (h ipv4Header) setTOS(v uint8)                 { h[1] = v }
func (h ipv4Header) setTotalLen(v int)              { binary.BigEndian.PutUint16(h[2:4], uint16(v)) }
func (h ipv4Header) setID(v uint16)                 { binary.BigEndian.PutUint16(h[4:6], v) }
func (h ipv4Header) setFragment(v uint16)           { binary.BigEndian.PutUint16(h[6:8], v) }
func (h ipv4Header) setTTL(v uint8)                 { h[8] = v }
func (h ipv4Header) setProto(v uint8)               { h[9] = v }
func (h ipv4Header) setChecksum(v uint16)           { binary.BigEndian.PutUint16(h[10:12], v) }
func (h ipv4Header) setSrc(a *conntrack.Addr)       { copy(h[12:16], a[12:16]) }
func (h ipv4Header) setDst(a *conntrack.Addr)       { copy(h[16:20], a[12:16]) }

// mapped returns an IPv4 address in its 16-byte form ::ffff:a.b.c.d.
func mapped(b []byte) conntrack.Addr {
	return conntrack.Addr{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
}

// checksumOK verifies the header checksum.
func (h ipv4Header) checksumOK() bool {
	s := uint64(binary.BigEndian.Uint32(h[0:4])) + uint64(binary.BigEndian.Uint32(h[4:8])) +
		uint64(binary.BigEndian.Uint32(h[8:12])) + uint64(binary.BigEndian.Uint32(h[12:16])) +
		uint64(binary.BigEndian.Uint32(h[16:20]))
	s = s>>32 + s&0xffffffff
	w := uint32(s>>16 + s&0xffff)
	if n := h.headerLen(); n > ipv4HeaderLen {
		w = sum(h[ipv4HeaderLen:n], w)
	}
	return fold(w) == 0xffff
}

// computeChecksum writes the header checksum anew.
func (h ipv4Header) computeChecksum() {
	h.setChecksum(0)
	h.setChecksum(^fold(sum(h[:h.headerLen()], 0)))
}

// decrementTTL takes one hop off a time to live that is not zero.
func (h ipv4Header) decrementTTL() {
	old := binary.BigEndian.Uint16(h[8:10])
	h[8]--
	h.setChecksum(update16(h.checksum(), old, old-0x100))
}

// replaceSource writes the source address, keeps the header checksum, and
// notes the change for the transport checksum.
func (h ipv4Header) replaceSource(a *conntrack.Addr, d *delta) { h.replaceAddress(12, a, d) }

// replaceDestination is replaceSource for the destination address.
func (h ipv4Header) replaceDestination(a *conntrack.Addr, d *delta) { h.replaceAddress(16, a, d) }

func (h ipv4Header) replaceAddress(at int, a *conntrack.Addr, d *delta) {
	var change delta
	change.replaceIPv4(binary.BigEndian.Uint32(h[at:at+4]), binary.BigEndian.Uint32(a[12:16]))
	copy(h[at:at+4], a[12:16])
	h.setChecksum(change.applyFull(h.checksum()))
	d.addrs += change.addrs
}

// Bits of the TCP flags byte (RFC 9293 section 3.1).
const (
	flagFIN uint8 = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

// tcpHeader is a TCP header (RFC 9293 section 3.1).
type tcpHeader []byte

func (h tcpHeader) srcPort() uint16  { return binary.BigEndian.Uint16(h[0:2]) }
func (h tcpHeader) dstPort() uint16  { return binary.BigEndian.Uint16(h[2:4]) }
func (h tcpHeader) seq() uint32      { return binary.BigEndian.Uint32(h[4:8]) }
func (h tcpHeader) ack() uint32      { return binary.BigEndian.Uint32(h[8:12]) }
func (h tcpHeader) headerLen() int   { return int(h[12]>>4) * 4 } // bytes, options included
func (h tcpHeader) flags() uint8     { return h[13] }
func (h tcpHeader) window() uint16   { return binary.BigEndian.Uint16(h[14:16]) } // not scaled
func (h tcpHeader) checksum() uint16 { return binary.BigEndian.Uint16(h[16:18]) }
func (h tcpHeader) options() []byte  { return h[tcpHeaderLen:h.headerLen()] }

func (h tcpHeader) setSrcPort(v uint16)  { binary.BigEndian.PutUint16(h[0:2], v) }
func (h tcpHeader) setDstPort(v uint16)  { binary.BigEndian.PutUint16(h[2:4], v) }
func (h tcpHeader) setSeq(v uint32)      { binary.BigEndian.PutUint32(h[4:8], v) }
func (h tcpHeader) setAck(v uint32)      { binary.BigEndian.PutUint32(h[8:12], v) }
func (h tcpHeader) setHeaderLen(n int)   { h[12] = uint8(n/4) << 4 }
func (h tcpHeader) setFlags(v uint8)     { h[13] = v }
func (h tcpHeader) setChecksum(v uint16) { binary.BigEndian.PutUint16(h[16:18], v) }

// replaceSrcPort writes the source port and notes the change.
func (h tcpHeader) replaceSrcPort(port uint16, d *delta) {
	d.replacePort(h.srcPort(), port)
	h.setSrcPort(port)
}

// replaceDstPort writes the destination port and notes the change.
func (h tcpHeader) replaceDstPort(port uint16, d *delta) {
	d.replacePort(h.dstPort(), port)
	h.setDstPort(port)
}

// apply brings a full checksum up to date with d.
func (h tcpHeader) apply(d delta) { h.setChecksum(d.applyFull(h.checksum())) }

// applyPartial brings a partial checksum up to date with d.
func (h tcpHeader) applyPartial(d delta) { h.setChecksum(d.applyPartial(h.checksum())) }

// udpHeader is a UDP header (RFC 768).
type udpHeader []byte

func (h udpHeader) srcPort() uint16  { return binary.BigEndian.Uint16(h[0:2]) }
func (h udpHeader) dstPort() uint16  { return binary.BigEndian.Uint16(h[2:4]) }
func (h udpHeader) length() int      { return int(binary.BigEndian.Uint16(h[4:6])) } // bytes, header included
func (h udpHeader) checksum() uint16 { return binary.BigEndian.Uint16(h[6:8]) }

func (h udpHeader) setSrcPort(v uint16)  { binary.BigEndian.PutUint16(h[0:2], v) }
func (h udpHeader) setDstPort(v uint16)  { binary.BigEndian.PutUint16(h[2:4], v) }
func (h udpHeader) setLength(n int)      { binary.BigEndian.PutUint16(h[4:6], uint16(n)) }
func (h udpHeader) setChecksum(v uint16) { binary.BigEndian.PutUint16(h[6:8], v) }

// replaceSrcPort writes the source port and notes the change.
func (h udpHeader) replaceSrcPort(port uint16, d *delta) {
	d.replacePort(h.srcPort(), port)
	h.setSrcPort(port)
}

// replaceDstPort writes the destination port and notes the change.
func (h udpHeader) replaceDstPort(port uint16, d *delta) {
	d.replacePort(h.dstPort(), port)
	h.setDstPort(port)
}

// apply brings a full checksum up to date with d; none stays none.
func (h udpHeader) apply(d delta) { h.setChecksum(d.applyUDP(h.checksum())) }

// applyPartial brings a partial checksum up to date with d.
func (h udpHeader) applyPartial(d delta) { h.setChecksum(d.applyPartial(h.checksum())) }

// ICMP types (RFC 792).
const (
	icmpEchoReply    uint8 = 0
	icmpUnreachable  uint8 = 3
	icmpSourceQuench uint8 = 4
	icmpRedirect     uint8 = 5
	icmpEchoRequest  uint8 = 8
	icmpTimeExceeded uint8 = 11
	icmpParameter    uint8 = 12
)

// Codes of icmpUnreachable.
const (
	icmpNetUnreachable   uint8 = 0
	icmpHostUnreachable  uint8 = 1
	icmpProtoUnreachable uint8 = 2
	icmpPortUnreachable  uint8 = 3
	icmpFragNeeded       uint8 = 4
)

// ICMPv6 types (RFC 4443 section 2.1). Those below icmpv6Informational are
// errors.
const (
	icmpv6Unreachable      uint8 = 1
	icmpv6PacketTooBig     uint8 = 2
	icmpv6TimeExceeded     uint8 = 3
	icmpv6ParameterProblem uint8 = 4
	icmpv6Informational    uint8 = 128
	icmpv6EchoRequest      uint8 = 128
	icmpv6EchoReply        uint8 = 129
	icmpv6Redirect         uint8 = 137
)

// Codes of icmpv6Unreachable.
const (
	icmpv6NoRoute            uint8 = 0
	icmpv6AddressUnreachable uint8 = 3
	icmpv6PortUnreachable    uint8 = 4
)

// icmpHeader is an ICMP header (RFC 792, RFC 4443 section 2.1): type, code,
// checksum, and four bytes whose meaning is the type's. What both families call
// by one name has other type numbers in each, but for the layout of an echo.
type icmpHeader []byte

func (h icmpHeader) icmpType() uint8  { return h[0] }
func (h icmpHeader) code() uint8      { return h[1] }
func (h icmpHeader) checksum() uint16 { return binary.BigEndian.Uint16(h[2:4]) }
func (h icmpHeader) id() uint16       { return binary.BigEndian.Uint16(h[4:6]) } // of an echo

func (h icmpHeader) setType(v uint8)      { h[0] = v }
func (h icmpHeader) setCode(v uint8)      { h[1] = v }
func (h icmpHeader) setChecksum(v uint16) { binary.BigEndian.PutUint16(h[2:4], v) }
func (h icmpHeader) setID(v uint16)       { binary.BigEndian.PutUint16(h[4:6], v) }
func (h icmpHeader) setRest(v uint32)     { binary.BigEndian.PutUint32(h[4:8], v) }

// echoRequest tells which of the two an echo is.
func (h icmpHeader) echoRequest() bool {
	return h[0] == icmpEchoRequest || h[0] == icmpv6EchoRequest
}

// replaceEchoID writes the identifier of an echo and notes the change.
func (h icmpHeader) replaceEchoID(id uint16, d *delta) {
	d.replacePort(h.id(), id)
	h.setID(id)
}

// apply brings the checksum of a message of proto up to date with d: that of
// ICMPv6 covers a pseudo-header, that of ICMP does not.
func (h icmpHeader) apply(proto uint8, d delta) {
	if proto == protoICMP {
		h.setChecksum(d.applyPorts(h.checksum()))
		return
	}
	h.setChecksum(d.applyFull(h.checksum()))
}
