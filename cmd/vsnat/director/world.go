// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// The host as the director sees it: links become ports, addresses and routes
// go to the rules, and what the rules say goes to filters, neighbours and the
// guard. follow does all of it anew at each change; everything it calls leaves
// alone what did not change.

type world struct {
	topology iface.Topology
	ports    [nat.MaxPorts]servedPort
	host     nat.HostAddresses
	filter   iface.Filter
	owned    []netip.Addr
	served   []string // names of the links that are served
	problems []string
}

// servedPort is a port index. It keeps its name for good, so that a link that
// comes back finds its old place, and connections theirs.
type servedPort struct {
	name string
	link int // index of the link that is open, 0: none
	mac  conntrack.LinkAddr
	mtu  int
}

func (w *world) forget(link int) {
	for i := range w.ports {
		if w.ports[i].link == link {
			w.ports[i].link = 0
		}
	}
}

// index returns the index of a name, a new one if need be, or -1 if there are
// too many.
func (w *world) index(name string) int {
	for i := range w.ports {
		if w.ports[i].name == name {
			return i
		}
	}
	for i := range w.ports {
		if w.ports[i].name == "" || w.ports[i].link == 0 && w.gone(w.ports[i].name) {
			w.ports[i] = servedPort{name: name}
			return i
		}
	}
	return -1
}

func (w *world) gone(name string) bool {
	_, ok := w.topology.LinkByName(name)
	return !ok
}

// strictness says what follow does about a port that does not open.
type strictness int

const (
	strict  strictness = iota // refuses: at the start
	lenient                   // tells, and tries again with the next change
)

// follow brings ports, rules, filters, neighbours and guard in line with the
// topology and the configuration.
func (d *director) follow(s strictness) error {
	d.world.problems = nil
	d.readHost()
	var ports []nat.PortInfo
	var neighbours []iface.NeighbourPort
	var names []string
	serving, err := d.world.topology.Serving(d.cfg.Interfaces)
	if err != nil {
		if s == strict {
			return err
		}
		d.problem(err.Error())
	}
	if len(serving) == 0 {
		d.problem("no network interface can be served")
	}
	for _, link := range serving {
		i := d.world.index(link.Name)
		if i < 0 {
			d.problem(fmt.Sprintf("%s: more than %d interfaces; name those to serve under interfaces:", link.Name, nat.MaxPorts))
			continue
		}
		names = append(names, link.Name)
		if d.tunHost == nil {
			if err := d.openPort(i, link); err != nil {
				if s == strict {
					return err
				}
				d.problem(err.Error())
				continue
			}
		}
		ports = append(ports, nat.PortInfo{
			Index: uint16(i), Name: link.Name, MTU: link.MTU, Up: link.AdminUp, Addrs: link.Addrs,
		})
		neighbours = append(neighbours, iface.NeighbourPort{Port: i, MAC: link.MAC, Addrs: d.addrsOf(link)})
	}
	d.closeUnserved(names)
	routes := d.routes()
	if d.tunHost != nil {
		ports, routes = throughTUN(ports, routes)
	} else {
		d.neighbours.SetPorts(neighbours)
		d.neighbours.SetPermanent(d.permanent())
	}
	d.rules.SetPorts(ports)
	d.rules.SetRoutes(routes)
	d.rules.SetHost(d.world.host)
	d.world.served = names
	return d.publish()
}

// publish makes the rules as they are now the ones in force: for the host
// first, so that it never answers for what is about to be ours.
func (d *director) publish() error {
	own := d.rules.Ours()
	var err error
	if d.tunHost != nil {
		err = d.tunHost.Apply(d.guardRules(own, d.world.served))
	} else {
		err = d.guard.Apply(d.guardRules(own, d.world.served))
	}
	if err != nil {
		err = fmt.Errorf("keeping the host's own stack away: %w", err)
		d.problem(err.Error())
	}
	d.rules.Publish()

	var ours, owned []netip.Addr
	for _, a := range own {
		ours = append(ours, a.Addr)
		if !a.OnHost {
			owned = append(owned, a.Addr)
		}
	}
	filter := iface.Filter{Ours: ours, Inside: d.inside()}
	announce := !slices.Equal(owned, d.world.owned)
	d.world.owned = owned
	d.neighbours.SetOwned(owned)
	d.shard.do(func() {
		for _, p := range d.shard.ports {
			if p == nil {
				continue
			}
			if e := p.queue.SetFilter(filter); e != nil && !iface.IsDown(e) && !iface.IsGone(e) {
				d.log.Error("filter", "port", p.name, "error", e)
			}
		}
		if announce {
			d.neighbours.Announce(d.shard.sendNow)
		}
		d.shard.forwarder.Begin(d.shard.now)
	})
	d.world.filter = filter
	return err
}

func (d *director) problem(text string) {
	d.world.problems = append(d.world.problems, text)
	d.warn(text, "problem", text)
}

// openPort opens a link's queue, or brings an open one up to date.
func (d *director) openPort(i int, link iface.Link) error {
	w := &d.world.ports[i]
	if w.link == link.Index && w.mac == conntrack.LinkAddr(link.MAC) {
		w.mtu = link.MTU
		return nil
	}
	queue, err := iface.OpenPacket(link, iface.PacketOptions{Filter: d.world.filter})
	if err != nil {
		return err
	}
	p := &port{index: uint16(i), link: link.Index, name: link.Name, mac: link.MAC, queue: queue}
	d.shard.do(func() { err = d.shard.setPort(p) })
	if err != nil {
		_ = queue.Close() // the first error is the one to tell
		return err
	}
	*w = servedPort{name: link.Name, link: link.Index, mac: link.MAC, mtu: link.MTU}
	d.log.Info("port open", "port", link.Name, "mtu", link.MTU, "kind", link.Kind)
	return nil
}

// closeUnserved closes the ports that are not among names.
func (d *director) closeUnserved(names []string) {
	for i := range d.world.ports {
		w := &d.world.ports[i]
		if w.link == 0 || slices.Contains(names, w.name) || d.tunHost != nil {
			continue
		}
		w.link = 0
		d.shard.do(func() { d.shard.closePort(d.shard.ports[i]) })
		d.log.Info("port closed", "port", w.name)
	}
}

// hinted is an error with the next step for the operator.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// readHost takes up the host's addresses and busy ports.
func (d *director) readHost() {
	var h nat.HostAddresses
	for _, l := range d.world.topology.Links {
		for _, a := range l.Addrs {
			if a.Addr().Is4() {
				h.Addrs = append(h.Addrs, a.Addr())
			}
		}
	}
	lo, hi, err := iface.EphemeralRange()
	if err != nil {
		d.warn("ephemeral ports", "ephemeral ports", err.Error())
	}
	h.EphemeralMin, h.EphemeralMax = lo, hi
	busy, err := iface.BusyPorts()
	if err != nil {
		d.warn("busy ports", "busy ports", err.Error())
	}
	for _, b := range busy {
		if b.Port >= lo && b.Port <= hi || b.Addr.IsLoopback() {
			continue
		}
		addr := b.Addr.Unmap()
		if addr == netip.IPv6Unspecified() {
			addr = netip.IPv4Unspecified()
		}
		if addr.Is4() {
			h.Busy = append(h.Busy, nat.BusyEndpoint{Proto: b.Proto, Addr: addr, Port: b.Port})
		}
	}
	d.world.host = h
}

// refreshPorts follows the host's sockets, where it shares an address with us.
func (d *director) refreshPorts() {
	if !slices.ContainsFunc(d.rules.Ours(), func(a nat.OwnAddress) bool { return a.OnHost }) {
		return
	}
	old := d.world.host
	d.readHost()
	if slices.Equal(old.Busy, d.world.host.Busy) && old.EphemeralMin == d.world.host.EphemeralMin && old.EphemeralMax == d.world.host.EphemeralMax {
		return
	}
	d.rules.SetHost(d.world.host)
	if err := d.publish(); err != nil {
		d.log.Error("cannot follow the host's sockets", "error", err)
	}
}

// addrsOf returns the addresses on a link: the host's, and those of ours whose
// network is routed there.
func (d *director) addrsOf(link iface.Link) []netip.Prefix {
	addrs := slices.Clone(link.Addrs)
	for _, a := range d.cfg.Addresses {
		for _, r := range d.cfg.Routes {
			if r.Interface == link.Name && !r.Via.IsValid() && r.Destination.Contains(a.Addr()) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

func (d *director) portOf(link int) (uint16, bool) {
	l, ok := d.world.topology.LinkByIndex(link)
	if !ok {
		return 0, false
	}
	return d.portNamed(l.Name)
}

func (d *director) portNamed(name string) (uint16, bool) {
	i := slices.IndexFunc(d.world.ports[:], func(p servedPort) bool { return p.name == name })
	return uint16(i), i >= 0 && name != ""
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
		port, ok := d.portNamed(name)
		if !ok {
			d.problem(fmt.Sprintf("route %s: no interface to go by", r.Destination))
			continue
		}
		list = append(list, nat.Route{Dst: r.Destination, Gateway: r.Via, Port: port, Metric: -1})
	}
	for _, r := range d.world.topology.Routes {
		port, ok := d.portOf(r.Link)
		if !ok || !r.Dst.Addr().Is4() || r.Gateway.IsValid() && !r.Gateway.Is4() {
			continue
		}
		list = append(list, nat.Route{Dst: r.Dst, Gateway: r.Gateway, Port: port, MTU: r.MTU, Metric: r.Metric, Source: r.Source})
	}
	return list
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

func (d *director) permanent() []iface.PermanentNeighbour {
	var list []iface.PermanentNeighbour
	for _, n := range d.world.topology.Permanent {
		if port, ok := d.portOf(n.Link); ok {
			list = append(list, iface.PermanentNeighbour{Port: int(port), Addr: n.Addr, MAC: n.MAC})
		}
	}
	return list
}

// inside lists whose packets are read although they are not for us: the real
// servers, and the networks of SNAT rules.
func (d *director) inside() []netip.Prefix {
	var list []netip.Prefix
	seen := make(map[netip.Prefix]bool)
	add := func(p netip.Prefix) {
		if !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	for _, r := range d.rules.SNATs() {
		add(r.From)
	}
	for _, s := range d.rules.Services() {
		for _, v := range s.Servers {
			add(netip.PrefixFrom(v.Addr, v.Addr.BitLen()))
		}
	}
	return list
}

// conflict is told that another station claims an address of ours.
func (d *director) conflict(port int, addr netip.Addr, mac [6]byte) {
	d.log.Warn("another station claims an address of ours", "address", addr, "mac", conntrack.LinkAddr(mac).String(), "port", port)
}
