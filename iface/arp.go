// SPDX-License-Identifier: Apache-2.0

package iface

// The wire format of ARP for IPv4 over Ethernet (RFC 826), as a view over the
// bytes of a packet:
//
//	 0  hardware type 1        2  protocol type 0x0800
//	 4  6   5  4               6  operation: 1 request, 2 reply
//	 8  sender MAC            14  sender IP
//	18  target MAC            24  target IP
//
// What the field names hide: a request asks "who has target IP"; the target MAC
// of a request means nothing. Sender IP equal to target IP announces (gratuitous
// ARP), a sender IP of zero probes whether anybody has the target (RFC 5227).

import (
	"encoding/binary"
	"net/netip"
)

const (
	ethernetHeader  = 14
	etherTypeARP    = 0x0806
	arpSize         = 28
	arpFrameSize    = ethernetHeader + arpSize
	arpHardwareType = 1
	arpProtocolType = 0x0800
)

// ARPOperation is what an ARP packet wants.
type ARPOperation uint16

// The operations of RFC 826; the others (RARP, InARP) are not ours.
const (
	ARPRequest ARPOperation = 1
	ARPReply   ARPOperation = 2
)

// ARP is a view over one ARP packet, at least 28 bytes, checked by ParseARP.
// It borrows the memory of the frame.
type ARP []byte

// ARPFault says why a frame is not an ARP packet that can be believed.
type ARPFault uint8

// The faults, in the order in which they are looked for.
const (
	ARPGood      ARPFault = iota
	ARPShort              // cut before the end of the packet
	ARPNotARP             // another EtherType
	ARPFormat             // not IPv4 over Ethernet, or lengths other than 6 and 4
	ARPUnknown            // neither request nor reply
	ARPSender             // sender MAC is not the source of the frame, or no station's
	ARPAddress            // sender IP can not be that of a station
	numARPFaults = iota
)

// String returns the word for metrics.
func (f ARPFault) String() string {
	names := [numARPFaults]string{"good", "short", "not-arp", "format", "operation", "sender", "address"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// ParseARP returns the ARP packet of an Ethernet frame, or why there is none.
// Bytes behind the packet are padding.
func ParseARP(frame []byte) (ARP, ARPFault) {
	if len(frame) < ethernetHeader {
		return nil, ARPShort
	}
	if binary.BigEndian.Uint16(frame[12:]) != etherTypeARP {
		return nil, ARPNotARP
	}
	if len(frame) < arpFrameSize {
		return nil, ARPShort
	}
	a := ARP(frame[ethernetHeader:arpFrameSize])
	if binary.BigEndian.Uint16(a) != arpHardwareType || binary.BigEndian.Uint16(a[2:]) != arpProtocolType ||
		a[4] != 6 || a[5] != 4 {
		return nil, ARPFormat
	}
	if op := a.Operation(); op != ARPRequest && op != ARPReply {
		return nil, ARPUnknown
	}
	// Bit 0 of the first byte: a group. Two different senders in one frame are
	// what a proxy or a forger makes; nothing that we need comes from either.
	mac := a.SenderMAC()
	if mac != [6]byte(frame[6:]) || mac == ([6]byte{}) || mac[0]&1 != 0 {
		return nil, ARPSender
	}
	if ip := a.SenderIP(); !ip.IsUnspecified() && !isStation(ip) {
		return nil, ARPAddress
	}
	return a, ARPGood
}

// isStation tells whether an IPv4 address can be that of one station on a link.
func isStation(ip netip.Addr) bool {
	return ip.Is4() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() &&
		ip.As4()[0] != 0 && ip.As4() != [4]byte{255, 255, 255, 255}
}

// Operation is request or reply.
func (a ARP) Operation() ARPOperation { return ARPOperation(binary.BigEndian.Uint16(a[6:])) }

// SenderMAC is the station that sent the packet.
func (a ARP) SenderMAC() [6]byte { return [6]byte(a[8:]) }

// SenderIP is what that station says it has; 0.0.0.0 in a probe.
func (a ARP) SenderIP() netip.Addr { return netip.AddrFrom4([4]byte(a[14:])) }

// TargetMAC is whom a reply is for.
func (a ARP) TargetMAC() [6]byte { return [6]byte(a[18:]) }

// TargetIP is what is asked for, or whom a reply is for.
func (a ARP) TargetIP() netip.Addr { return netip.AddrFrom4([4]byte(a[24:])) }

// broadcastMAC is everyone on the link.
func broadcastMAC() [6]byte { return [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// arpFields are those of a packet to build.
type arpFields struct {
	to        [6]byte // destination of the frame
	operation ARPOperation
	senderMAC [6]byte
	sender    [4]byte
	targetMAC [6]byte
	target    [4]byte
}

// build returns the frame. 42 bytes: what pads a frame to the 60 of Ethernet is
// the driver, as it is for the kernel's own ARP.
func (f arpFields) build() [arpFrameSize]byte {
	var b [arpFrameSize]byte
	copy(b[0:], f.to[:])
	copy(b[6:], f.senderMAC[:])
	binary.BigEndian.PutUint16(b[12:], etherTypeARP)
	a := b[ethernetHeader:]
	binary.BigEndian.PutUint16(a[0:], arpHardwareType)
	binary.BigEndian.PutUint16(a[2:], arpProtocolType)
	a[4], a[5] = 6, 4
	binary.BigEndian.PutUint16(a[6:], uint16(f.operation))
	copy(a[8:], f.senderMAC[:])
	copy(a[14:], f.sender[:])
	copy(a[18:], f.targetMAC[:])
	copy(a[24:], f.target[:])
	return b
}
