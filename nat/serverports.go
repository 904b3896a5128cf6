// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// Where real servers serve. What they send from there belongs to connections: if
// it has no entry it is a stray, which must not get out with its address.

// ServerPorts are ports of a real server that packets of connections come from.
type ServerPorts struct {
	Proto    uint8
	Addr     netip.Addr
	Min, Max uint16
}

// ServerPorts lists those of all servers, also of those that were deleted and
// are remembered, each once. A server without a port of its own serves at the
// ports that its service has packets for.
func (r *Rules) ServerPorts() []ServerPorts {
	marked := make(map[ServiceKey][]MarkRule)
	r.eachMark(func(_ int, m MarkRule, _ *service) { // it may be deleted
		k := markKey(m.Mark, m.To.Addr().Is4())
		marked[k] = append(marked[k], m)
	})
	var list []ServerPorts
	for _, d := range r.servers.all {
		if d == nil || !d.replies {
			continue
		}
		add := func(proto uint8, lo, hi uint16) {
			if !d.anyPort() {
				lo, hi = d.Port, d.Port
			}
			list = append(list, ServerPorts{Proto: proto, Addr: d.Addr, Min: lo, Max: hi})
		}
		list = d.addFTPData(list)
		if d.key.Mark == 0 {
			add(d.key.Proto, 1, 65535)
			continue
		}
		for _, m := range marked[d.key] {
			lo, hi := m.ports()
			for _, proto := range m.Protocols() {
				add(proto, lo, hi)
			}
		}
	}
	slices.SortFunc(list, func(a, b ServerPorts) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	return slices.Compact(list)
}

// endpointTable is the set of endpoints that servers serve at. One with a range
// of ports stands under port 0, which no packet has, as the head of a chain.
type endpointTable struct {
	serviceTable
	ranges []portRange
}

type portRange struct {
	min, max uint16
	next     int32 // of the same address and protocol, -1: none
}

func newEndpointTable(list []ServerPorts) endpointTable {
	t := endpointTable{serviceTable: emptyServiceTable(len(list))}
	for i, p := range list {
		k := serviceKey{conntrack.Endpoint{Addr: conntrack.AddrFrom(p.Addr)}, p.Proto}
		if p.Min == p.Max {
			k.Port = p.Min
			t.put(k, int32(i))
			continue
		}
		t.ranges = append(t.ranges, portRange{p.Min, p.Max, t.find(&k)})
		t.put(k, int32(len(t.ranges)-1))
	}
	return t
}

// holds reports whether a server serves at e.
func (t *endpointTable) holds(e *conntrack.Endpoint, proto uint8) bool {
	if t.find(&serviceKey{*e, proto}) >= 0 {
		return true
	}
	if len(t.ranges) == 0 {
		return false
	}
	i := t.find(&serviceKey{conntrack.Endpoint{Addr: e.Addr}, proto})
	for i >= 0 && (e.Port < t.ranges[i].min || e.Port > t.ranges[i].max) {
		i = t.ranges[i].next
	}
	return i >= 0
}

// anyPort reports whether a server gets packets at the ports that they were sent
// to; see serviceEntry.at.
func (d *server) anyPort() bool {
	return d.Port == 0 || d.service.Persistence.Timeout > 0 && d.key.Port == 0
}
