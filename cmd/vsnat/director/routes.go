// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// A way is how a link is left by: the index of a port, and with io: tun the MTU
// of the link, which the device in front of it does not have.
type way struct {
	port uint16
	mtu  int // 0: the port's
}

// way returns how to leave by a link, false if there is none: it is not served.
// With io: tun the host sends, and can do so by each of its links. The MTU
// counts all the same, since the host would answer a packet that does not fit
// with the translated addresses in it.
func (d *director) way(link int) (way, bool) {
	if d.tunHost != nil {
		l, ok := d.world.topology.LinkByIndex(link)
		return way{tunPort, l.MTU}, ok && l.AdminUp
	}
	for i := range d.world.ports {
		if p := &d.world.ports[i]; p.served && p.link == link {
			return way{port: uint16(i)}, true
		}
	}
	return way{}, false
}

// routes returns the configuration's routes and then the host's, of which the
// first that holds an address counts among equally long ones.
func (d *director) routes() []nat.Route {
	var list []nat.Route
	for _, r := range d.cfg.Routes {
		name := r.Interface
		if name == "" {
			name = d.linkTo(r.Via)
		}
		link, _ := d.world.topology.LinkByName(name)
		way, ok := d.way(link.Index)
		if !ok {
			d.problem(fmt.Sprintf("route %s: no interface to go by", r.Destination))
			continue
		}
		list = append(list, nat.Route{Dst: r.Destination, Gateway: r.Via, Port: way.port, MTU: way.mtu, Metric: -1})
	}
	return append(list, hostRoutes(d.world.topology.Routes, d.way)...)
}

// hostRoutes converts the host's routes. One that says no (unreachable,
// blackhole), one by a link that is not served and one by a gateway of the other family stay
// as routes without a port, so that no shorter prefix takes their packets
// elsewhere; but a usable one of the same prefix and metric comes first.
func hostRoutes(routes []iface.Route, by func(link int) (way, bool)) []nat.Route {
	var usable, not []nat.Route
	for _, r := range routes {
		way, ok := by(r.Link)
		if !ok || r.Link == 0 || r.Gateway.IsValid() && r.Gateway.Is4() != r.Dst.Addr().Is4() {
			not = append(not, nat.Route{Dst: r.Dst, Port: nat.NoPort, Metric: r.Metric})
			continue
		}
		mtu := r.MTU
		if mtu == 0 || way.mtu != 0 && way.mtu < mtu {
			mtu = way.mtu
		}
		usable = append(usable, nat.Route{Dst: r.Dst, Gateway: r.Gateway, Port: way.port, MTU: mtu, Metric: r.Metric, Source: r.Source})
	}
	return append(usable, not...)
}

// linkTo returns the name of the link that a gateway is on.
func (d *director) linkTo(gateway netip.Addr) string {
	for _, l := range d.world.topology.Links {
		for _, a := range l.Addrs {
			if a.Contains(gateway) {
				return l.Name
			}
		}
	}
	for _, r := range d.cfg.Routes {
		if !r.Via.IsValid() && r.Destination.Contains(gateway) {
			return r.Interface
		}
	}
	return ""
}

// permanent lists the host's pinned neighbours behind our ports.
func (d *director) permanent() []iface.PermanentNeighbour {
	var list []iface.PermanentNeighbour
	for _, n := range d.world.topology.Permanent {
		if way, ok := d.way(n.Link); ok {
			list = append(list, iface.PermanentNeighbour{Port: int(way.port), Addr: n.Addr, MAC: n.MAC})
		}
	}
	return list
}
