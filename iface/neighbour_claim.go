// SPDX-License-Identifier: Apache-2.0

package iface

// Whether an IPv6 address of ours is somebody's already: duplicate address detection
// (RFC 4862, section 5.4), for each owned address on each port.
//
//	          probe sent          nobody for 1 s
//	unprobed ────────────► probed ───────────────► held: announced, defended
//	   ▲                     │ somebody has it
//	   └──── 10 to 15 s ── taken: not answered for, nor announced
//
// An address is answered for from the beginning (optimistic detection, RFC 4429), or
// a restart would be an outage of a second: until it is held without the override
// flag, so that nobody who knows the true owner turns to us. One that was taken
// must be held before it is answered for again.
//
// IPv4 addresses are claimed without a question, as any router claims its own.

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

const (
	// probeTime (RFC 4861 RETRANS_TIMER): how long an answer to a probe may take.
	probeTime = time.Second
	// takenTime: how long an address that is somebody else's is left alone, and up
	// to half as long again, so that two who lost to each other do not meet again.
	takenTime = 10 * time.Second
)

type ownership uint8

const (
	unprobed ownership = iota
	probed
	held
	taken
)

// possession is how far we are with an owned address on a port.
type possession struct {
	state ownership
	quiet bool // it was taken: not answered for before it is held
	next  Time
	mac   [6]byte // of who has it, if taken
}

// answers tells whether the address is answered for.
func (o *possession) answers() bool { return o == nil || o.state != taken && !o.quiet }

// possess makes a possession for each owned IPv6 address on each port, and forgets
// others.
func (n *Neighbours) possess() {
	old := n.possessions
	n.possessions = make(map[neighbourKey]*possession)
	for _, port := range n.portList {
		for _, addr := range n.ownedList {
			if !addr.Is6() {
				continue
			}
			key := neighbourKey{port, addr}
			o := old[key]
			if o == nil {
				o = &possession{}
				n.claiming = true
			}
			n.possessions[key] = o
		}
	}
}

// dispossess has the addresses of a port probed anew, as when its link was away.
func (n *Neighbours) dispossess(port int) {
	for key, o := range n.possessions {
		if key.port == port {
			*o = possession{quiet: o.quiet, mac: o.mac}
			n.claiming = true
		}
	}
}

// claimAddresses does what possessions have to do now.
func (n *Neighbours) claimAddresses(now Time, send SendFunc) {
	if !n.claiming {
		return
	}
	n.claiming = false
	for _, port := range n.portList {
		for _, addr := range n.ownedList {
			o := n.possessions[neighbourKey{port, addr}]
			if o == nil || o.state == held {
				continue
			}
			switch {
			case now < o.next:
			case o.state == probed:
				n.hold(n.ports[port], addr, o, send)
			default:
				o.state, o.next = probed, now.add(probeTime)
				n.probe(n.ports[port], addr, send)
			}
			n.claiming = n.claiming || o.state != held
		}
	}
}

// hold claims an address that nobody has.
func (n *Neighbours) hold(p NeighbourPort, addr netip.Addr, o *possession, send SendFunc) {
	if o.quiet && n.claimed != nil {
		n.claimed(p.Port, addr)
	}
	*o = possession{state: held}
	if n.isAnnouncedOn(p, addr) {
		n.advertise(p, addr, send)
	}
}

// probe asks whether anybody has an address.
func (n *Neighbours) probe(p NeighbourPort, addr netip.Addr, send SendFunc) {
	group := solicitedNode(addr)
	send(p.Port, ndFields{
		to: groupMAC(group), kind: NDSolicitation, senderMAC: p.MAC,
		source: netip.IPv6Unspecified(), destination: group, target: addr,
	}.build(), Offload{})
	n.stats.Requests++
}

// give notes that a station has an address of ours that we do not hold, and tells
// whether that is so; one that is held is defended instead.
func (n *Neighbours) give(now Time, p NeighbourPort, addr netip.Addr, mac [6]byte) bool {
	o := n.possessions[neighbourKey{p.Port, addr}]
	if o == nil || o.state == held {
		return false
	}
	if !o.quiet && n.taken != nil {
		n.taken(p.Port, addr, mac)
	}
	*o = possession{state: taken, quiet: true, mac: mac, next: now.add(takenTime + rand.N(takenTime/2))}
	return true
}

// holds tells whether an owned address may be used as a source on a port.
func (n *Neighbours) holds(port int, addr netip.Addr) bool {
	o := n.possessions[neighbourKey{port, addr}]
	return o == nil || o.state == held
}

// Taken lists the owned addresses that other stations have, with these, by port.
func (n *Neighbours) Taken() (list []NeighbourInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, port := range n.portList {
		for _, addr := range n.ownedList {
			if o := n.possessions[neighbourKey{port, addr}]; o != nil && o.quiet {
				list = append(list, NeighbourInfo{Port: port, Addr: addr, MAC: o.mac})
			}
		}
	}
	return list
}
