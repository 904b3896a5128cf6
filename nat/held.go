// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"
)

// Held ports: on some addresses of ours somebody beside the Forwarder speaks, the
// director's checks, which have a stack of their own for an address that the host
// does not have. What comes for them is passed by, neither answered nor counted as
// dropped, and their ports are never handed out.

// HeldMin and HeldMax are the ports, and the identifiers of pings.
const (
	HeldMin = 62000
	HeldMax = 62999
)

// SetHeld names the addresses, which the host must not have.
func (r *Rules) SetHeld(addrs []netip.Addr) { r.held = slices.Clone(addrs) }

// holds reports whether a port of an address of ours is held.
func (e *ownEntry) holds(port uint16) bool { return e.held && port >= HeldMin && port <= HeldMax }

// freeSpans are the ports that may be handed out of an address that is ours alone.
func (e *ownEntry) freeSpans() [][2]uint16 {
	if e.held {
		return [][2]uint16{{1, HeldMin - 1}, {HeldMax + 1, 65535}}
	}
	return [][2]uint16{{1, 65535}}
}
