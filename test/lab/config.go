// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
)

// The addresses of the reference cluster.
var (
	outside       = netip.MustParsePrefix("192.168.88.0/24")
	inside        = netip.MustParsePrefix("10.0.0.0/24")
	behindRouter  = netip.MustParsePrefix("198.51.100.0/24")
	farNet        = netip.MustParsePrefix("203.0.113.0/24")
	vip           = netip.MustParseAddr("192.168.88.23")
	gateway       = netip.MustParseAddr("10.0.0.1")
	directorOwn   = netip.MustParseAddr("192.168.88.20")
	firstClient   = netip.MustParseAddr("192.168.88.21")
	routerInside  = netip.MustParseAddr("192.168.88.1")
	routerOutside = netip.MustParseAddr("198.51.100.1")
	farGateway    = netip.MustParseAddr("203.0.113.1")
	farHost       = netip.MustParseAddr("203.0.113.9")
)

// MaxServers is the most real servers a Config may ask for: 10.0.0.2 to 10.0.0.201.
const MaxServers = 200

// MaxClients is the most clients a Config may ask for.
const MaxClients = 8

// HostAddresses says which of the cluster's addresses the director's host has.
// What it does not have, vsnat must own (answer ARP for).
type HostAddresses uint8

const (
	// HostBesideVIP: eth0 has 192.168.88.20 and eth1 10.0.0.1; the VIP is vsnat's.
	HostBesideVIP HostAddresses = iota
	// HostVIPOnNIC: eth0 has the VIP 192.168.88.23 and nothing else, eth1 10.0.0.1.
	HostVIPOnNIC
	// HostVIPOnLoopback: as HostBesideVIP, and lo has the VIP as a /32.
	HostVIPOnLoopback
	// HostBare: no address at all; VIP and gateway are both vsnat's.
	HostBare
)

// HostAddressesNames lists the names of HostAddresses in their order.
var hostAddressesNames = [...]string{"none", "nic", "lo", "bare"}

// String returns the name that ParseHostAddresses reads.
func (h HostAddresses) String() string {
	if int(h) >= len(hostAddressesNames) {
		return fmt.Sprintf("HostAddresses(%d)", uint8(h))
	}
	return hostAddressesNames[h]
}

// ParseHostAddresses reads none, nic, lo or bare.
func ParseHostAddresses(name string) (HostAddresses, error) {
	for i, n := range hostAddressesNames {
		if n == name {
			return HostAddresses(i), nil
		}
	}
	return 0, fmt.Errorf("unknown place of the VIP %q: none, nic, lo or bare", name)
}

// Config describes a cluster. The zero value is the reference cluster: one
// client, three real servers, the VIP on no host.
type Config struct {
	Servers int           // real servers, 1 to MaxServers; 0 means 3
	Clients int           // 1 to MaxClients; 0 means 1
	Host    HostAddresses // what the director's host has
	Forward bool          // net.ipv4.ip_forward of the director; vsnat must work with both
	OneArm  bool          // everything on one link, director has eth0 only
	Router  bool          // the client sits behind a router: 198.51.100.21, one hop more
	Far     bool          // a host 203.0.113.9 behind the client, which forwards
	MTU     int           // of all links, 576 to 65535; 0 means 1500
}

// complete fills in what zero stands for, and refuses what can't be built.
func (c Config) complete() (Config, error) {
	if c.Servers == 0 {
		c.Servers = 3
	}
	if c.Clients == 0 {
		c.Clients = 1
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}

	switch {
	case c.Servers < 1 || c.Servers > MaxServers:
		return c, fmt.Errorf("%d real servers: the lab takes 1 to %d", c.Servers, MaxServers)
	case c.Clients < 1 || c.Clients > MaxClients:
		return c, fmt.Errorf("%d clients: the lab takes 1 to %d", c.Clients, MaxClients)
	case c.MTU < 576 || c.MTU > 65535:
		return c, fmt.Errorf("MTU %d: must be 576 to 65535", c.MTU)
	case int(c.Host) >= len(hostAddressesNames):
		return c, fmt.Errorf("%v: unknown", c.Host)
	case c.Router && c.OneArm:
		return c, fmt.Errorf("a router and a one-armed director can't be had together")
	}
	return c, nil
}

// VIP returns the virtual address, 192.168.88.23.
func (c Config) VIP() netip.Addr { return vip }

// Gateway returns the default gateway of the real servers, 10.0.0.1.
func (c Config) Gateway() netip.Addr { return gateway }

// Inside returns the network of the real servers, 10.0.0.0/24.
func (c Config) Inside() netip.Prefix { return inside }

// ServerAddr returns the address of real server n, counted from 1: 10.0.0.2, …
func (c Config) ServerAddr(n int) netip.Addr { return nth(inside, n+1) }

// ClientAddr returns the address of client n, counted from 1: 192.168.88.21, .22,
// .24 and so on (.23 is the VIP), or 198.51.100.21, … behind a router.
func (c Config) ClientAddr(n int) netip.Addr {
	if c.Router {
		return nth(behindRouter, 20+n)
	}
	if n >= 3 {
		n++
	}
	return nth(outside, 20+n)
}

// outsidePrefixes and insidePrefixes are what the director's links carry.
func (c Config) outsidePrefixes() []netip.Prefix {
	switch c.Host {
	case HostVIPOnNIC:
		return []netip.Prefix{on(vip, outside)}
	case HostBare:
		return nil
	}
	return []netip.Prefix{on(directorOwn, outside)}
}

func (c Config) insidePrefixes() []netip.Prefix {
	if c.Host == HostBare {
		return nil
	}
	return []netip.Prefix{on(gateway, inside)}
}

// nth returns host n of an IPv4 network, n below 256.
func nth(network netip.Prefix, n int) netip.Addr {
	b := network.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}

// on returns an address with the length of its network, as an interface wants it.
func on(addr netip.Addr, network netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(addr, network.Bits())
}
