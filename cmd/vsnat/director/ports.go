// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// Which links are open, and under which index.
//
// Connections refer to a port by its index, so that an index stays with its
// link: through a new name, and through a removal if a link of the same name
// comes back. Only when all indices were used does a new link get that of one
// that is gone, and the connections forget it first.

// servedPort is the place of a port index.
type servedPort struct {
	name   string // of the link, the last one if it is gone
	link   int    // index of the link, the last one if it is gone
	mac    conntrack.LinkAddr
	addrs  []netip.Prefix
	served bool            // by the last follow
	open   shard.PortGroup // nil: not open, or with io: tun
}

// index returns the index of a link, or -1 if there are too many, and whether
// another link had it before.
func (w *world) index(link iface.Link) (i int, reused bool) {
	is := func(p servedPort) bool { return p.name != "" && p.link == link.Index }
	if i := slices.IndexFunc(w.ports[:], is); i >= 0 {
		return i, false
	}
	gone := func(p servedPort) bool {
		_, there := w.topology.LinkByIndex(p.link)
		return !there
	}
	cameBack := func(p servedPort) bool { return p.name == link.Name && gone(p) }
	if i := slices.IndexFunc(w.ports[:], cameBack); i >= 0 {
		return i, false
	}
	if i := slices.IndexFunc(w.ports[:], func(p servedPort) bool { return p.name == "" }); i >= 0 {
		return i, false
	}
	i = slices.IndexFunc(w.ports[:], gone)
	return i, i >= 0
}

// openLinks are the ports that are open, by index of the link.
func (w *world) openLinks() map[int]shard.PortGroup {
	open := make(map[int]shard.PortGroup)
	for i := range w.ports {
		if p := &w.ports[i]; p.open != nil {
			open[p.link] = p.open
		}
	}
	return open
}

// serve opens the ports of links, closes all others, and returns those that
// are open, and the first failure.
func (d *director) serve(links []iface.Link) (ports []nat.PortInfo, first error) {
	w := &d.world
	for i := range w.ports {
		w.ports[i].served = false
	}
	w.served = nil
	for _, link := range links {
		i, reused := w.index(link)
		if i < 0 {
			d.problem(fmt.Sprintf("%s: more than %d interfaces; name those to serve under interfaces:", link.Name, nat.MaxPorts))
			continue
		}
		if reused {
			d.forgetPort(i)
		}
		w.served = append(w.served, link.Name)
		p := &w.ports[i]
		if err := d.openPort(i, link); err != nil {
			first = cmpError(first, err)
			d.problem(err.Error())
			w.retry = true
			p.name, p.link = link.Name, link.Index
			continue
		}
		p.name, p.link, p.mac, p.served = link.Name, link.Index, link.MAC, true
		p.addrs = d.addrsOf(link)
		ports = append(ports, nat.PortInfo{
			Index: uint16(i), Name: link.Name, MTU: link.MTU, Up: link.AdminUp, Addrs: link.Addrs,
		})
	}
	d.closeUnserved()
	return ports, first
}

// openPort opens a link's queue, unless it is open.
func (d *director) openPort(i int, link iface.Link) error {
	w := &d.world.ports[i]
	if d.tunHost != nil || w.open != nil && w.link == link.Index && w.mac == conntrack.LinkAddr(link.MAC) {
		return nil
	}
	d.closePort(w) // of another link, or with another address
	steering := iface.Steering{Mask4: d.key.Mask4, Mask6: d.key.Mask6}
	options := iface.PacketOptions{Filter: d.world.filter}
	short := d.openShortcutLink(link)
	if short != nil {
		options.Sieve = d.shortcuts
	}
	queues, err := iface.OpenPackets(link, options, steering, len(d.shards))
	if errors.Is(err, iface.ErrSieve) {
		d.shortcutsFailed(link.Name, err)
		short.Close()
		queues, err = iface.OpenPackets(link, iface.PacketOptions{Filter: d.world.filter}, steering, len(d.shards))
	}
	if err != nil {
		short.Close()
		return err
	}
	var g shard.PortGroup
	for _, q := range queues {
		g = append(g, &shard.Port{Index: uint16(i), MAC: link.MAC, Queue: q, Shortcuts: short})
	}
	if err := d.shards.SetPort(g); err != nil {
		return fmt.Errorf("%s: %w", link.Name, err)
	}
	w.open = g
	d.world.announce = true
	d.log.Info("port open", "port", link.Name, "mtu", link.MTU, "kind", link.Kind)
	d.event(control.Event{Kind: control.EventPortOpen, Link: link.Name, Text: link.Name + " is served"})
	return nil
}

// closePort closes a port, if it is open.
func (d *director) closePort(w *servedPort) {
	if w.open != nil {
		w.open[0].Shortcuts.Close() // before the queues, which get what it has taken
	}
	d.shards.ClosePort(w.open)
	w.open = nil
}

// forgetPort makes connections forget an index.
func (d *director) forgetPort(i int) {
	d.closePort(&d.world.ports[i])
	d.world.ports[i] = servedPort{}
	d.shards.ForgetPort(uint16(i))
}

// closeUnserved closes the ports that are open and not served.
func (d *director) closeUnserved() {
	for i := range d.world.ports {
		w := &d.world.ports[i]
		if w.open == nil || w.served {
			continue
		}
		d.closePort(w)
		d.log.Info("port closed", "port", w.name)
		d.event(control.Event{Kind: control.EventPortClosed, Link: w.name, Text: w.name + " is served no more"})
	}
}

// portLost is called by a shard when it closed a port that failed. The others close
// theirs.
func (d *director) portLost(p *shard.Port, err error) {
	d.tell(func() {
		w := &d.world.ports[p.Index]
		if !slices.Contains(w.open, p) {
			return // it was replaced meanwhile
		}
		d.closePort(w)
		d.world.retry = true
		d.event(control.Event{Kind: control.EventPortClosed, Link: w.name, Text: "port failed: " + err.Error()})
		if !iface.IsGone(err) {
			d.warn("port "+w.name, "port failed", err.Error())
		}
	})
}

// auditPorts finds ports whose failure was not heard of.
func (d *director) auditPorts() {
	if d.tunHost != nil {
		return
	}
	for i := range d.world.ports {
		w := &d.world.ports[i]
		if w.open != nil && !d.shards.Serve(w.open) {
			d.closePort(w)
			d.world.retry = true
		}
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

func (d *director) neighbourPorts() []iface.NeighbourPort {
	var list []iface.NeighbourPort
	for i := range d.world.ports {
		if p := &d.world.ports[i]; p.served {
			list = append(list, iface.NeighbourPort{Port: i, MAC: p.mac, Addrs: p.addrs})
		}
	}
	return list
}
