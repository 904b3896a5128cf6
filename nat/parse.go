// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// kind is what a packet is to the walk.
type kind uint8

const (
	kindOther     kind = iota // a protocol or ICMP type without connections, or what stays on its link
	kindTCP                   // whole, or a first fragment
	kindUDP                   // whole, or a first fragment
	kindSCTP                  // whole, or a first fragment
	kindEcho                  // ICMP echo request or reply, whole or a first fragment
	kindICMPError             // quotes another packet; see parseQuote
	kindFragment              // a fragment other than the first, of TCP, UDP, SCTP or ICMP as far as one can see: no ports
)

// parsed is what the walk needs to know of a packet. It holds no reference to
// the packet's bytes: offsets are from the start of Packet.Data and stay true
// through a rewrite, since a rewrite moves nothing.
type parsed struct {
	tuple conntrack.Tuple // ports are zero if kind has none
	kind  kind

	proto     uint8  // of the transport header; in a later fragment of IPv6 the next header that it names
	ttl       uint8  // hop limit
	tos       uint8  // traffic class
	id        uint32 // identification of the datagram that fragments belong to
	fragProto uint8  // tells datagrams of one identification apart; zero in IPv6, where the identification is enough
	headerLen int    // IP header with options or extension headers: in a fragment, up to where its data begin, bytes
	totalLen  int    // whole packet, bytes; len(Packet.Data)
	l4        int    // offset of the transport header, or of a later fragment's data

	dontFragment  bool // always in IPv6
	moreFragments bool
	fragOffset    int // bytes; not zero: there is no transport header
	solid         int // of a leader with its datagram whole: bytes of the largest other fragment that must not be cut
	behind        int // of the same: bytes of the datagram in the others

	// partial says that the transport checksum field at l4 holds the sum of
	// the pseudo-header only (Offload.NeedsChecksum). An offload that points
	// further in, at the payload of a tunnel, leaves it false: the outer
	// checksum is then a full one.
	partial bool

	// TCP.
	flags      uint8
	scale      int8   // window scale of a SYN; -1: none, or not a SYN
	window     uint16 // as on the wire
	seq, ack   uint32
	dataOffset int // TCP header with options, bytes
	payload    int // TCP or UDP payload in this packet, bytes

	// SCTP.
	chunk     uint8  // type of the first chunk, but ABORT if one follows COOKIE ECHO or COOKIE ACK
	tag       uint32 // verification tag of the common header
	initiate  uint32 // tag that INIT and INIT ACK ask for
	reflected bool   // the tag is that of the other direction

	udpLen int // of the UDP header, bytes; says the whole datagram in a first fragment

	// ICMP.
	icmpType, icmpCode uint8
	icmpID             uint16 // of an echo
}

// isFragment tells whether the packet is part of a datagram only.
func (p *parsed) isFragment() bool { return p.moreFragments || p.fragOffset != 0 }

// opens tells whether a packet may open a TCP connection or an association: a
// SYN, with ACK or without, as IPVS has it (ip_vs_proto_tcp.c,
// tcp_conn_schedule), or an INIT.
func (p *parsed) opens() bool {
	return p.kind == kindTCP && p.flags&(flagSYN|flagFIN|flagRST) == flagSYN ||
		p.kind == kindSCTP && p.chunk == sctpInit
}

// ends tells whether a packet is a RST or an ABORT.
func (p *parsed) ends() bool {
	return p.kind == kindTCP && p.flags&flagRST != 0 || p.kind == kindSCTP && p.chunk == sctpAbort
}

// hasStates tells whether its connections have states: the first packet counts.
func (p *parsed) hasStates() bool { return p.kind == kindTCP || p.kind == kindSCTP }

// echoRequest tells which of the two an ICMP echo is.
func (p *parsed) echoRequest() bool {
	return p.icmpType == icmpEchoRequest || p.icmpType == icmpv6EchoRequest
}

// illegalFlags tells whether no TCP of good will sends these flags (SYN+FIN,
// SYN+RST, null, xmas): a segment carries at most one of SYN, FIN and RST, and
// all but the first SYN and a RST carry ACK (RFC 9293 section 3.10.7.4). Such a
// segment opens nothing.
func (p *parsed) illegalFlags() bool {
	switch p.flags & (flagSYN | flagFIN | flagRST) {
	case 0, flagFIN:
		return p.flags&flagACK == 0
	case flagSYN, flagRST:
		return false
	}
	return true
}

// parse reads the headers of pkt and judges them. It cuts pkt.Data to the
// length that the IP header says, since a short Ethernet frame is padded. It
// returns ReasonNone for a packet that is sound; p is not complete otherwise.
//
// Checked here is what no legal packet violates, whoever it is for: header
// lengths, the IP header checksum, options, a source that cannot be one, the
// geometry of fragments. Whether the destination is good is the caller's to
// say. Transport checksums are not verified: a rewrite keeps their error.
//
// IPv6 that no router forwards (link-local addresses, multicast: all of
// neighbour discovery) is kindOther, and no more of it is read.
func (p *parsed) parse(pkt *Packet) Reason {
	*p = parsed{scale: -1}
	if len(pkt.Data) == 0 {
		return ReasonShort
	}
	icmp := protoICMP
	switch pkt.Data[0] >> 4 {
	case 4:
		if r := p.parseIPv4(pkt); r != ReasonNone {
			return r
		}
	case 6:
		icmp = protoICMPv6
		if r := p.parseIPv6(pkt); r != ReasonNone || p.staysOnLink() {
			return r
		}
	default:
		return ReasonVersion
	}
	if p.isFragment() {
		if r := p.checkFragment(pkt); r != ReasonNone {
			return r
		}
	}
	if !p.checkOffload(pkt) {
		return ReasonShort
	}
	if p.fragOffset != 0 {
		switch {
		case p.proto == protoTCP, p.proto == protoUDP, p.proto == protoSCTP, p.proto == icmp,
			icmp == protoICMPv6 && isExtension(p.proto):
			p.kind = kindFragment
		}
		return ReasonNone
	}
	switch p.proto {
	case protoTCP:
		return p.parseTCP(pkt)
	case protoUDP:
		return p.parseUDP(pkt)
	case protoSCTP:
		return p.parseSCTP(pkt)
	case icmp:
		return p.parseICMP(pkt)
	}
	return ReasonNone
}

func (p *parsed) parseIPv4(pkt *Packet) Reason {
	b := pkt.Data
	if len(b) < ipv4HeaderLen {
		return ReasonShort
	}
	h := ipv4Header(b)
	n := h.headerLen()
	if n < ipv4HeaderLen {
		return ReasonIPHeader
	}
	if n > len(b) {
		return ReasonShort
	}
	total := h.totalLen()
	if total == 0 && pkt.Offload.GSOType != GSONone {
		// A super-packet beyond 65,535 bytes (Linux "BIG TCP") cannot say
		// its length.
		total = len(b)
	}
	if total < n {
		return ReasonIPHeader
	}
	if total > len(b) {
		return ReasonShort
	}
	if !h.checksumOK() {
		return ReasonIPChecksum
	}
	if n > ipv4HeaderLen && !optionsOK(h.options()) {
		return ReasonIPOptions
	}
	if badSource(h[12]) {
		return ReasonSource
	}
	pkt.Data = b[:total:total]

	p.headerLen, p.l4, p.totalLen = n, n, total
	p.tos, p.ttl, p.proto = h.tos(), h.ttl(), h.proto()
	p.id, p.fragProto = uint32(h.id()), p.proto
	p.tuple.Src.Addr, p.tuple.Dst.Addr, p.tuple.Proto = h.src(), h.dst(), p.proto
	if p.tuple.Src.Addr == p.tuple.Dst.Addr {
		return ReasonLand
	}
	f := h.fragment()
	p.dontFragment = f&ipv4DontFragment != 0
	p.moreFragments = f&ipv4MoreFragments != 0
	p.fragOffset = int(f&ipv4OffsetMask) * 8
	return ReasonNone
}

// badSource tells from its first byte whether an address can be no host's:
// 0/8 "this network", 127/8 loopback, 224/4 multicast, 240/4 reserved and
// broadcast (RFC 1122 section 3.2.1.3, RFC 1812 section 5.3.7).
func badSource(first byte) bool { return first == 0 || first == 127 || first >= 224 }

// optionsOK accepts IPv4 options that are well formed and none of which routes
// the packet by its sender's will. The accepted ones travel on unchanged.
func optionsOK(o []byte) bool {
	const (
		end               = 0
		noOperation       = 1
		looseSourceRoute  = 131
		strictSourceRoute = 137
	)
	for len(o) > 0 {
		switch o[0] {
		case end:
			return true
		case noOperation:
			o = o[1:]
			continue
		case looseSourceRoute, strictSourceRoute:
			return false
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return false
		}
		o = o[o[1]:]
	}
	return true
}

// checkFragment judges the geometry of a fragment (RFC 791 section 3.2, RFC
// 8200 section 4.5) and refuses the tricks of RFC 1858 and RFC 3128: a transport
// header that is not whole in the first fragment, or that a later one would
// overwrite.
func (p *parsed) checkFragment(pkt *Packet) Reason {
	data := p.totalLen - p.headerLen
	longest := ipv4MaxLen
	if ipHeader(pkt.Data).is6() {
		longest = ipv6MaxLen + ipv6FragmentHeaderLen // which the whole datagram does not have
	}
	switch {
	case data == 0,
		p.moreFragments && data%8 != 0,
		p.fragOffset+p.totalLen > longest,
		// A sender completes the checksum and cuts a super-packet before
		// it makes fragments.
		pkt.Offload.NeedsChecksum, pkt.Offload.GSOType != GSONone:
		return ReasonFragment
	}
	if p.fragOffset == 0 {
		data := p.totalLen - p.l4
		need := 0
		switch p.proto {
		case protoTCP:
			need = tcpHeaderLen
			if data >= need {
				need = tcpHeader(pkt.Data[p.l4:]).headerLen()
			}
		case protoUDP:
			need = udpHeaderLen
		case protoSCTP:
			need = sctpMinLen
		case protoICMP, protoICMPv6:
			need = icmpHeaderLen
		}
		if data < need {
			return ReasonFragmentTiny
		}
		return ReasonNone
	}
	if p.proto == protoTCP && p.fragOffset < tcpHeaderLen || p.proto == protoSCTP && p.fragOffset < sctpMinLen {
		return ReasonFragmentTiny
	}
	return ReasonNone
}

func (p *parsed) parseTCP(pkt *Packet) Reason {
	b := pkt.Data[p.l4:]
	if len(b) < tcpHeaderLen {
		return ReasonTCPHeader
	}
	h := tcpHeader(b)
	p.dataOffset = h.headerLen()
	if p.dataOffset < tcpHeaderLen || p.dataOffset > len(b) {
		return ReasonTCPHeader
	}
	if p.partial && pkt.Offload.ChecksumOffset != tcpChecksumOffset {
		return ReasonTCPHeader
	}
	p.kind = kindTCP
	p.payload = len(b) - p.dataOffset
	p.flags, p.window, p.seq, p.ack = h.flags(), h.window(), h.seq(), h.ack()
	if p.flags&flagSYN != 0 {
		p.scale = windowScale(h.options())
	}
	return p.setPorts(h.srcPort(), h.dstPort())
}

// windowScale finds the shift count of a SYN (RFC 7323 section 2.2), or -1.
func windowScale(o []byte) int8 {
	const (
		end         = 0
		noOperation = 1
		scale       = 3
		maxShift    = 14
	)
	for len(o) > 0 {
		switch o[0] {
		case end:
			return -1
		case noOperation:
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return -1
		}
		if o[0] == scale && o[1] == 3 {
			return int8(min(o[2], maxShift))
		}
		o = o[o[1]:]
	}
	return -1
}

func (p *parsed) parseUDP(pkt *Packet) Reason {
	b := pkt.Data[p.l4:]
	if len(b) < udpHeaderLen {
		return ReasonUDPHeader
	}
	h := udpHeader(b)
	p.udpLen = h.length()
	if p.udpLen < udpHeaderLen || p.udpLen > len(b) && !p.moreFragments {
		return ReasonUDPHeader
	}
	if p.partial && pkt.Offload.ChecksumOffset != udpChecksumOffset {
		return ReasonUDPHeader
	}
	if h.checksum() == 0 && !p.partial && ipHeader(pkt.Data).is6() {
		return ReasonUDPHeader // nothing else protects the addresses (RFC 8200 section 8.1)
	}
	p.kind = kindUDP
	p.payload = len(b) - udpHeaderLen
	return p.setPorts(h.srcPort(), h.dstPort())
}

func (p *parsed) parseICMP(pkt *Packet) Reason {
	b := pkt.Data[p.l4:]
	if len(b) < icmpHeaderLen {
		return ReasonICMPHeader
	}
	if p.partial {
		// Whoever reads on wants the sum.
		if pkt.Offload.ChecksumOffset != icmpChecksumOffset || !completeOffload(pkt) {
			return ReasonICMPHeader
		}
		p.partial = false
	}
	h := icmpHeader(b)
	p.icmpType, p.icmpCode = h.icmpType(), h.code()
	switch p.kind = icmpKind(p.proto, p.icmpType); {
	case p.kind != kindEcho:
		return ReasonNone
	case p.echoRequest():
		p.tuple.Src.Port = h.id()
	default:
		p.tuple.Dst.Port = h.id()
	}
	p.icmpID = h.id()
	return ReasonNone
}

// icmpKind sorts the types of ICMP and ICMPv6. A redirect is an error to us:
// it quotes, and is never answered.
func icmpKind(proto, icmpType uint8) kind {
	if proto == protoICMPv6 {
		switch {
		case icmpType == icmpv6EchoRequest, icmpType == icmpv6EchoReply:
			return kindEcho
		case icmpType < icmpv6Informational, icmpType == icmpv6Redirect:
			return kindICMPError
		}
		return kindOther
	}
	switch icmpType {
	case icmpEchoRequest, icmpEchoReply:
		return kindEcho
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return kindICMPError
	}
	return kindOther
}

// setPorts puts the ports into the tuple; neither may be zero (RFC 6335
// section 6).
func (p *parsed) setPorts(src, dst uint16) Reason {
	p.tuple.Src.Port, p.tuple.Dst.Port = src, dst
	if src == 0 || dst == 0 {
		return ReasonPortZero
	}
	return ReasonNone
}

// checkOffload sets partial, and reports whether the checksum that is left to
// be completed lies in the packet, behind its IP header.
func (p *parsed) checkOffload(pkt *Packet) bool {
	o := &pkt.Offload
	if !o.NeedsChecksum {
		return true
	}
	start := int(o.ChecksumStart)
	p.partial = start == p.l4
	return start >= p.l4 && start+int(o.ChecksumOffset)+2 <= len(pkt.Data)
}
