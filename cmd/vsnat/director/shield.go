// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"net/netip"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// What keeps the host's own stack away from our packets: a guard on the links,
// or with io: tun the routing that brings them to us instead.

func (d *director) openGuard() error {
	guard, err := iface.OpenGuard(string(d.cfg.Guard))
	if err != nil {
		return err
	}
	d.guard = guard
	return nil
}

func (d *director) guardRules(own []nat.OwnAddress, names []string) iface.GuardRules {
	g := iface.GuardRules{Links: names, Host: d.world.host.Addrs}
	onHost := make(map[netip.Addr]bool)
	for _, a := range own {
		if a.OnHost {
			onHost[a.Addr] = true
		} else {
			g.Owned = append(g.Owned, a.Addr)
		}
	}
	for _, s := range d.rules.Services() {
		if onHost[s.Addr] {
			g.Services = append(g.Services, iface.GuardService{Proto: s.Proto, Addr: s.Addr, Port: s.Port})
		}
		for _, v := range s.Servers {
			g.Servers = append(g.Servers, iface.GuardService{Proto: s.Proto, Addr: v.Addr, Port: v.Port})
		}
	}
	for _, r := range d.rules.SNATs() {
		g.Inside = append(g.Inside, r.From)
	}
	for _, p := range d.rules.HostPorts() {
		g.SNAT = append(g.SNAT, iface.GuardPorts{Addr: p.Addr, Min: p.Min, Max: p.Max, Except: p.Except})
	}
	return g
}

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
	tun, err := iface.OpenTUN(tunName, tunMTU)
	if err != nil {
		return err
	}
	p := &port{index: tunPort, name: tun.Name(), l3: true, queue: tun}
	d.shard.do(func() { err = d.shard.setPort(p) })
	if err != nil {
		_ = tun.Close() // the first error is the one to tell
		return err
	}
	d.tunHost, err = iface.OpenTUNHost(tun.Name(), iface.TUNHostOptions{
		Reaper: d.options.Reaper, State: d.options.State,
	})
	return err
}

// hasAddress reports whether the host has an address that others can send to.
func hasAddress(t iface.Topology) bool {
	for _, l := range t.Links {
		if !l.Loopback && len(l.Addrs) > 0 {
			return true
		}
	}
	return false
}

// throughTUN has every route go by the device. The MTU stays that of the link
// behind it: a packet that the host could not send on would be answered with
// its translated addresses.
func throughTUN(ports []nat.PortInfo, routes []nat.Route) ([]nat.PortInfo, []nat.Route) {
	mtu := make(map[uint16]int)
	tun := nat.PortInfo{Index: tunPort, Name: tunName, MTU: tunMTU, L3: true, Up: true}
	for _, p := range ports {
		mtu[p.Index] = p.MTU
		tun.Addrs = append(tun.Addrs, p.Addrs...)
	}
	for i := range routes {
		r := &routes[i]
		if r.MTU == 0 || mtu[r.Port] < r.MTU {
			r.MTU = mtu[r.Port]
		}
		r.Port = tunPort
	}
	return []nat.PortInfo{tun}, routes
}
