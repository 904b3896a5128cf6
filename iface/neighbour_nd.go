// SPDX-License-Identifier: Apache-2.0

package iface

// What Neighbours says and understands of neighbour discovery: the answers to
// frames that were received, then the questions of its own.

import (
	"net/netip"
	"slices"
)

// inputND takes a frame of neighbour discovery. What routers say is not ours: the
// host follows them, and we follow the host's routes.
func (n *Neighbours) inputND(now Time, port int, frame []byte, send SendFunc) {
	m, fault := ParseND(frame)
	if fault == NDNone {
		return
	}
	if fault != NDGood {
		n.stats.MalformedND[fault]++
		return
	}
	p, ok := n.ports[port]
	mac, named := m.option()
	if !named {
		mac = [6]byte(frame[6:])
	}
	if !ok || n.isOurs(mac) || n.isOurs([6]byte(frame[6:])) {
		return
	}
	// A question says where its sender is, an answer where its target is.
	asks := m.Type() == NDSolicitation
	c := claim{addr: m.Source(), mac: mac, named: named}
	if asks {
		c.asks = n.isForUs(p, m.Target())
	} else {
		c.addr = m.Target()
		c.answer = m.Solicited() && (n.isForUs(p, m.Destination()) || m.Destination() == linkLocal(p.MAC))
	}
	if o := n.owned[c.addr]; o != nil {
		if !n.give(now, p, c.addr, mac) && n.dispute(now, p, o, c.addr, mac) {
			n.advertise(p, c.addr, send)
		}
		return
	}
	if o := n.owned[m.Target()]; asks && o != nil {
		// From :: somebody is about to take the address (RFC 4862 section
		// 5.4.3). The answer keeps it from that; who it was is worth a word.
		// Of two who want it at once neither gets it.
		if m.Source().IsUnspecified() {
			if n.give(now, p, m.Target(), mac) {
				return
			}
			n.dispute(now, p, o, m.Target(), mac)
		}
		if !n.possessions[neighbourKey{port, m.Target()}].answers() {
			return
		}
		n.replyND(p, m, mac, send)
	}
	n.learn(now, p, c, send)
}

// replyND answers a question for an owned address (RFC 4861 section 7.2.4): as
// no router, whatever the host is; to all nodes if nobody said who asks.
func (n *Neighbours) replyND(p NeighbourPort, m ND, mac [6]byte, send SendFunc) {
	f := ndFields{
		to: mac, kind: NDAdvertisement, flags: ndFlagSolicited,
		senderMAC: p.MAC, source: m.Target(), destination: m.Source(), target: m.Target(),
	}
	if m.Source().IsUnspecified() {
		f.to, f.destination, f.flags = groupMAC(allNodes()), allNodes(), 0
	}
	if n.holds(p.Port, m.Target()) {
		f.flags |= ndFlagOverride
	}
	send(p.Port, f.build(), Offload{})
	n.stats.Replies++
}

// advertise tells every station that an owned address is here.
func (n *Neighbours) advertise(p NeighbourPort, addr netip.Addr, send SendFunc) {
	send(p.Port, ndFields{
		to: groupMAC(allNodes()), kind: NDAdvertisement, flags: ndFlagOverride,
		senderMAC: p.MAC, source: addr, destination: allNodes(), target: addr,
	}.build(), Offload{})
	n.stats.Announcements++
}

// solicit asks for the address of an entry.
func (n *Neighbours) solicit(e *neighbour, to [6]byte, destination netip.Addr, send SendFunc) {
	p := n.ports[e.key.port]
	send(p.Port, ndFields{
		to: to, kind: NDSolicitation, senderMAC: p.MAC,
		source: n.sender6(p, e.key.addr), destination: destination, target: e.key.addr,
	}.build(), Offload{})
	n.stats.Requests++
}

// sender6 chooses the address that a question is asked from: one of the port in
// the network of the target, its link-local one, the owned one nearest to the
// target. Without any it is the link-local address that the port's MAC would
// have: a question from :: would tell the target that somebody takes its address.
func (n *Neighbours) sender6(p NeighbourPort, target netip.Addr) netip.Addr {
	for _, a := range p.Addrs {
		if a.Addr().Is6() && a.Contains(target) && n.holds(p.Port, a.Addr()) && !slices.Contains(n.shared, a.Addr()) {
			return a.Addr()
		}
	}
	if a := p.ownLinkLocal(); !a.IsUnspecified() {
		return a
	}
	if a := n.nearestOwned(p, target); a.IsValid() {
		return a
	}
	return linkLocal(p.MAC)
}
