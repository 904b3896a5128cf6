// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
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

// shield makes g the rules of the guard, or of the host's routing.
func (d *director) shield(g iface.GuardRules) error {
	var err error
	if d.tunHost != nil {
		err = d.tunHost.Apply(g)
	} else {
		err = d.guard.Apply(g)
	}
	if err != nil {
		return fmt.Errorf("keeping the host's own stack away: %w", err)
	}
	return nil
}

func (d *director) guardMethod() string {
	if d.guard == nil {
		return "none"
	}
	return d.guard.Method()
}

// guardRules says what the host must not get. own are the addresses of ours,
// host those that the host has, and links the names of those that are served. A
// deleted server stays among the servers while it has connections: what it sends
// for them is translated as before.
func guardRules(r *nat.Rules, own []nat.OwnAddress, host []netip.Addr, links []string) iface.GuardRules {
	g := iface.GuardRules{Links: links, Host: host}
	onHost := make(map[netip.Addr]bool)
	for _, a := range own {
		if a.OnHost {
			onHost[a.Addr] = true
		} else {
			g.Owned = append(g.Owned, a.Addr)
		}
	}
	for _, s := range r.Services() {
		if onHost[s.Addr] {
			g.Services = append(g.Services, iface.GuardService{Proto: s.Proto, Addr: s.Addr, Port: s.Port})
		}
	}
	guardServers(&g, r)
	guardMarked(&g, r, onHost)
	for _, s := range r.SNATs() {
		g.Inside = append(g.Inside, s.From)
	}
	for _, p := range r.HostPorts() {
		g.SNAT = append(g.SNAT, iface.GuardPorts{Addr: p.Addr, Min: p.Min, Max: p.Max, Except: p.Except})
	}
	return g
}
