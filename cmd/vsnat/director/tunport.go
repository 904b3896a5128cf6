// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// With io: tun the host routes packets to a device of ours, and routes on what
// we give back. There is one port then, and no guard.

// tunName is the device's; the kernel chooses the number.
const tunName = "vsnat%d"

// tunMTU is the device's: whatever the links can carry fits.
const tunMTU = 65535

// tunPort is the index of the only port there is with io: tun.
const tunPort = 0

// openTUN makes the device and the host's routing towards it.
func (d *director) openTUN() error {
	if !hasAddress(d.world.topology) {
		return hinted{
			errors.New("io: tun has the host route packets, and the host has no address on any link"),
			"give it one on each side, or use io: packet, which needs none",
		}
	}
	queues, err := iface.OpenTUNs(tunName, tunMTU, len(d.shards))
	if err != nil {
		return err
	}
	var g shard.PortGroup
	for _, q := range queues {
		g = append(g, &shard.Port{Index: tunPort, L3: true, Queue: q})
	}
	if err := d.shards.SetPort(g); err != nil {
		return err
	}
	d.tunHost, err = iface.OpenTUNHost(queues[0].Name(), iface.TUNHostOptions{
		Reaper: d.options.Reaper, State: d.options.State,
	})
	return err
}

// claim has the host ask for addresses that are to be ours, and tells of those that
// are not.
func (d *director) claim(now time.Time) {
	if err := d.tunHost.Claim(now); err != nil {
		d.warn("claim", "problem", err.Error())
	}
	for _, t := range d.tunHost.Taken() {
		d.warn("taken "+t.Addr.String(), "an address is in use and is not claimed",
			fmt.Sprintf("%s, by %s on %s", t.Addr, conntrack.LinkAddr(t.MAC), t.Link))
	}
}

// hasAddress reports whether the host has an address that it can route by. Those
// that IPv6 links give themselves are none.
func hasAddress(t iface.Topology) bool {
	return slices.ContainsFunc(t.Links, func(l iface.Link) bool {
		return !l.Loopback && slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() })
	})
}

// throughTUN makes one port of all: the device, which has all their addresses.
func throughTUN(ports []nat.PortInfo, host *iface.TUNHost) []nat.PortInfo {
	tun := nat.PortInfo{Index: tunPort, Name: tunName, MTU: tunMTU, L3: true, Up: true}
	tun.Forwards4, tun.Forwards6 = host.Forwards()
	for _, p := range ports {
		tun.Addrs = append(tun.Addrs, p.Addrs...)
	}
	return []nat.PortInfo{tun}
}
