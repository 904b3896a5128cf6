// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// What stands in front of a packet that is wrapped for a server:
//
//	IPIP   IP 20 or 40                                   IP …
//	GRE    IP 20 or 40  GRE 4, with checksum 8           IP …
//	GUE    IP 20 or 40  UDP 8  GUE 4                     IP …
//
// either family in either. The outer header takes over what the kernel takes over
// (ip_vs_prepare_tunneled_skb): time to live, type of service, and DF unless
// pmtu_disc is off.

// Protocol numbers of what is wrapped, and of GRE.
const (
	protoIPv4 uint8 = 4
	protoIPv6 uint8 = 41
	protoGRE  uint8 = 47
)

const (
	greHeaderLen      = 4
	greChecksumLen    = 4 // and two reserved bytes
	gueHeaderLen      = 4
	maxTunnelOverhead = ipv6HeaderLen + udpHeaderLen + gueHeaderLen

	greChecksumPresent uint16 = 0x8000
	etherTypeIPv4      uint16 = 0x0800
	etherTypeIPv6      uint16 = 0x86dd
)

// A tunnel leads to a server. Snapshots have one for each, since connections may
// still go through the tunnel of a server that was edited.
type tunnel struct {
	src, dst conntrack.Addr // zero src: there is no address to send from
	kind     TunnelType
	checksum bool
	port     uint16 // of GUE
	overhead uint16 // bytes in front of a packet
}

func newTunnel(s *ServerSpec, src conntrack.Addr) tunnel {
	t := tunnel{
		src: src, dst: conntrack.AddrFrom(s.Addr),
		kind: s.Tunnel.Type, checksum: s.Tunnel.Checksum != TunnelNoChecksum, port: s.Tunnel.Port,
		overhead: ipv4HeaderLen,
	}
	if s.Addr.Is6() {
		t.overhead = ipv6HeaderLen
	}
	t.overhead += uint16(t.shim())
	return t
}

// shim is the length of what stands between the IP headers.
func (t *tunnel) shim() int {
	switch {
	case t.kind == GUE:
		return udpHeaderLen + gueHeaderLen
	case t.kind == GRE && t.checksum:
		return greHeaderLen + greChecksumLen
	case t.kind == GRE:
		return greHeaderLen
	}
	return 0
}

// key finds a tunnel by what an ICMP error quotes of the outer packet, whose
// protocol depends on the family of the inner one.
func (t *tunnel) key(inner uint8) serviceKey {
	k := serviceKey{conntrack.Endpoint{Addr: t.dst, Port: t.port}, inner}
	switch t.kind {
	case GUE:
		k.proto = protoUDP
	case GRE:
		k.proto = protoGRE
	}
	return k
}

// tunnelOf returns the tunnel that an outer packet went through, or nil.
func (s *snapshot) tunnelOf(outer *conntrack.Tuple, proto uint8) *tunnel {
	k := serviceKey{conntrack.Endpoint{Addr: outer.Dst.Addr}, proto}
	if proto == protoUDP {
		k.Port = outer.Dst.Port
	}
	slot := s.tunnelled.find(&k)
	if slot < 0 || s.tunnels[slot].src != outer.Src.Addr {
		return nil
	}
	return &s.tunnels[slot]
}

// publishTunnels says how each server is reached through a tunnel.
func (r *Rules) publishTunnels(s *snapshot) {
	s.tunnels = make([]tunnel, len(r.servers.all))
	t := emptyServiceTable(2 * len(r.servers.all))
	for i, d := range r.servers.all {
		if d == nil {
			continue
		}
		dst := conntrack.AddrFrom(d.Addr)
		s.tunnels[i] = newTunnel(&d.ServerSpec, s.sourceTowards(&dst))
		if d.Method != Tunnel {
			continue
		}
		for _, inner := range []uint8{protoIPv4, protoIPv6} {
			if k := s.tunnels[i].key(inner); t.find(&k) < 0 {
				t.put(k, int32(i))
			}
		}
	}
	s.tunnelled = t
}

// TunnelSources lists the addresses that tunnels start at, as the last Publish has
// them: ICMP errors about what went through a tunnel are sent there.
func (r *Rules) TunnelSources() []netip.Addr {
	var list []netip.Addr
	s := r.current.Load()
	for i, d := range r.servers.all {
		if d == nil || d.Method != Tunnel || i >= len(s.tunnels) || s.tunnels[i].src == (conntrack.Addr{}) {
			continue
		}
		if a := s.tunnels[i].src.Netip(); !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// sourceTowards is the address that a packet of our own to dst is from, as the
// kernel chooses it: the one that the route prefers, one in the network of the next
// hop, one on that link, one anywhere. Never that of a service: a server with the
// same address would take the packet for its own. Zero if there is none.
func (s *snapshot) sourceTowards(dst *conntrack.Addr) conntrack.Addr {
	r := s.routes.find(dst)
	if r == nil || r.port == NoPort {
		return conntrack.Addr{}
	}
	good := func(a *conntrack.Addr) bool {
		own := s.own.find(a)
		return a.Is4() == dst.Is4() && routable(a) && (own < 0 || !s.own.entries[own].service)
	}
	if good(&r.source) {
		return r.source
	}
	next := dst
	if !r.onLink {
		next = &r.gateway
	}
	on := s.ports[r.port].addrs
	for _, list := range [][]connected{on, s.owned} {
		for i := range list {
			if good(&list[i].addr) && list[i].net.contains(next) {
				return list[i].addr
			}
		}
	}
	anywhere := slices.Clone(on)
	for i := range s.ports {
		anywhere = append(anywhere, s.ports[i].addrs...)
	}
	for _, a := range append(anywhere, s.owned...) {
		if good(&a.addr) {
			return a.addr
		}
	}
	return conntrack.Addr{}
}

// head writes the outer headers of inner into h, which is as long as the overhead
// and lies in front of inner or elsewhere. id and df are those of an IPv4 header,
// port is the source port of GUE.
func (t *tunnel) head(h, inner []byte, id uint16, df bool, port uint16) {
	proto, etherType, tos, ttl := protoIPv4, etherTypeIPv4, ipv4Header(inner).tos(), ipv4Header(inner).ttl()
	if ipHeader(inner).is6() {
		proto, etherType, tos, ttl = protoIPv6, etherTypeIPv6, ipv6Header(inner).trafficClass(), ipv6Header(inner).hopLimit()
	}
	at := len(h) - t.shim()
	shim := h[at:]
	switch t.kind {
	case GRE:
		t.greHead(shim, inner, etherType)
		proto = protoGRE
	case GUE:
		t.gueHead(shim, inner, proto, port)
		proto = protoUDP
	}
	if t.dst.Is4() {
		var fragment uint16
		if df {
			fragment, id = ipv4DontFragment, 0 // it needs none (RFC 6864 section 4.1)
		}
		ip := ipv4Header(h)
		writeIPv4(ip[:at], proto, &t.src, &t.dst, id, fragment, encapsulatedTOS(tos))
		ip.setTotalLen(len(h) + len(inner))
		ip.setTTL(ttl)
		ip.computeChecksum()
		return
	}
	ip := ipv6Header(h)
	writeIPv6(ip[:at], proto, &t.src, &t.dst)
	ip.setTrafficClass(encapsulatedTOS(tos))
	ip.setPayloadLen(len(shim) + len(inner))
	ip.setHopLimit(ttl)
}

// greHead writes a GRE header without key and sequence number. Its checksum covers
// itself and what follows (RFC 2784 section 2.3).
func (t *tunnel) greHead(h, inner []byte, etherType uint16) {
	clear(h)
	binary.BigEndian.PutUint16(h[2:], etherType)
	if t.checksum {
		binary.BigEndian.PutUint16(h, greChecksumPresent)
		binary.BigEndian.PutUint16(h[4:], ^fold(sum(inner, sum(h, 0))))
	}
}

// gueHead writes UDP and GUE headers: version 0, no options, a data message of the
// protocol proto.
func (t *tunnel) gueHead(h, inner []byte, proto uint8, port uint16) {
	clear(h)
	h[udpHeaderLen+1] = proto
	length := len(h) + len(inner)
	u := udpHeader(h)
	u.setSrcPort(port)
	u.setDstPort(t.port)
	binary.BigEndian.PutUint16(h[4:6], uint16(length))
	if t.checksum {
		u.setChecksum(nonZero(^fold(sum(inner, sum(h, pseudoSum(&t.src, &t.dst, protoUDP, length))))))
	}
}

// encapsulatedTOS is the type of service of the outer header: that of the inner one,
// but that congestion which was experienced before the tunnel is not told twice
// (RFC 3168 section 9.1.1, full functionality; INET_ECN_encapsulate).
func encapsulatedTOS(tos uint8) uint8 {
	const mask, congested, capable = 3, 3, 2
	if tos&mask == congested {
		return tos&^mask | capable
	}
	return tos
}

// flowPort is the source port of GUE, one for all packets of a connection, so that
// routers with several ways keep them in order.
func flowPort(c *conntrack.Conn) uint16 {
	return 0xc000 | uint16(hashService(&serviceKey{c.Client, c.Proto}))&0x3fff
}
