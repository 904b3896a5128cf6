// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"cmp"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// What goes away while connections still refer to it: servers, and ports.

// A LeavingServer is a deleted server that is still remembered, since it has
// connections or had some a short while ago; see Tick. What it sends for them
// goes on to the clients.
type LeavingServer struct {
	Service ServiceKey // as it was; it may be deleted too
	ServerSpec
	Slot    uint32
	Serial  uint64
	Replies bool // what it sends passes us
}

// Leaving lists them, oldest first.
func (r *Rules) Leaving() []LeavingServer {
	var list []LeavingServer
	for _, d := range r.trash {
		list = append(list, LeavingServer{Service: d.key, ServerSpec: d.ServerSpec, Slot: d.slot, Serial: d.serial, Replies: d.replies})
	}
	slices.SortFunc(list, func(a, b LeavingServer) int { return cmp.Compare(a.Serial, b.Serial) })
	return list
}

// ForgetPort makes connections forget the port of an index, which another link
// is about to get: replies go by the routes until the client is heard again, and
// the inside endpoint may turn up elsewhere. A call looks at a bounded part of
// the table; it is to be called between batches, first with 0, then with what
// it returned, until that is -1.
func (f *Forwarder) ForgetPort(port uint16, cursor int) int {
	extent := f.table.Extent()
	end := min(extent, max(cursor, 0)+maxScan)
	for i := max(cursor, 0); i < end; i++ {
		c := f.table.At(i)
		if c == nil {
			continue
		}
		if c.HopPort == port {
			c.HopPort, c.Hop = NoPort, conntrack.LinkAddr{}
		}
		if c.InsidePort == port {
			c.InsidePort = NoPort
		}
	}
	if end < extent {
		return end
	}
	return -1
}
