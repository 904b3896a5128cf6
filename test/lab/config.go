// SPDX-License-Identifier: Apache-2.0

package lab

import "fmt"

// MaxServers is the most real servers a Config may ask for: 10.0.0.2 to 10.0.0.201
// or fd00:10::2 to fd00:10::c9.
const MaxServers = 200

// MaxClients is the most clients a Config may ask for.
const MaxClients = 8

// HostAddresses says which of the cluster's addresses the director's host has.
// What it does not have, vsnat must own (answer ARP or neighbour solicitations for).
// The constants name those of IPv4; Config.IPv6 has the same with its own.
type HostAddresses uint8

const (
	// HostBesideVIP: eth0 has 192.168.88.20 and eth1 10.0.0.1; the VIP is vsnat's.
	HostBesideVIP HostAddresses = iota
	// HostVIPOnNIC: eth0 has the VIP 192.168.88.23 and nothing else, eth1 10.0.0.1.
	HostVIPOnNIC
	// HostVIPOnLoopback: as HostBesideVIP, and lo has the VIP alone (/32, /128).
	HostVIPOnLoopback
	// HostBare: no address but the link-local ones of IPv6; VIP and gateway are both
	// vsnat's.
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
	Forward bool          // forwarding by the director's kernel; vsnat must work with both
	OneArm  bool          // everything on one link, director has eth0 only
	Router  bool          // the client sits behind a router: 198.51.100.21, one hop more
	Far     bool          // a host 203.0.113.9 behind the client, which forwards
	MTU     int           // of all links, 576 (IPv6: 1280) to 65535; 0 means 1500
	IPv6    bool          // the same in IPv6, and no IPv4 address anywhere
	Workers int           // of the director; 0: as many as it takes by itself
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

	minMTU := 576
	if c.IPv6 {
		minMTU = 1280 // the kernel takes IPv6 off a link that has less
	}
	switch {
	case c.Servers < 1 || c.Servers > MaxServers:
		return c, fmt.Errorf("%d real servers: the lab takes 1 to %d", c.Servers, MaxServers)
	case c.Clients < 1 || c.Clients > MaxClients:
		return c, fmt.Errorf("%d clients: the lab takes 1 to %d", c.Clients, MaxClients)
	case c.MTU < minMTU || c.MTU > 65535:
		return c, fmt.Errorf("MTU %d: must be %d to 65535", c.MTU, minMTU)
	case int(c.Host) >= len(hostAddressesNames):
		return c, fmt.Errorf("%v: unknown", c.Host)
	case c.Router && c.OneArm:
		return c, fmt.Errorf("a router and a one-armed director can't be had together")
	}
	return c, nil
}
