// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/userstack"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// How checks get to servers: by the way that their packets take. Where the host has
// an address to speak from there, its own stack does it. Where vsnat alone has one (a
// gateway under addresses:, for example), a stack of ours does, beside the packet
// loop and unseen by it, from held ports (see nat.Rules.SetHeld).

// checkPaths say for each address that is checked how; immutable.
type checkPaths struct {
	own     map[netip.Addr]bool  // by our own stack
	missing map[netip.Addr]error // not at all
}

// checkDialer is called by any goroutine. What nobody has thought about yet is left to
// the host, whose error then says what is wrong.
func (d *director) checkDialer(to netip.Addr) (health.Dialer, error) {
	paths := d.paths.Load()
	switch {
	case paths == nil:
	case paths.missing[to] != nil:
		return nil, paths.missing[to]
	case paths.own[to]:
		return d.stack, nil
	}
	return health.Host{}, nil
}

// aimChecks finds the ways anew. It is called before what it asks for is published.
func (d *director) aimChecks() {
	var list []netip.Addr
	for _, t := range d.roster.Targets() {
		if t.Type != health.Script && t.Type != health.File {
			list = append(list, t.Endpoint().Addr())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	list = slices.Compact(list)

	paths := &checkPaths{own: make(map[netip.Addr]bool), missing: make(map[netip.Addr]error)}
	var routes []userstack.Route
	var held []netip.Addr
	table := d.routes()
	for _, to := range list {
		way, ok := wayTo(table, to)
		if d.tunHost != nil || !ok || d.hostReaches(to, way) {
			continue // without any route the host says so
		}
		r, err := d.ownRoute(to, way)
		if err != nil {
			paths.missing[to] = err
			continue
		}
		routes = append(routes, r)
		paths.own[to] = true
		if !slices.Contains(held, r.Source) {
			held = append(held, r.Source)
		}
	}
	if len(routes) > 0 && d.stack == nil {
		if err := d.openStack(); err != nil {
			for to := range paths.own {
				paths.missing[to] = err
			}
			routes = nil
		}
	}
	if d.stack != nil {
		if err := d.stack.SetRoutes(routes); err != nil {
			d.problem("checks: " + err.Error())
			d.world.retry = true
		}
	}
	d.rules.SetHeld(held)
	d.paths.Store(paths)
}

// openStack makes the stack, whose clock is that of the packet loop.
func (d *director) openStack() (err error) {
	first := d.shards.First()
	d.stack, err = userstack.New(userstack.Config{
		Neighbours: d.neighbours, Now: func() iface.Time { return iface.Time(first.Clock()) },
		MinPort: nat.HeldMin, MaxPort: nat.HeldMax,
	})
	return err
}

// wayTo is the route that packets to a server take.
func wayTo(table []nat.Route, to netip.Addr) (best nat.Route, ok bool) {
	for _, r := range table {
		longer := !ok || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric
		if r.Dst.Contains(to) && longer {
			best, ok = r, true
		}
	}
	return best, ok
}

// hostReaches reports whether the host gets to a server by the same link, so that
// what it finds out is true for the packets of clients.
func (d *director) hostReaches(to netip.Addr, way nat.Route) bool {
	if way.Port == nat.NoPort {
		return true // it may know better
	}
	link, source, err := iface.HostWay(to)
	return err == nil && source.IsValid() && link == d.world.ports[way.Port%nat.MaxPorts].link
}

// ownRoute is the way of our own stack, from an address of ours that leads back.
func (d *director) ownRoute(to netip.Addr, way nat.Route) (r userstack.Route, err error) {
	port := &d.world.ports[way.Port%nat.MaxPorts]
	link, ok := d.world.topology.LinkByIndex(port.link)
	if !ok || !link.Ethernet {
		return r, fmt.Errorf("the way to %s is by %s, on which this host has no address", to, port.name)
	}
	r = userstack.Route{To: to, Link: link, Port: int(way.Port), NextHop: to}
	if way.Gateway.IsValid() {
		r.NextHop = way.Gateway
	}
	if r.Source = d.checkSource(to); !r.Source.IsValid() {
		return r, fmt.Errorf("neither this host nor vsnat has an address to check %s from: give vsnat one of that network under addresses:, for example %s",
			to, netip.PrefixFrom(to.Next(), to.BitLen()))
	}
	return r, nil
}

// checkSource is an address of ours to check a server from: one in its network, else
// any under addresses:, else that of the SNAT rule for it. The host has none of them.
func (d *director) checkSource(to netip.Addr) (source netip.Addr) {
	ours := d.rules.Ours()
	alone := func(a netip.Addr) bool {
		return a.Is4() == to.Is4() && slices.ContainsFunc(ours, func(o nat.OwnAddress) bool { return o.Addr == a && !o.OnHost })
	}
	for _, p := range d.cfg.Addresses {
		switch {
		case !alone(p.Addr()):
		case p.Contains(to):
			return p.Addr()
		case !source.IsValid():
			source = p.Addr()
		}
	}
	for _, s := range d.rules.SNATs() {
		if !source.IsValid() && s.From.Contains(to) && alone(s.To) {
			source = s.To
		}
	}
	return source
}
