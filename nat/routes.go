// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// A Route is one way onward, as the host's routing table or the configuration
// has it.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // invalid: the destination itself is on the link
	Port    uint16     // index of the port to leave by; NoPort: what matches has no way
	MTU     int        // bytes; 0: that of the port
	Metric  int        // the lower wins among equal prefixes
	Source  netip.Addr // preferred source of packets made here, may be invalid
}

// PortInfo is what the data plane knows of an iface port.
type PortInfo struct {
	Index uint16
	Name  string
	MTU   int  // bytes of an IP packet
	L3    bool // no link addresses: what the host has routed to us is routed on by it
	Up    bool
	// With L3: whether the host routes on what is not ours either, of IPv4 and of IPv6.
	// Where it does not, what we pass is for the host alone.
	Forwards4, Forwards6 bool
	Addrs                []netip.Prefix // the host's addresses there

	addrs []connected
}

// connected is an address of a port with the network that is on its link.
type connected struct {
	addr conntrack.Addr
	net  prefix
}

// A hop is the outcome of a route look-up.
type hop struct {
	next conntrack.Addr // on-link address to resolve
	mtu  uint16         // largest IP packet, 65535 where it is larger
	port uint16         // NoPort: no route
	// broadcast: the address is that of a network that is on a link, or stands
	// for all hosts of it.
	broadcast bool
	link      uint16 // 1 + index of the on-link route that holds the address, 0 if a gateway does
}

type routeEntry struct {
	dst     prefix
	gateway conntrack.Addr
	source  conntrack.Addr // preferred, or zero
	onLink  bool
	port    uint16
	mtu     uint16
	metric  int
}

// routeTable is a list, longest prefix first. Hosts have few routes, and each
// Forwarder keeps the answers for the addresses that it meets.
type routeTable struct{ entries []routeEntry }

func newRouteTable(routes []Route, ports *[MaxPorts]PortInfo) routeTable {
	var t routeTable
	for _, r := range routes {
		if r.Port == NoPort {
			t.entries = append(t.entries, routeEntry{dst: newPrefix(r.Dst), port: NoPort, metric: r.Metric})
			continue
		}
		if r.Port >= MaxPorts || !ports[r.Port].Up {
			continue
		}
		mtu := ports[r.Port].MTU
		if r.MTU > 0 && r.MTU < mtu {
			mtu = r.MTU
		}
		e := routeEntry{dst: newPrefix(r.Dst), port: r.Port, mtu: uint16(min(mtu, 0xffff)), metric: r.Metric}
		e.onLink = !r.Gateway.IsValid() || r.Gateway.IsUnspecified()
		if !e.onLink {
			e.gateway = conntrack.AddrFrom(r.Gateway)
		}
		if r.Source.IsValid() {
			e.source = conntrack.AddrFrom(r.Source)
		}
		t.entries = append(t.entries, e)
	}
	slices.SortStableFunc(t.entries, func(a, b routeEntry) int {
		if a.dst.bits != b.dst.bits {
			return int(b.dst.bits) - int(a.dst.bits)
		}
		return a.metric - b.metric
	})
	return t
}

// find returns the route to a, which may say that there is no way, or nil.
func (t *routeTable) find(a *conntrack.Addr) *routeEntry {
	for i := range t.entries {
		if t.entries[i].dst.contains(a) {
			return &t.entries[i]
		}
	}
	return nil
}

func (t *routeTable) lookup(a *conntrack.Addr) hop {
	for i := range t.entries {
		e := &t.entries[i]
		if !e.dst.contains(a) {
			continue
		}
		if e.port == NoPort {
			break
		}
		h := hop{next: *a, mtu: e.mtu, port: e.port}
		if e.onLink {
			h.link = uint16(i + 1)
			h.broadcast = e.dst.ends(a)
		} else {
			h.next = e.gateway
		}
		return h
	}
	return hop{port: NoPort}
}

// hopCache keeps the last answers of the route table, one per row: flows come
// in trains, and a cluster has few servers.
type hopCache struct {
	rows [256]struct {
		addr conntrack.Addr
		hop  hop
		set  bool
	}
}

func (c *hopCache) clear() { *c = hopCache{} }

func (c *hopCache) lookup(t *routeTable, a *conntrack.Addr) hop { return *c.find(t, a) }

// find is lookup without a copy: the answer is good until the next.
func (c *hopCache) find(t *routeTable, a *conntrack.Addr) *hop {
	row := &c.rows[hashAddr(a)%uint64(len(c.rows))]
	if !row.set || row.addr != *a {
		row.addr, row.hop, row.set = *a, t.lookup(a), true
	}
	return &row.hop
}
