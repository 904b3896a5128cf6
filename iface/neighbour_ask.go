// SPDX-License-Identifier: Apache-2.0

package iface

// What Neighbours says of its own accord: questions to one station or to all,
// from which address, and announcements.

import (
	"net/netip"
	"slices"
)

// askOne asks the station that had the address, by unicast.
func (n *Neighbours) askOne(now Time, e *neighbour, send SendFunc) {
	e.asked++
	e.next = now.add(e.interval)
	if e.key.addr.Is6() {
		n.solicit(e, e.mac, e.key.addr, send)
		return
	}
	n.request(e, e.mac, e.mac, n.sender(n.ports[e.key.port], e.key.addr), send)
}

// askAll asks everybody. An entry that was known is not any more.
func (n *Neighbours) askAll(now Time, e *neighbour, send SendFunc) {
	n.revoke(e)
	if e.state != incomplete {
		e.state, e.asked = incomplete, 0
		e.moveTo(&n.asking)
	}
	p := n.ports[e.key.port]
	e.asked++
	e.next = now.add(retransTime)
	if e.key.addr.Is6() {
		group := solicitedNode(e.key.addr)
		n.solicit(e, groupMAC(group), group, send)
		return
	}
	from := n.sender(p, e.key.addr)
	// A host that checks the path back to the asker (rp_filter) is silent to a
	// sender that it has no route to, but not to a probe.
	if e.asked == maxSolicit && !onLink(p, from) {
		from = netip.IPv4Unspecified()
	}
	n.request(e, broadcastMAC(), [6]byte{}, from, send)
}

func (n *Neighbours) request(e *neighbour, to, target [6]byte, from netip.Addr, send SendFunc) {
	b := arpFields{
		to: to, operation: ARPRequest,
		senderMAC: n.ports[e.key.port].MAC, sender: from.As4(),
		targetMAC: target, target: e.key.addr.As4(),
	}.build()
	send(e.key.port, b[:], Offload{})
	n.stats.Requests++
}

// sender chooses the address that a question is asked from, as arp_announce 2
// does: one of the port in the network of the target; without one, the owned
// address that shares the longest prefix with the target (it is ours alone, so
// that nobody's cache is spoilt by it); without any, 0.0.0.0, the probe of RFC
// 5227, which every host answers. Never one that is shared: who has it as well takes
// the question for a forgery of its own, and is silent.
func (n *Neighbours) sender(p NeighbourPort, target netip.Addr) netip.Addr {
	for _, a := range p.Addrs {
		if a.Addr().Is4() && a.Contains(target) && !slices.Contains(n.shared, a.Addr()) {
			return a.Addr()
		}
	}
	if a := n.nearestOwned(p, target); a.IsValid() {
		return a
	}
	return netip.IPv4Unspecified()
}

// nearestOwned is the owned address of the family that shares the longest prefix
// with the target; invalid if there is none.
func (n *Neighbours) nearestOwned(p NeighbourPort, target netip.Addr) netip.Addr {
	best, length := netip.Addr{}, -1
	for _, a := range n.ownedList {
		if a.BitLen() != target.BitLen() || !n.holds(p.Port, a) || slices.Contains(n.shared, a) {
			continue
		}
		if shared := sharedBits(a, target); shared > length {
			best, length = a, shared
		}
	}
	return best
}

// sharedBits is the length of the prefix that two addresses of a family have in
// common.
func sharedBits(a, b netip.Addr) int {
	length := 0
	for length < a.BitLen() {
		p, err := a.Prefix(length + 1)
		if err != nil || !p.Contains(b) {
			break
		}
		length++
	}
	return length
}

// Announce tells every station that the owned addresses are here: IPv4 (RFC 5227
// section 2.3) or IPv6 addresses (RFC 4861 section 7.2.6), each on the ports with
// a network that contains it, or on all ports if none does. Of ARP both forms go
// out, since some devices believe only one. An IPv6 address that is not held yet is
// left out: Tick announces it when it is. To be called when addresses have come,
// and, as the RFCs ask, 2 s later once more.
func (n *Neighbours) Announce(send SendFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, addr := range n.ownedList {
		for _, port := range n.portList {
			p := n.ports[port]
			switch {
			case !n.isAnnouncedOn(p, addr) || !n.holds(port, addr):
			case addr.Is6():
				n.advertise(p, addr, send)
			default:
				n.announce(p, addr, ARPRequest, send)
				n.announce(p, addr, ARPReply, send)
			}
		}
	}
}

// isAnnouncedOn tells whether an address belongs to a port: it is in a network
// there, or in none anywhere.
func (n *Neighbours) isAnnouncedOn(p NeighbourPort, addr netip.Addr) bool {
	if onLink(p, addr) {
		return true
	}
	for _, other := range n.ports {
		if onLink(other, addr) {
			return false
		}
	}
	return true
}

func (n *Neighbours) announce(p NeighbourPort, addr netip.Addr, operation ARPOperation, send SendFunc) {
	f := arpFields{
		to: broadcastMAC(), operation: operation,
		senderMAC: p.MAC, sender: addr.As4(), target: addr.As4(),
	}
	if operation == ARPReply {
		f.targetMAC = p.MAC
	}
	b := f.build()
	send(p.Port, b[:], Offload{})
	n.stats.Announcements++
}
