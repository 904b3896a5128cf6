// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// The host as the director sees it: links become ports (ports.go), addresses
// and sockets what nat must leave alone (hostports.go), routes ways onward
// (routes.go), and what the rules say goes to filters, neighbours and the
// guard. follow does all of it anew at each change; everything it calls leaves
// alone what did not change.

type world struct {
	topology  iface.Topology
	ports     [nat.MaxPorts]servedPort
	host      nat.HostAddresses
	hostRead  time.Time // of host's sockets
	hostAsked bool      // somebody asks for a port that may be one of them by now
	filter    iface.Filter
	owned     []netip.Addr
	served    []string // names of the links that are served

	announce   bool      // something asked for announcements; publish makes them
	announceAt time.Time // when they are made once more, or zero
	retry      bool      // something failed that may work a tick later

	problems   []string // of the last follow
	unfinished []string // of the last publish
	unshielded bool     // the last publish could not keep the host's stack away
}

// hostChanged takes up a new topology.
func (d *director) hostChanged(t iface.Topology) {
	old := d.world.topology
	if t.Equal(old) {
		return
	}
	d.world.topology = t
	for i := range d.world.ports {
		w := &d.world.ports[i]
		was, _ := old.LinkByIndex(w.link)
		is, _ := t.LinkByIndex(w.link)
		switch {
		case was.Up && !is.Up:
			d.event(control.Event{Kind: control.EventLinkDown, Link: w.name, Text: w.name + " is down"})
			d.neighbours.Flush(i) // another station may be there when it is back
		case !was.Up && is.Up:
			d.event(control.Event{Kind: control.EventLinkUp, Link: w.name, Text: w.name + " is up"})
			d.neighbours.Flush(i) // what was asked of a link without carrier nobody heard
			d.world.announce = true
		}
	}
	d.follow()
}

// follow brings ports, rules, filters, neighbours and guard in line with the
// topology and the configuration. It goes on where something fails, and
// returns the first failure: a start refuses it, later it is a problem that
// Health tells of until it is over.
func (d *director) follow() (first error) {
	w := &d.world
	w.problems, w.retry = nil, false
	failed := func(err error) {
		first = cmpError(first, err)
		d.problem(err.Error())
	}
	d.readHost()
	serving, err := w.topology.Serving(d.cfg.Interfaces)
	if err != nil {
		failed(err)
	}
	if len(serving) == 0 {
		d.problem("no network interface can be served")
	}
	ports, err := d.serve(serving)
	if err != nil {
		failed(err)
	}
	routes := d.routes()
	if d.tunHost != nil {
		ports = throughTUN(ports, d.tunHost)
	} else {
		d.neighbours.SetPorts(d.neighbourPorts())
		d.neighbours.SetPermanent(d.permanent())
	}
	d.rules.SetPorts(ports)
	d.rules.SetRoutes(routes)
	d.rules.SetHost(w.host)
	for _, s := range d.rules.Services() {
		for _, v := range s.Servers {
			if err := d.checkPlace(v.Addr); err != nil {
				d.problem(err.Error())
			}
		}
	}
	if d.monitor != nil {
		d.aimChecks() // what is here now may be reached in another way
	}
	return cmpError(first, d.publish())
}

func cmpError(first, then error) error {
	if first != nil {
		return first
	}
	return then
}

// publish makes the rules as they are now the ones in force: for the host
// first, so that it never answers for what is about to be ours. A failure is
// told by Health and tried again; the rules are in force nevertheless.
func (d *director) publish() error {
	w := &d.world
	d.driftKnown = false
	d.enforceDrains()
	d.heed()
	own := d.rules.Ours()
	if sharesAddress(own) && time.Since(w.hostRead) > auditEvery*tickEvery {
		d.readHost()
		d.rules.SetHost(w.host)
	}
	w.unfinished, w.unshielded = nil, false
	g := guardRules(d.rules, own, w.host.Addrs, w.served)
	if d.tunHost != nil {
		// What the host does not route to us we never see. With a guard it has
		// its copy, and what is of no connection is its own again.
		for _, s := range d.rules.LeavingSNATs() {
			g.Inside = append(g.Inside, s.From)
		}
	}
	err := d.shield(g)
	if err != nil {
		w.unfinished, w.unshielded = append(w.unfinished, err.Error()), true
		d.warn("shield", "problem", err.Error())
		w.retry = true
	}
	if d.keeping.from != nil {
		d.resume()
	} else {
		d.rules.Publish()
	}
	if d.tunHost != nil {
		w.unfinished = append(w.unfinished, linksUnseen(d.rules)...)
	}

	var ours, owned []netip.Addr
	for _, a := range own {
		ours = append(ours, a.Addr)
		if !a.OnHost || w.hidden(a.Addr) {
			owned = append(owned, a.Addr)
		}
	}
	w.filter = iface.Filter{Ours: ours, Networks: markedNetworks(d.rules), Errors: d.rules.TunnelSources(), Inside: inside(d.rules)}
	d.neighbours.SetShared(shared(d.rules))
	d.neighbours.SetOwned(owned)
	announce := w.announce || slices.ContainsFunc(owned, func(a netip.Addr) bool { return !slices.Contains(w.owned, a) })
	w.owned, w.announce = owned, false
	if announce {
		w.announceAt = time.Now().Add(announceAgain)
	}
	for _, e := range d.takeUp(announce) {
		w.unfinished = append(w.unfinished, e.Error())
		d.warn("filter", "problem", e.Error())
	}
	return err
}

// takeUp has the shards work by the new rules, and returns when they do.
func (d *director) takeUp(announce bool) (failed []error) {
	filter := d.world.filter
	d.shards.Do(func(s *shard.Shard) {
		failed = append(failed, s.TakeUp(filter)...)
		if announce && s == d.shards.First() {
			s.Announce()
		}
	})
	return failed
}

// problem notes what Health tells of until the next follow.
func (d *director) problem(text string) {
	d.world.problems = append(d.world.problems, text)
	d.warn(text, "problem", text)
}

// inside lists whose packets are read although they are not for us: the real
// servers whose answers pass us and the networks of SNAT rules, and of both those
// deleted with connections left.
func inside(r *nat.Rules) []netip.Prefix {
	var list []netip.Prefix
	seen := make(map[netip.Prefix]bool)
	add := func(p netip.Prefix) {
		if !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	host := func(a netip.Addr) { add(netip.PrefixFrom(a, a.BitLen())) }
	for _, s := range slices.Concat(r.SNATs(), r.LeavingSNATs()) {
		add(s.From)
	}
	for _, s := range r.Services() {
		for _, v := range s.Servers {
			if v.Replies {
				host(v.Addr)
			}
		}
	}
	for _, v := range r.Leaving() {
		if v.Replies {
			host(v.Addr)
		}
	}
	return list
}

// shared lists the virtual addresses that servers have too, since they answer past us.
func shared(r *nat.Rules) []netip.Addr {
	past := func(v nat.ServerInfo) bool { return v.Method != nat.Masquerade }
	var list []netip.Addr
	for _, s := range r.Services() {
		if !slices.ContainsFunc(s.Servers, past) {
			continue
		}
		list = append(list, s.Addr)
		for _, m := range r.Marks() {
			if s.Mark != 0 && m.Mark == s.Mark && m.To.IsSingleIP() {
				list = append(list, m.To.Addr())
			}
		}
	}
	return list
}

// hidden reports whether the host has an IPv6 address that it does not answer
// neighbour solicitations for where packets come in: unlike with ARP, an address
// answers only on the link that has it, and lo has no neighbours.
func (w *world) hidden(addr netip.Addr) bool {
	return addr.Is6() && !slices.ContainsFunc(w.topology.Links, func(l iface.Link) bool {
		return slices.Contains(w.served, l.Name) && slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr })
	})
}
