// SPDX-License-Identifier: Apache-2.0

package iface

// Topology: what the host's kernel says about links, addresses, routes and
// pinned neighbours, as one immutable value.
//
// The kernel offers no snapshot: links, addresses, routes and neighbours are
// four separate dumps. A dump that was disturbed says so (NLM_F_DUMP_INTR) and
// is repeated; a change that falls between two dumps is seen by the watcher
// (watch.go), which subscribed before it read, and which then reads all of it
// again. So a Topology may be slightly torn for 50 ms, and never for longer.
//
// Only the main routing table is read. Policy rules, other tables and VRFs are
// the host's own affair; who needs another path says so with `routes:` in the
// configuration.

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is one network interface of the namespace. An immutable value; Addrs is
// shared between copies and is not to be written.
type Link struct {
	// Index is the kernel's number, > 0, never reused soon. A link that was
	// removed and created again has the old name and a new index.
	Index int
	// Name is at most 15 bytes.
	Name string
	// MAC is zero where there is none (loopback, TUN).
	MAC [6]byte
	// MTU is the largest layer-3 packet in bytes.
	MTU int
	// AdminUp: somebody said `ip link set up` (IFF_UP).
	AdminUp bool
	// Up: AdminUp, and there is a carrier that may be used (IFF_LOWER_UP, not
	// IFF_DORMANT). IFF_RUNNING, which says the same, comes later: the kernel tells
	// its operational states (RFC 2863) after a second if it has told one just before.
	Up bool
	// Kind is the driver's word (IFLA_INFO_KIND): veth, bridge, bond, vlan,
	// tun, dummy …; "device" for a link without one, which is most hardware.
	Kind string
	// Master is the index of the bridge, bond, team or VRF that this link is a
	// port of; 0: none.
	Master int
	// MasterKind is the Kind of that link; "" without a master.
	MasterKind string
	// Loopback is the flag IFF_LOOPBACK.
	Loopback bool
	// Ethernet: frames begin with a 14-byte Ethernet header (ARPHRD_ETHER).
	Ethernet bool
	// Addrs are the host's addresses on the link with their prefix length, host
	// bits kept, in the kernel's order (primary first). A point-to-point
	// address has the full length; its peer is among the routes.
	Addrs []netip.Prefix
}

// Route is one next hop of one route of the main table. A route with several
// next hops is several Routes with the same Dst and Metric, in the kernel's order.
type Route struct {
	// Dst is masked; 0.0.0.0/0 and ::/0 are the default routes.
	Dst netip.Prefix
	// Gateway is invalid for a destination that is on the link. It may be IPv6
	// for an IPv4 route (RFC 5549).
	Gateway netip.Addr
	// Link is the index of the egress link; 0 for a route that says no
	// (unreachable, blackhole, prohibit): what matches it is not to be sent.
	Link int
	// MTU in bytes, 0: the link's.
	MTU int
	// Metric: of two routes of one length the lower one is used.
	Metric int
	// Table is the number of the routing table, RT_TABLE_MAIN.
	Table int
	// Source is the preferred source address; invalid: none given.
	Source netip.Addr
}

// NeighbourEntry is a permanent entry of the host's neighbour table, IPv4 or IPv6.
type NeighbourEntry struct {
	Link int
	Addr netip.Addr
	MAC  [6]byte
}

// Topology is the state of one network namespace. Immutable: nobody writes into
// the slices, so that values can be handed around and compared.
type Topology struct {
	// Links by index.
	Links []Link
	// Routes, IPv4 before IPv6, the longest prefix first, then by metric; the
	// first that contains an address is the one to use.
	Routes []Route
	// Permanent by link and address.
	Permanent []NeighbourEntry
}

// ErrTopology wraps every failure to read the topology.
var ErrTopology = errors.New("cannot read the links and routes of the host")

// ReadTopology reads the topology of the namespace that the calling thread is in.
func ReadTopology() (Topology, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Topology{}, fmt.Errorf("%w: open a netlink socket: %w", ErrTopology, err)
	}
	defer handle.Close()
	return readTopology(handle)
}

// Equal reports whether both say the same.
func (t Topology) Equal(o Topology) bool {
	return slices.EqualFunc(t.Links, o.Links, Link.Equal) &&
		slices.Equal(t.Routes, o.Routes) &&
		slices.Equal(t.Permanent, o.Permanent)
}

// Equal reports whether both say the same.
func (l Link) Equal(o Link) bool {
	return l.Index == o.Index && l.Name == o.Name && l.MAC == o.MAC && l.MTU == o.MTU &&
		l.AdminUp == o.AdminUp && l.Up == o.Up && l.Kind == o.Kind &&
		l.Master == o.Master && l.MasterKind == o.MasterKind &&
		l.Loopback == o.Loopback && l.Ethernet == o.Ethernet &&
		slices.Equal(l.Addrs, o.Addrs)
}

// LinkByIndex returns the link with this index.
func (t Topology) LinkByIndex(index int) (Link, bool) {
	i, ok := slices.BinarySearchFunc(t.Links, index, func(l Link, index int) int { return cmp.Compare(l.Index, index) })
	if !ok {
		return Link{}, false
	}
	return t.Links[i], true
}

// LinkByName returns the link with this name.
func (t Topology) LinkByName(name string) (Link, bool) {
	for _, l := range t.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// dumpAttempts bounds the repetition of disturbed dumps. A namespace in which
// links come and go without pause disturbs each of them.
const dumpAttempts = 10

// dump repeats a dump until nothing disturbed it.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var err error
	for range dumpAttempts {
		var found []T
		found, err = list()
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, fmt.Errorf("%w: list the %s: %w", ErrTopology, what, err)
}

func readTopology(handle *netlink.Handle) (Topology, error) {
	links, err := dump("links", handle.LinkList)
	if err != nil {
		return Topology{}, err
	}
	addrs, err := dump("addresses", func() ([]netlink.Addr, error) {
		return handle.AddrList(nil, netlink.FAMILY_ALL)
	})
	if err != nil {
		return Topology{}, err
	}

	t := Topology{Links: makeLinks(links, addrs)}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump("routes", func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		// A kernel without IPv6 does not know the family.
		if family == netlink.FAMILY_V6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
			continue
		}
		if err != nil {
			return Topology{}, err
		}
		for _, r := range routes {
			t.Routes = appendRoute(t.Routes, r)
		}
	}
	slices.SortStableFunc(t.Routes, compareRoutes)

	neighbours, err := dump("neighbours", func() ([]netlink.Neigh, error) { return handle.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return Topology{}, err
	}
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.State&netlink.NUD_PERMANENT == 0 || n.Flags&netlink.NTF_PROXY != 0 || len(n.HardwareAddr) != 6 {
			continue
		}
		t.Permanent = append(t.Permanent, NeighbourEntry{Link: n.LinkIndex, Addr: ip.Unmap(), MAC: [6]byte(n.HardwareAddr)})
	}
	slices.SortFunc(t.Permanent, func(a, b NeighbourEntry) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
	})
	return t, nil
}

func makeLinks(links []netlink.Link, addrs []netlink.Addr) []Link {
	made := make([]Link, 0, len(links))
	kinds := make(map[int]string, len(links))
	for _, l := range links {
		a := l.Attrs()
		link := Link{
			Index:    a.Index,
			Name:     a.Name,
			MTU:      a.MTU,
			AdminUp:  a.RawFlags&unix.IFF_UP != 0,
			Up:       a.RawFlags&(unix.IFF_UP|unix.IFF_LOWER_UP|unix.IFF_DORMANT) == unix.IFF_UP|unix.IFF_LOWER_UP,
			Kind:     l.Type(),
			Master:   a.MasterIndex,
			Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			Ethernet: a.EncapType == "ether",
		}
		// The library's word for what the kernel calls tun.
		if link.Kind == "tuntap" {
			link.Kind = "tun"
		}
		if len(a.HardwareAddr) == 6 {
			link.MAC = [6]byte(a.HardwareAddr)
		}
		kinds[link.Index] = link.Kind
		for _, addr := range addrs {
			// An address that lost its duplicate detection is not the host's.
			if addr.LinkIndex != link.Index || addr.Flags&unix.IFA_F_DADFAILED != 0 {
				continue
			}
			if p, ok := prefixOf(addr.IPNet); ok {
				link.Addrs = append(link.Addrs, p)
			}
		}
		made = append(made, link)
	}
	for i := range made {
		made[i].MasterKind = kinds[made[i].Master]
	}
	slices.SortFunc(made, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	return made
}

// appendRoute appends what one route of the kernel means to us.
func appendRoute(to []Route, r netlink.Route) []Route {
	dst, ok := prefixOf(r.Dst)
	if r.Dst == nil {
		dst, ok = netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
		if r.Family == netlink.FAMILY_V6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	// A route for one type of service is not for all packets.
	if !ok || r.Tos != 0 {
		return to
	}
	route := Route{
		Dst:     dst.Masked(),
		MTU:     r.MTU,
		Metric:  r.Priority,
		Table:   r.Table,
		Gateway: gatewayOf(r.Gw, r.Via),
		Source:  addrOf(r.Src),
		Link:    r.LinkIndex,
	}
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		route.Link = 0
		return append(to, route)
	default:
		return to
	}
	if len(r.MultiPath) == 0 {
		if r.Flags&unix.RTNH_F_DEAD != 0 || route.Link == 0 {
			return to
		}
		return append(to, route)
	}
	for _, hop := range r.MultiPath {
		if hop.Flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		route.Link, route.Gateway = hop.LinkIndex, gatewayOf(hop.Gw, hop.Via)
		to = append(to, route)
	}
	return to
}

func compareRoutes(a, b Route) int {
	return cmp.Or(
		cmp.Compare(a.Dst.Addr().BitLen(), b.Dst.Addr().BitLen()),
		cmp.Compare(b.Dst.Bits(), a.Dst.Bits()),
		a.Dst.Addr().Compare(b.Dst.Addr()),
		cmp.Compare(a.Metric, b.Metric),
	)
}

func gatewayOf(gateway net.IP, via netlink.Destination) netip.Addr {
	if v, ok := via.(*netlink.Via); ok && v != nil {
		return addrOf(v.Addr)
	}
	return addrOf(gateway)
}

func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if a.Is4In6() && bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), true
}
