// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Questions for an IPv6 address of ours go to its solicited-node group, and a
// device passes on only the groups that somebody joined. The host joins those of
// its own addresses; for the others the packet socket does. The kernel counts
// joiners, forgets a socket's with the socket, and lets everything pass where a
// device has too few filters. Switches that watch listener reports are told by
// Neighbours.

// follow joins the solicited-node groups of the addresses and leaves those of
// earlier ones; with any of them also the group of all nodes, which a host without
// IPv6 has not joined.
func (q *packetQueue) follow(fd int, ours []netip.Addr) error {
	if q.layer != Ethernet {
		return nil
	}
	groups := map[[6]byte]bool{}
	for _, addr := range ours {
		if addr = addr.Unmap(); isStation6(addr) {
			groups[groupMAC(solicitedNode(addr))] = true
			groups[groupMAC(allNodes())] = true
		}
	}
	for mac := range groups {
		if q.groups[mac] {
			continue
		}
		if err := q.membership(fd, unix.PACKET_ADD_MEMBERSHIP, mac); err != nil {
			if err == unix.ENODEV {
				return q.errGone
			}
			return fmt.Errorf("port %s: join the group %x: %w", q.name, mac, err)
		}
		q.groups[mac] = true
	}
	for mac := range q.groups {
		if !groups[mac] {
			// A link that is gone took its groups along.
			_ = q.membership(fd, unix.PACKET_DROP_MEMBERSHIP, mac)
			delete(q.groups, mac)
		}
	}
	return nil
}

func (q *packetQueue) membership(fd, option int, mac [6]byte) error {
	m := unix.PacketMreq{Ifindex: int32(q.index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
	copy(m.Address[:], mac[:])
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, option, &m)
}
