// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"time"
)

// Time is nanoseconds of a monotonic clock whose zero point is arbitrary. It
// is always a parameter: nothing in this package reads a clock, so a change of
// the wall clock moves no deadline.
type Time int64

// Add gives the time d after t. It stops at the end of time instead of
// wrapping, so that an "infinite" life is not over at once.
func (t Time) Add(d time.Duration) Time {
	sum := t + Time(d)
	if d > 0 && sum < t {
		return 1<<63 - 1
	}

	return sum
}

// Protocols that have connections (IANA protocol numbers).
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132

	// ProtoMark is the protocol of a template of a service by mark, whose
	// clients may come by any. IPVS has 0 there (IPPROTO_IP), which says here
	// that a slot is free; 255 is reserved by IANA.
	ProtoMark = 255
)

// Tuple is what identifies a packet: its two ends as seen in this packet, and
// the IP protocol number. In an ICMP echo the identifier is the port of the
// side that is ours or inside and the other port is 0: a request from the
// inside has Src.Port = id and Dst.Port = 0, its reply the reverse (RFC 5508
// section 3 treats the identifier as a port).
type Tuple struct {
	Src, Dst Endpoint
	Proto    uint8
}

// String is "tcp 192.0.2.7:40000 > 10.0.0.1:80", the notation of traces.
func (p Tuple) String() string {
	return fmt.Sprintf("%s %s > %s", protoName(p.Proto), p.Src, p.Dst)
}

func protoName(proto uint8) string {
	switch proto {
	case 1:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case 58:
		return "icmp6"
	case protoSCTP:
		return "sctp"
	case ProtoMark:
		return "ip"
	}

	return fmt.Sprintf("proto%d", proto)
}

// Direction is the way a packet goes through a connection. It follows from
// geometry, not from who opened the connection.
type Direction uint8

const (
	// Inbound is from the outside endpoint to an address of ours.
	Inbound Direction = iota
	// Outbound is from the inside endpoint to the outside one.
	Outbound
	// InboundOnly is a third direction for state machines alone: Inbound, when
	// what goes out does not pass here (IP_VS_DIR_INPUT_ONLY).
	InboundOnly
)

// Other is the opposite direction.
func (d Direction) Other() Direction { return d ^ 1 }

// String is "in" or "out".
func (d Direction) String() string {
	if d == Outbound {
		return "out"
	}

	return "in"
}

// Ours tells [Table.Lookup] what only its caller can know: whether a packet's
// destination address is one of ours (a virtual service's address, an SNAT
// address, an address used for full NAT). It decides which end of the packet
// is the outside one.
type Ours uint8

const (
	// DstForeign: the packet leaves; its destination is the outside endpoint.
	DstForeign Ours = iota
	// DstOurs: the packet arrives; its source is the outside endpoint.
	DstOurs
)
