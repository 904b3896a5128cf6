// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// Lengths of IPv6, in bytes.
const (
	ipv6HeaderLen         = 40
	ipv6FragmentHeaderLen = 8
	ipv6MaxLen            = ipv6HeaderLen + 65535
	// ipv6MinMTU is the MTU that every link has (RFC 8200 section 5).
	ipv6MinMTU = 1280
)

// Next header values of IPv6 that stand for more headers (RFC 8200 section 4).
const (
	protoHopByHop    uint8 = 0
	protoRouting     uint8 = 43
	protoFragment    uint8 = 44
	protoICMPv6      uint8 = 58
	protoDestination uint8 = 60
)

// ipv6Header is the fixed IPv6 header (RFC 8200 section 3). There is no
// checksum to keep right.
type ipv6Header []byte

func (h ipv6Header) trafficClass() uint8 { return uint8(binary.BigEndian.Uint16(h[0:2]) >> 4) }
func (h ipv6Header) payloadLen() int     { return int(binary.BigEndian.Uint16(h[4:6])) } // extension headers included
func (h ipv6Header) nextHeader() uint8   { return h[6] }
func (h ipv6Header) hopLimit() uint8     { return h[7] }
func (h ipv6Header) src() conntrack.Addr { return conntrack.Addr(h[8:24]) }
func (h ipv6Header) dst() conntrack.Addr { return conntrack.Addr(h[24:40]) }

func (h ipv6Header) setVersion() { binary.BigEndian.PutUint32(h[0:4], 6<<28) } // traffic class and flow label zero
func (h ipv6Header) setTrafficClass(v uint8) {
	binary.BigEndian.PutUint16(h[0:2], binary.BigEndian.Uint16(h[0:2])&0xf00f|uint16(v)<<4)
}
func (h ipv6Header) setPayloadLen(v int)       { binary.BigEndian.PutUint16(h[4:6], uint16(v)) }
func (h ipv6Header) setNextHeader(v uint8)     { h[6] = v }
func (h ipv6Header) setHopLimit(v uint8)       { h[7] = v }
func (h ipv6Header) setSrc(a *conntrack.Addr)  { copy(h[8:24], a[:]) }
func (h ipv6Header) setDst(a *conntrack.Addr)  { copy(h[24:40], a[:]) }
func (h ipv6Header) address(at int) (a []byte) { return h[at : at+16] }

// replaceSource writes the source address and notes the change for the
// transport checksum.
func (h ipv6Header) replaceSource(a *conntrack.Addr, d *delta) { h.replaceAddress(8, a, d) }

// replaceDestination is replaceSource for the destination address.
func (h ipv6Header) replaceDestination(a *conntrack.Addr, d *delta) { h.replaceAddress(24, a, d) }

func (h ipv6Header) replaceAddress(at int, a *conntrack.Addr, d *delta) {
	old := conntrack.Addr(h.address(at))
	d.replaceAddress(&old, a)
	copy(h.address(at), a[:])
}

// fragmentHeader is the extension header of a fragment (RFC 8200 section 4.5).
type fragmentHeader []byte

func (h fragmentHeader) offset() int { return int(binary.BigEndian.Uint16(h[2:4]) &^ 7) } // bytes
func (h fragmentHeader) more() bool  { return h[3]&1 != 0 }
func (h fragmentHeader) id() uint32  { return binary.BigEndian.Uint32(h[4:8]) }

// atomic tells whether the fragment is the whole datagram.
func (h fragmentHeader) atomic() bool { return h.offset() == 0 && !h.more() }

// The chain of extension headers is bounded, for who sends one pays less than
// who reads it: no packet of good will has more of them, or longer ones
// (RFC 8504 section 5.3).
const (
	maxExtensions    = 8
	maxExtensionsLen = 512 // bytes, of all together
)

// An extensionChain is what lies between the fixed header of an IPv6 packet
// and its transport header. Extension headers are read, and travel on unchanged.
type extensionChain struct {
	proto uint8 // of what follows the chain
	end   int   // offset of that, from the fixed header
	// fragment is the offset of the fragment header, zero if there is none.
	fragment int
}

// walk reads the chain of the packet b, which begins with its fixed header. It
// ends at the first header that is no extension, or behind the header of a
// later fragment, where data follows. jumbo allows the option of a length that
// the fixed header cannot say.
//
// Refused are a routing header that still has somewhere to go, a home address
// option, which stands for the source address that the header does not have,
// and what breaks the rules of RFC 8200 section 4: order of the hop-by-hop
// header, form of the options, a second fragment header.
func (c *extensionChain) walk(b []byte, jumbo bool) Reason {
	*c = extensionChain{proto: ipv6Header(b).nextHeader(), end: ipv6HeaderLen}
	for n := 0; isExtension(c.proto); n++ {
		at := c.end
		if n == maxExtensions {
			return ReasonIPOptions
		}
		if len(b) < at+8 {
			return c.cut(b)
		}
		length := 8
		if c.proto != protoFragment {
			length += int(b[at+1]) * 8
		}
		if at+length > ipv6HeaderLen+maxExtensionsLen {
			return ReasonIPOptions
		}
		if len(b) < at+length {
			return c.cut(b)
		}
		switch c.proto {
		case protoHopByHop:
			if n != 0 || !extensionOptionsOK(b[at+2:at+length], jumbo) {
				return ReasonIPOptions
			}
		case protoDestination:
			if !extensionOptionsOK(b[at+2:at+length], false) {
				return ReasonIPOptions
			}
		case protoRouting:
			if segmentsLeft := b[at+3]; segmentsLeft != 0 {
				return ReasonIPOptions
			}
		case protoFragment:
			if c.fragment != 0 {
				return ReasonFragment
			}
			c.fragment = at
		}
		later := c.proto == protoFragment && fragmentHeader(b[at:]).offset() != 0
		c.proto, c.end = b[at], at+length
		if later {
			break
		}
	}
	return ReasonNone
}

// cut names the fault of a chain that goes on behind the end of the packet: a
// first fragment has to hold all of it (RFC 7112).
func (c *extensionChain) cut(b []byte) Reason {
	if c.fragment != 0 && fragmentHeader(b[c.fragment:]).more() {
		return ReasonFragmentTiny
	}
	return ReasonShort
}

// isExtension tells whether a next header value stands for a header that is
// looked behind. What authenticates or encrypts the rest is not: neither could
// be translated.
func isExtension(proto uint8) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoDestination:
		return true
	}
	return false
}

// extensionOptionsOK accepts options that are well formed (RFC 8200 section
// 4.2).
func extensionOptionsOK(o []byte, jumbo bool) bool {
	const (
		pad1         = 0x00
		jumboPayload = 0xc2 // RFC 2675 section 2
		homeAddress  = 0xc9 // RFC 6275 section 6.3
	)
	for len(o) > 0 {
		if o[0] == pad1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || 2+int(o[1]) > len(o) ||
			o[0] == homeAddress || o[0] == jumboPayload && !jumbo {
			return false
		}
		o = o[2+int(o[1]):]
	}
	return true
}
