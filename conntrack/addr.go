// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"net"
	"net/netip"
)

// Addr is an IPv4 or IPv6 address in network byte order. IPv4 is held in its
// mapped form, ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), so that one code
// path compares, hashes and stores both families. An array, not a
// [netip.Addr], because that one holds a pointer: a slab of it could not live
// outside the garbage collector's sight.
type Addr [16]byte

// AddrFrom4 maps an IPv4 address in network byte order.
func AddrFrom4(a [4]byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: a[0], 13: a[1], 14: a[2], 15: a[3]}
}

// AddrFrom converts a; a zone is dropped, and the zero netip.Addr gives the
// zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}

	return a.As16()
}

// Netip gives the address back, IPv4 unmapped. The zero Addr gives "::".
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Is4 says whether a is an IPv4 address in its mapped form.
func (a Addr) Is4() bool {
	return [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff}
}

// String is "192.0.2.7" or "2001:db8::7".
func (a Addr) String() string { return a.Netip().String() }

// Endpoint is one end of a connection. Port is in host byte order; for ICMP
// echo it is the identifier on our and the inside side, and 0 outside.
type Endpoint struct {
	Addr Addr
	Port uint16
}

// EndpointFrom converts ap; see [AddrFrom].
func EndpointFrom(ap netip.AddrPort) Endpoint {
	return Endpoint{AddrFrom(ap.Addr()), ap.Port()}
}

// AddrPort gives the endpoint back, IPv4 unmapped.
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(e.Addr.Netip(), e.Port)
}

// String is "192.0.2.7:40000" or "[2001:db8::7]:40000".
func (e Endpoint) String() string { return e.AddrPort().String() }

// LinkAddr is an Ethernet address as on the wire. Zero stands for unknown.
type LinkAddr [6]byte

// String is "02:00:00:00:00:07".
func (l LinkAddr) String() string { return net.HardwareAddr(l[:]).String() }
