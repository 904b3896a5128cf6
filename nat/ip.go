// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// ipHeader is an IP packet of either family, from the first byte of its header
// on: what the walk reads and writes of it without asking which family it is.
// parse, or parseQuote, has accepted it.
type ipHeader []byte

func (h ipHeader) is6() bool { return h[0]>>4 == 6 }

func (h ipHeader) src() conntrack.Addr {
	if h.is6() {
		return ipv6Header(h).src()
	}
	return ipv4Header(h).src()
}

func (h ipHeader) dst() conntrack.Addr {
	if h.is6() {
		return ipv6Header(h).dst()
	}
	return ipv4Header(h).dst()
}

// headerLen is the length of what each fragment of a datagram repeats: the
// header with its options, or with the extension headers up to that of the
// fragment, in bytes.
func (h ipHeader) headerLen() int {
	if !h.is6() {
		return ipv4Header(h).headerLen()
	}
	var c extensionChain
	c.walk(h, true)
	if c.fragment != 0 && !fragmentHeader(h[c.fragment:]).atomic() {
		return c.fragment + ipv6FragmentHeaderLen
	}
	return c.end
}

// dontFragment tells whether a router must not cut the packet: never IPv6.
func (h ipHeader) dontFragment() bool {
	return h.is6() || ipv4Header(h).fragment()&ipv4DontFragment != 0
}

// decrementTTL takes one hop off a time to live that is not zero.
func (h ipHeader) decrementTTL() {
	if h.is6() {
		ipv6Header(h).setHopLimit(ipv6Header(h).hopLimit() - 1)
		return
	}
	ipv4Header(h).decrementTTL()
}

// renewTTL gives a packet that goes back as ours the time to live of one that we
// made.
func (h ipHeader) renewTTL() {
	if h.is6() {
		ipv6Header(h).setHopLimit(generatedTTL)
		return
	}
	ipv4Header(h).setTTL(generatedTTL)
	ipv4Header(h).computeChecksum()
}

// replaceLength writes the length of the whole packet, n bytes, and keeps the
// header checksum if there is one. A super-packet that cannot say its length goes
// on without.
func (h ipHeader) replaceLength(n int) {
	if h.is6() {
		if v6 := ipv6Header(h); v6.payloadLen() != 0 {
			v6.setPayloadLen(n - ipv6HeaderLen)
		}
		return
	}
	if v4 := ipv4Header(h); v4.totalLen() != 0 {
		v4.setChecksum(update16(v4.checksum(), uint16(v4.totalLen()), uint16(n)))
		v4.setTotalLen(n)
	}
}

// replaceSource writes the source address, which is of the packet's family,
// keeps the header checksum if there is one, and notes the change for the
// transport checksum.
func (h ipHeader) replaceSource(a *conntrack.Addr, d *delta) {
	if h.is6() {
		ipv6Header(h).replaceSource(a, d)
		return
	}
	ipv4Header(h).replaceSource(a, d)
}

// replaceDestination is replaceSource for the destination address.
func (h ipHeader) replaceDestination(a *conntrack.Addr, d *delta) {
	if h.is6() {
		ipv6Header(h).replaceDestination(a, d)
		return
	}
	ipv4Header(h).replaceDestination(a, d)
}

// icmpSum is the sum of the ICMP message at l4 up to the end of the packet,
// with the pseudo-header that ICMPv6 has (RFC 4443 section 2.3): 0xffff if its
// checksum is right.
func (h ipHeader) icmpSum(l4 int) uint16 {
	var pseudo uint32
	if h.is6() {
		src, dst := h.src(), h.dst()
		pseudo = pseudoSum(&src, &dst, protoICMPv6, len(h)-l4)
	}
	return fold(sum(h[l4:], pseudo))
}

// computeICMPChecksum writes the checksum of that message anew.
func (h ipHeader) computeICMPChecksum(l4 int) {
	m := icmpHeader(h[l4:])
	m.setChecksum(0)
	m.setChecksum(^h.icmpSum(l4))
}

// routable tells whether an address may be that of a host behind a router, and
// so be answered.
func routable(a *conntrack.Addr) bool {
	if a.Is4() {
		return !badSource(a[12])
	}
	return !badSourceIPv6(a) && !linkLocal(a)
}
