// SPDX-License-Identifier: Apache-2.0

package iface

// The wire format of neighbour discovery (RFC 4861, sections 4.3 and 4.4) over
// Ethernet, as a view over the bytes of a packet:
//
//	 0  IPv6: version 6      4  payload length    6  58    7  hop limit 255
//	 8  source              24  destination
//	40  type 135 or 136     41  code 0           42  checksum
//	44  flags (136 only): 0x80 router, 0x40 solicited, 0x20 override
//	48  target
//	64  options: type, length in units of 8 bytes, value
//
// What the field names hide: a solicitation (135, NS) asks "who has target", and
// an advertisement (136, NA) says so. A solicitation from :: asks whether anybody
// has the target before its sender takes it (duplicate address detection, RFC
// 4862). The hop limit proves that a packet comes from the link: a router
// would have made it smaller. Extension headers are not looked behind; nobody
// sends them here, and RFC 6980 forbids the one that would hurt.

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ipv6Header      = 40
	ipv6NextHeader  = 6
	ndSize          = 24 // the ICMPv6 message without options
	ndOptionSize    = 8  // an option with a link-layer address
	ndFrameSize     = ethernetHeader + ipv6Header + ndSize + ndOptionSize
	ndHopLimit      = 255
	ndSourceOption  = 1
	ndTargetOption  = 2
	ndFlagSolicited = 0x40
	ndFlagOverride  = 0x20

	// ndFirst to ndLast are the ICMPv6 types of neighbour discovery: router
	// solicitation and advertisement, the two below, redirect.
	ndFirst = 133
	ndLast  = 137
)

// NDType is the ICMPv6 type of a message of neighbour discovery.
type NDType uint8

// The messages of RFC 4861 that are about neighbours; those about routers are not
// ours.
const (
	NDSolicitation  NDType = 135
	NDAdvertisement NDType = 136
)

// ND is a view over one IPv6 packet with a message of neighbour discovery, from
// the IPv6 header to the end of the message, checked by ParseND. It borrows the
// memory of the frame.
type ND []byte

// NDFault says why a frame is not a message that can be believed.
type NDFault uint8

// The faults, in the order in which they are looked for.
const (
	NDGood     NDFault = iota
	NDNone             // not ICMPv6, or of another type
	NDShort            // cut, or shorter than its type
	NDHopLimit         // not from this link
	NDCode             // not 0
	NDChecksum
	NDSender      // source of the frame is no station's
	NDSource      // source address can not be that of a station, or :: in an advertisement
	NDTarget      // target can not be that of a station
	NDDestination // :: asks one station, or an answer goes to a group
	NDOption      // an option of length 0, cut, with a MAC that is none, or forbidden here
	numNDFaults   = iota
)

// String returns the word for metrics.
func (f NDFault) String() string {
	names := [numNDFaults]string{"good", "none", "short", "hop-limit", "code", "checksum", "sender", "source",
		"target", "destination", "option"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// IsND tells whether an Ethernet frame is one for [Neighbours.Input] rather than
// for a forwarder: a message of neighbour discovery of any type, good or bad. Like the
// filter it does not look behind extension headers.
func IsND(frame []byte) bool {
	const next, kind = ethernetHeader + ipv6NextHeader, ethernetHeader + ipv6Header
	return len(frame) > kind && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 &&
		frame[next] == unix.IPPROTO_ICMPV6 && frame[kind] >= ndFirst && frame[kind] <= ndLast
}

// ParseND returns the solicitation or advertisement of an Ethernet frame, or why
// there is none: the checks of RFC 4861, sections 7.1.1 and 7.1.2, and those of
// addresses. Bytes behind the packet are padding.
func ParseND(frame []byte) (ND, NDFault) {
	if !IsND(frame) {
		return nil, NDNone
	}
	n := ND(frame[ethernetHeader:])
	if t := n.Type(); n[0]>>4 != 6 || t != NDSolicitation && t != NDAdvertisement {
		return nil, NDNone
	}
	length := int(binary.BigEndian.Uint16(n[4:]))
	if length < ndSize || ipv6Header+length > len(n) {
		return nil, NDShort
	}
	n = n[:ipv6Header+length]
	mac := [6]byte(frame[6:])
	switch {
	case n[7] != ndHopLimit:
		return nil, NDHopLimit
	case n[ipv6Header+1] != 0:
		return nil, NDCode
	case fold(n.sum()) != 0xffff:
		return nil, NDChecksum
	case !isUnicastMAC(mac):
		return nil, NDSender
	case !isStation6(n.Source()) && (n.Type() != NDSolicitation || !n.Source().IsUnspecified()):
		return nil, NDSource
	case !isStation6(n.Target()):
		return nil, NDTarget
	case n.Source().IsUnspecified() && n.Destination() != solicitedNode(n.Target()),
		n.Solicited() && n.Destination().IsMulticast():
		return nil, NDDestination
	}
	for rest := n[ipv6Header+ndSize:]; len(rest) > 0; {
		if len(rest) < ndOptionSize || rest[1] == 0 || int(rest[1])*8 > len(rest) {
			return nil, NDOption
		}
		rest = rest[int(rest[1])*8:]
	}
	if mac, ok := n.option(); ok && (!isUnicastMAC(mac) || n.Source().IsUnspecified()) {
		return nil, NDOption
	}
	return n, NDGood
}

// isStation6 tells whether an IPv6 address can be that of one station on a link.
func isStation6(ip netip.Addr) bool {
	return ip.Is6() && !ip.Is4In6() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback()
}

func isUnicastMAC(mac [6]byte) bool { return mac != [6]byte{} && mac[0]&1 == 0 }

// Type is solicitation or advertisement.
func (n ND) Type() NDType { return NDType(n[ipv6Header]) }

// Source is the address the message was sent from; :: in duplicate address
// detection.
func (n ND) Source() netip.Addr { return netip.AddrFrom16([16]byte(n[8:])) }

// Destination is whom the message is for: a station, the solicited-node group
// of the target, or all nodes.
func (n ND) Destination() netip.Addr { return netip.AddrFrom16([16]byte(n[24:])) }

// Target is the address that is asked for, or that an advertisement is about.
func (n ND) Target() netip.Addr { return netip.AddrFrom16([16]byte(n[ipv6Header+8:])) }

// Solicited tells whether an advertisement says that it is an answer.
func (n ND) Solicited() bool {
	return n.Type() == NDAdvertisement && n[ipv6Header+4]&ndFlagSolicited != 0
}

// option is the link-layer address that belongs to the type: the sender's in a
// solicitation, the target's in an advertisement. Others are skipped (RFC 4861
// section 7.1), and of several the first counts.
func (n ND) option() (mac [6]byte, ok bool) {
	kind := byte(ndTargetOption)
	if n.Type() == NDSolicitation {
		kind = ndSourceOption
	}
	for rest := n[ipv6Header+ndSize:]; len(rest) >= ndOptionSize && rest[1] != 0; {
		if rest[0] == kind && rest[1] == 1 {
			return [6]byte(rest[2:]), true
		}
		rest = rest[min(int(rest[1])*8, len(rest)):]
	}
	return mac, false
}

// sum adds up the message with its pseudo-header (RFC 8200 section 8.1); with a
// right checksum in it, it folds to 0xffff.
func (n ND) sum() uint64 {
	message := n[ipv6Header:]
	return sumBytes(sumBytes(uint64(len(message))+unix.IPPROTO_ICMPV6, n[8:ipv6Header]), message)
}

// allNodes is the group of every station on a link.
func allNodes() netip.Addr { return netip.IPv6LinkLocalAllNodes() }

// solicitedNode is the group in which the owner of an address listens for
// questions about it (RFC 4291 section 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	raw := addr.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: raw[13], 14: raw[14], 15: raw[15]})
}

// groupMAC is where frames to a group of IPv6 go (RFC 2464 section 7).
func groupMAC(group netip.Addr) [6]byte {
	raw := group.As16()
	return [6]byte{0x33, 0x33, raw[12], raw[13], raw[14], raw[15]}
}

// linkLocal is the address that a station gives itself (RFC 4291, appendix A).
func linkLocal(mac [6]byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// ndFields are those of a message to build. The MAC of the sender is also that
// of the option.
type ndFields struct {
	to                  [6]byte // destination of the frame
	kind                NDType
	flags               byte
	senderMAC           [6]byte
	source, destination netip.Addr
	target              netip.Addr
}

// build returns the frame. A solicitation from :: must not say who asks: it has
// no option and is 8 bytes shorter.
func (f ndFields) build() []byte {
	b := make([]byte, ndFrameSize)
	if f.source.IsUnspecified() {
		b = b[:ndFrameSize-ndOptionSize]
	}
	copy(b[0:], f.to[:])
	copy(b[6:], f.senderMAC[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)
	n := ND(b[ethernetHeader:])
	n[0] = 6 << 4
	binary.BigEndian.PutUint16(n[4:], uint16(len(n)-ipv6Header))
	n[6], n[7] = unix.IPPROTO_ICMPV6, ndHopLimit
	put(n[8:], f.source)
	put(n[24:], f.destination)
	n[ipv6Header], n[ipv6Header+4] = byte(f.kind), f.flags
	put(n[ipv6Header+8:], f.target)
	if option := n[ipv6Header+ndSize:]; len(option) > 0 {
		option[0], option[1] = ndTargetOption, 1
		if f.kind == NDSolicitation {
			option[0] = ndSourceOption
		}
		copy(option[2:], f.senderMAC[:])
	}
	binary.BigEndian.PutUint16(n[ipv6Header+2:], ^fold(n.sum()))
	return b
}

func put(b []byte, addr netip.Addr) {
	raw := addr.As16()
	copy(b, raw[:])
}
