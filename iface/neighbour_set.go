// SPDX-License-Identifier: Apache-2.0

package iface

// What the director tells Neighbours (ports, owned and permanent addresses), and
// what it is told (counters, a listing).

import (
	"maps"
	"net/netip"
	"slices"
)

// SetPorts replaces the ports. Entries of a port that is gone, or that has
// another MAC now and may be another device, are forgotten with what waits for them.
func (n *Neighbours) SetPorts(ports []NeighbourPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.ports
	n.ports = make(map[int]NeighbourPort, len(ports))
	for _, p := range ports {
		p.Addrs = slices.Clone(p.Addrs)
		for i, a := range p.Addrs {
			if a.Addr().Is4In6() && a.Bits() >= 96 {
				p.Addrs[i] = netip.PrefixFrom(a.Addr().Unmap(), a.Bits()-96)
			}
		}
		n.ports[p.Port] = p
	}
	n.portList = slices.Sorted(maps.Keys(n.ports))
	for index, was := range old {
		is, ok := n.ports[index]
		if !ok {
			delete(n.listening, index)
		}
		if !ok || is.MAC != was.MAC {
			n.flush(index)
		}
	}
	n.own()
}

// own makes what is said of owned addresses on each port that of the list.
func (n *Neighbours) own() {
	n.possess()
	for _, port := range n.portList {
		n.listenTo(port)
	}
}

// Flush forgets the entries of a port, as when its carrier was lost or came back,
// and has owned addresses claimed there anew. Permanent entries stay.
func (n *Neighbours) Flush(port int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flush(port)
}

func (n *Neighbours) flush(port int) {
	for key, e := range n.entries {
		if key.port == port {
			n.forget(e)
		}
	}
	n.dispossess(port)
	n.rejoin(port)
}

// SetPermanent replaces the permanent entries.
func (n *Neighbours) SetPermanent(entries []PermanentNeighbour) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.permanent
	n.permanent = make(map[neighbourKey][6]byte, len(entries))
	for _, e := range entries {
		n.permanent[neighbourKey{e.Port, e.Addr.Unmap()}] = e.MAC
	}
	changed := false
	for key, mac := range old {
		is, ok := n.permanent[key]
		changed = changed || !ok || is != mac
	}
	for key := range n.permanent {
		if _, ok := old[key]; ok {
			continue
		}
		// A cache may hold what the entry said until now. What waits for it
		// goes out by the next Tick, so the entry takes the MAC over.
		changed = true
		if e := n.entries[key]; e != nil && e.queued == 0 {
			n.forget(e)
		}
	}
	if changed {
		n.generation.Add(1)
	}
}

// SetOwned replaces the addresses that are ours and not the host's: requests for
// them are answered on every port. Tick first asks whether somebody has a new IPv6
// address.
func (n *Neighbours) SetOwned(addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, oldList := n.owned, n.ownedList
	n.owned = make(map[netip.Addr]*ownedAddress, len(addrs))
	n.ownedList = nil
	for _, a := range addrs {
		a = a.Unmap()
		if n.owned[a] != nil {
			continue
		}
		o := old[a]
		if o == nil {
			o = &ownedAddress{}
		}
		n.owned[a] = o
		if isStation(a) || isStation6(a) {
			n.ownedList = append(n.ownedList, a)
		}
	}
	if !slices.Equal(n.ownedList, oldList) {
		n.own()
	}
}

// SetShared replaces the addresses of ours or of the host's that stations on the links
// have too, and keep to themselves: the virtual ones of servers that answer past us.
func (n *Neighbours) SetShared(addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shared = nil
	for _, a := range addrs {
		n.shared = append(n.shared, a.Unmap())
	}
}

// NeighbourStats are totals since the start, and what there is now.
type NeighbourStats struct {
	Entries, Queued, QueuedBytes int

	Requests, Replies, Announcements uint64 // sent
	Received                         uint64 // frames given to Input
	Malformed                        [numARPFaults]uint64
	MalformedND                      [numNDFaults]uint64 // without NDNone, which is no fault
	MalformedMLD                     uint64              // questions about groups that were not believed
	Reports                          uint64              // of groups, sent
	Unsolicited                      uint64              // claims that were not believed
	Conflicts                        uint64              // claims of owned addresses
	Failed                           uint64              // next hops that did not answer
	Evicted                          uint64              // entries given up for want of room
	QueueRefused                     uint64              // frames: too many for one neighbour, or too long
	QueueDisplaced                   uint64              // frames: pushed out by newer ones
}

// Stats returns the counters.
func (n *Neighbours) Stats() NeighbourStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stats
	s.Entries, s.Queued, s.QueuedBytes = len(n.entries), n.queue.frames, n.queue.bytes
	return s
}

// NeighbourInfo is the station that has an address.
type NeighbourInfo struct {
	Port int
	Addr netip.Addr
	MAC  [6]byte
}
