// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// parseIPv6 reads the fixed header and what extends it. An atomic fragment, one
// that is the whole datagram, is no fragment (RFC 6946): its header travels on
// like any other extension.
func (p *parsed) parseIPv6(pkt *Packet) Reason {
	b := pkt.Data
	if len(b) < ipv6HeaderLen {
		return ReasonShort
	}
	h := ipv6Header(b)
	total := ipv6HeaderLen + h.payloadLen()
	super := pkt.Offload.GSOType != GSONone
	if h.payloadLen() == 0 && super {
		total = len(b) // as in parseIPv4
	}
	if total > len(b) {
		return ReasonShort
	}
	b = b[:total:total]
	pkt.Data = b

	p.headerLen, p.l4, p.totalLen = ipv6HeaderLen, ipv6HeaderLen, total
	p.tos, p.ttl, p.proto, p.dontFragment = h.trafficClass(), h.hopLimit(), h.nextHeader(), true
	p.tuple.Src.Addr, p.tuple.Dst.Addr, p.tuple.Proto = h.src(), h.dst(), p.proto
	if r := p.checkIPv6Addresses(); r != ReasonNone || p.staysOnLink() {
		return r
	}

	var c extensionChain
	if r := c.walk(b, super); r != ReasonNone {
		return r
	}
	p.headerLen, p.l4 = c.end, c.end
	p.proto, p.tuple.Proto = c.proto, c.proto
	if c.fragment == 0 {
		return ReasonNone
	}
	f := fragmentHeader(b[c.fragment:])
	p.moreFragments, p.fragOffset = f.more(), f.offset()
	if p.isFragment() {
		p.id, p.headerLen = f.id(), c.fragment+ipv6FragmentHeaderLen
	}
	return ReasonNone
}

// checkIPv6Addresses refuses addresses that can be in no packet on a link. The
// unspecified source is good towards neighbours only (RFC 4862 section 5.4.2).
// An IPv4-mapped address would be taken for the IPv4 host.
func (p *parsed) checkIPv6Addresses() Reason {
	src, dst := &p.tuple.Src.Addr, &p.tuple.Dst.Addr
	switch {
	case *src == conntrack.Addr{} && multicast(dst):
		return ReasonNone
	case badSourceIPv6(src):
		return ReasonSource
	case *src == *dst:
		return ReasonLand
	case badSourceIPv6(dst) && !multicast(dst):
		return ReasonDestination
	}
	return ReasonNone
}

// staysOnLink tells whether no router forwards an IPv6 packet, by its
// addresses (RFC 4291 sections 2.5.6 and 2.7).
func (p *parsed) staysOnLink() bool {
	return linkLocal(&p.tuple.Src.Addr) || linkLocal(&p.tuple.Dst.Addr) || multicast(&p.tuple.Dst.Addr)
}

// badSourceIPv6 tells whether an address of an IPv6 packet can be no host's:
// unspecified, loopback, IPv4-mapped and multicast (RFC 4291 section 2.5).
func badSourceIPv6(a *conntrack.Addr) bool {
	return *a == conntrack.Addr{} || *a == conntrack.Addr{15: 1} || a.Is4() || multicast(a)
}

func multicast(a *conntrack.Addr) bool { return a[0] == 0xff }

func linkLocal(a *conntrack.Addr) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }
