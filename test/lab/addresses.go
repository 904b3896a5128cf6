// SPDX-License-Identifier: Apache-2.0

package lab

import "net/netip"

// A plan is the addresses of the cluster in one version of IP. Of clients and
// servers it names the first; the others follow it.
type plan struct {
	version string // "4" or "6", the end of Go's names of networks: tcp4, udp6

	everywhere   netip.Prefix
	outside      netip.Prefix // client or router, and director
	inside       netip.Prefix // director and servers
	behindRouter netip.Prefix
	farNet       netip.Prefix

	vip           netip.Addr
	directorOwn   netip.Addr
	gateway       netip.Addr
	server        netip.Addr
	client        netip.Addr
	routedClient  netip.Addr // where the client is if it sits behind a router
	routerInside  netip.Addr
	routerOutside netip.Addr
	farGateway    netip.Addr
	farHost       netip.Addr
}

var ipv4Plan = plan{
	version:       "4",
	everywhere:    netip.MustParsePrefix("0.0.0.0/0"),
	outside:       netip.MustParsePrefix("192.168.88.0/24"),
	inside:        netip.MustParsePrefix("10.0.0.0/24"),
	behindRouter:  netip.MustParsePrefix("198.51.100.0/24"),
	farNet:        netip.MustParsePrefix("203.0.113.0/24"),
	vip:           netip.MustParseAddr("192.168.88.23"),
	directorOwn:   netip.MustParseAddr("192.168.88.20"),
	gateway:       netip.MustParseAddr("10.0.0.1"),
	server:        netip.MustParseAddr("10.0.0.2"),
	client:        netip.MustParseAddr("192.168.88.21"),
	routedClient:  netip.MustParseAddr("198.51.100.21"),
	routerInside:  netip.MustParseAddr("192.168.88.1"),
	routerOutside: netip.MustParseAddr("198.51.100.1"),
	farGateway:    netip.MustParseAddr("203.0.113.1"),
	farHost:       netip.MustParseAddr("203.0.113.9"),
}

// ipv6Plan has the digits of ipv4Plan where it can, read as hexadecimal ones.
var ipv6Plan = plan{
	version:       "6",
	everywhere:    netip.MustParsePrefix("::/0"),
	outside:       netip.MustParsePrefix("2001:db8:88::/64"),
	inside:        netip.MustParsePrefix("fd00:10::/64"),
	behindRouter:  netip.MustParsePrefix("2001:db8:100::/64"),
	farNet:        netip.MustParsePrefix("2001:db8:113::/64"),
	vip:           netip.MustParseAddr("2001:db8:88::23"),
	directorOwn:   netip.MustParseAddr("2001:db8:88::20"),
	gateway:       netip.MustParseAddr("fd00:10::1"),
	server:        netip.MustParseAddr("fd00:10::2"),
	client:        netip.MustParseAddr("2001:db8:88::21"),
	routedClient:  netip.MustParseAddr("2001:db8:100::21"),
	routerInside:  netip.MustParseAddr("2001:db8:88::1"),
	routerOutside: netip.MustParseAddr("2001:db8:100::1"),
	farGateway:    netip.MustParseAddr("2001:db8:113::1"),
	farHost:       netip.MustParseAddr("2001:db8:113::9"),
}

// plan returns the addresses that a cluster of this configuration has.
func (c Config) plan() plan {
	if c.IPv6 {
		return ipv6Plan
	}
	return ipv4Plan
}

// VIP returns the virtual address, 192.168.88.23 or 2001:db8:88::23.
func (c Config) VIP() netip.Addr { return c.plan().vip }

// Gateway returns the default gateway of the real servers, 10.0.0.1 or fd00:10::1.
func (c Config) Gateway() netip.Addr { return c.plan().gateway }

// RouterAddr returns the address of the router that its clients know, if there is
// one: 198.51.100.1 or 2001:db8:100::1.
func (c Config) RouterAddr() netip.Addr { return c.plan().routerOutside }

// Inside returns the network of the real servers, 10.0.0.0/24 or fd00:10::/64.
func (c Config) Inside() netip.Prefix { return c.plan().inside }

// ServerAddr returns the address of real server n, counted from 1: 10.0.0.2, …
// or fd00:10::2, …
func (c Config) ServerAddr(n int) netip.Addr { return after(c.plan().server, n-1) }

// ClientAddr returns the address of client n, counted from 1: 192.168.88.21, .22,
// .24 and so on (.23 is the VIP), or 198.51.100.21, … behind a router; in IPv6
// 2001:db8:88::21, ::22, ::24 or 2001:db8:100::21, …
func (c Config) ClientAddr(n int) netip.Addr {
	p := c.plan()
	if c.Router {
		return after(p.routedClient, n-1)
	}
	if n >= 3 {
		n++
	}
	return after(p.client, n-1)
}

// outsidePrefixes and insidePrefixes are what the director's links carry.
func (c Config) outsidePrefixes() []netip.Prefix {
	p := c.plan()
	switch c.Host {
	case HostVIPOnNIC:
		return []netip.Prefix{on(p.vip, p.outside)}
	case HostBare:
		return nil
	}
	return []netip.Prefix{on(p.directorOwn, p.outside)}
}

func (c Config) insidePrefixes() []netip.Prefix {
	if c.Host == HostBare {
		return nil
	}
	p := c.plan()
	return []netip.Prefix{on(p.gateway, p.inside)}
}

// after returns the address n behind another in a network of 256 or more.
func after(addr netip.Addr, n int) netip.Addr {
	b := addr.AsSlice()
	b[len(b)-1] += byte(n)
	next, _ := netip.AddrFromSlice(b)
	return next
}

// on returns an address with the length of its network, as an interface wants it.
func on(addr netip.Addr, network netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(addr, network.Bits())
}
