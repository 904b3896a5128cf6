// SPDX-License-Identifier: Apache-2.0

package iface

// A frame that was received, step by step: is it ARP, neighbour discovery
// (neighbour_nd.go) or a question about groups (neighbour_groups.go); is it our own; does it claim an address of ours; does it ask
// for one; what may be learned from it.

import "net/netip"

// Input takes an untagged Ethernet frame of ARP, neighbour discovery (see IsND) or
// multicast listener discovery (see IsMLD) that was received on a port. It answers questions for owned addresses, learns,
// and sends what waited for the answer that the frame brings. A frame that is no
// good is counted, and nothing else. frame stays the caller's.
func (n *Neighbours) Input(now Time, port int, frame []byte, send SendFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Received++
	if IsND(frame) {
		n.inputND(now, port, frame, send)
		return
	}
	if IsMLD(frame) {
		n.inputQuery(now, port, frame)
		return
	}
	n.inputARP(now, port, frame, send)
}

func (n *Neighbours) inputARP(now Time, port int, frame []byte, send SendFunc) {
	a, fault := ParseARP(frame)
	if fault != ARPGood {
		n.stats.Malformed[fault]++
		return
	}
	p, ok := n.ports[port]
	if !ok || n.isOurs(a.SenderMAC()) {
		return
	}
	if o := n.owned[a.SenderIP()]; o != nil {
		if n.dispute(now, p, o, a.SenderIP(), a.SenderMAC()) {
			n.announce(p, a.SenderIP(), ARPRequest, send)
		}
		return
	}
	forUs := n.isForUs(p, a.TargetIP())
	if a.Operation() == ARPRequest && n.owned[a.TargetIP()] != nil {
		n.reply(p, a, send)
	}
	n.learn(now, p, claim{
		addr: a.SenderIP(), mac: a.SenderMAC(), named: true,
		asks: a.Operation() == ARPRequest && forUs,
		// An answer names our MAC and the address we asked from, which may
		// have been none.
		answer: a.Operation() == ARPReply && a.TargetMAC() == p.MAC && (forUs || a.TargetIP().IsUnspecified()),
	}, send)
}

// isOurs: two ports of ours may be on one link, and hear each other.
func (n *Neighbours) isOurs(mac [6]byte) bool {
	for _, p := range n.ports {
		if p.MAC == mac {
			return true
		}
	}
	return false
}

// isForUs tells whether an address is an owned one, or the host's on this port.
func (n *Neighbours) isForUs(p NeighbourPort, addr netip.Addr) bool {
	if n.owned[addr] != nil {
		return true
	}
	for _, a := range p.Addrs {
		if a.Addr() == addr {
			return true
		}
	}
	return false
}

// reply answers a request, a probe with sender 0.0.0.0 too: who is about to take
// the address (RFC 5227 section 2.1.1) must learn that it is taken.
func (n *Neighbours) reply(p NeighbourPort, a ARP, send SendFunc) {
	b := arpFields{
		to: a.SenderMAC(), operation: ARPReply,
		senderMAC: p.MAC, sender: a.TargetIP().As4(),
		targetMAC: a.SenderMAC(), target: a.SenderIP().As4(),
	}.build()
	send(p.Port, b[:], Offload{})
	n.stats.Replies++
}

// dispute reports that somebody claims an address of ours, and tells whether to
// announce it anew: once in defendTime (RFC 5227 section 2.4 (c): a router, or a
// server with a well-known address, keeps it), so that two which both insist do
// not flood the link.
func (n *Neighbours) dispute(now Time, p NeighbourPort, o *ownedAddress, addr netip.Addr, mac [6]byte) bool {
	n.stats.Conflicts++
	if o.once && now < o.defended.add(defendTime) {
		return false
	}
	o.defended, o.once = now, true
	if n.conflict != nil {
		n.conflict(p.Port, addr, mac)
	}
	return true
}

// claim is what a frame of either protocol says: a station has an address.
type claim struct {
	addr   netip.Addr
	mac    [6]byte
	named  bool // the message itself named the MAC, not only the frame's header
	asks   bool // for an address of ours
	answer bool // to a question from us
}

// learn applies the rules for what a frame says about its sender.
func (n *Neighbours) learn(now Time, p NeighbourPort, c claim, send SendFunc) {
	key, mac := neighbourKey{p.Port, c.addr}, c.mac
	if !isStation(key.addr) && !isStation6(key.addr) || n.isForUs(p, key.addr) {
		return
	}
	if _, ok := n.permanent[key]; ok {
		return
	}
	e := n.entries[key]
	if e == nil {
		n.meet(now, p, c)
		return
	}

	switch {
	case e.state == incomplete && c.answer && c.named && e.asked > 0:
		n.confirm(now, e, mac)
		n.release(e, mac, send)
	case e.state == probe && c.answer && e.asked > 0 && e.mac == mac:
		n.confirm(now, e, mac)
	case e.state == failed:
		// It lives: the next packet for it may ask at once.
		e.next = now
	case e.state.known() && e.mac != mac:
		n.stats.Unsolicited++
		n.verify(now, e, send)
	}
}

// meet makes an entry for a station that asked for us, since our packets to it
// will follow. It is used as it is, and asked when it is first used. Announcements
// make none.
func (n *Neighbours) meet(now Time, p NeighbourPort, c claim) {
	if !c.asks || !c.named || !onLink(p, c.addr) {
		return
	}
	if n.learned.length >= maxLearned {
		n.forget(n.learned.head)
		n.stats.Evicted++
	}
	e := n.insert(neighbourKey{p.Port, c.addr}, &n.learned)
	e.state, e.mac, e.used = stale, c.mac, now
}

// onLink tells whether an address is in a network of the port.
func onLink(p NeighbourPort, addr netip.Addr) bool {
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		return true
	}
	for _, a := range p.Addrs {
		if a.Contains(addr) {
			return true
		}
	}
	return false
}

// confirm takes an answer that we asked for.
func (n *Neighbours) confirm(now Time, e *neighbour, mac [6]byte) {
	e.mac, e.state, e.asked, e.next = mac, reachable, 0, now.add(reachableTime)
	e.moveTo(&n.confirmed)
}

// verify asks the MAC we know, since another one claims its address: at most once
// in retransTime, whatever a forger sends.
func (n *Neighbours) verify(now Time, e *neighbour, send SendFunc) {
	switch {
	case e.state == probe && e.asked > 0:
		// Being asked already; do not wait as long for the answer.
		if e.interval > verifyTime {
			e.interval, e.next = verifyTime, min(e.next, now.add(verifyTime))
		}
	case e.verified == 0 || now >= e.verified.add(retransTime):
		e.verified = now
		e.state, e.asked, e.interval = probe, 0, verifyTime
		n.askOne(now, e, send)
	}
}
