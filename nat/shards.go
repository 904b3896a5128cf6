// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/vsnat/vsnat/conntrack"
)

// Several Forwarders beside each other, each with the connections of some outside
// addresses: of clients to services, of remotes that inside hosts talk to. An address
// alone decides (ShardKey), so that what belongs together is in one place: a client and
// its template, its control and data connections and its count, all fragments of a
// datagram, and an error and what it quotes. One address is never spread.
//
// A packet that comes to another Forwarder than its own leaves it as it came, with the
// verdict Elsewhere, and whoever moves packets hands it over. What tells where it
// belongs:
//
//	to an address of ours     its source
//	to any other              its destination; its source, if a mark rule to a network
//	                          makes it ours
//	an error                  what the answer to the quoted packet would tell
//	an answer of full NAT     comes from a server to a port of ours, and the client is not
//	                          in it. Local ports are dealt out so that they tell (see
//	                          tells): it goes there, and on by its source if nobody waits
//	                          for it there
//	about a tunnel            the client in the quoted packet inside, if it is quoted
//
// What no connection has to do with, pings and what is the host's, is decided wherever
// it belongs by these rules.
//
// Shared are few things, and none that a packet of a connection needs: the mapper of
// ports (a mutex, for first packets and removals), what is left of the limit for answers
// (one number), and what routers said of tunnels (copied when it changed).

// A ShardKey tells by an outside address which of several Forwarders has what concerns
// it. Addresses that are equal under its masks are together.
type ShardKey struct {
	Mask4 uint32 // of an IPv4 address, in network order
	Mask6 uint64 // of the first half of an IPv6 address: a network of 64 bits is one client
}

// NewShardKey returns the key that keeps clients together who are one under any of the
// masks, which are those of persistence.
func NewShardKey(masks ...conntrack.Addr) ShardKey {
	k := ShardKey{Mask4: ^uint32(0), Mask6: ^uint64(0)}
	for i := range masks {
		m := &masks[i]
		switch {
		case *m == conntrack.Addr{}: // all of it
		case m.Is4():
			k.Mask4 &= binary.BigEndian.Uint32(m[12:])
		default:
			k.Mask6 &= binary.BigEndian.Uint64(m[:8])
		}
	}
	return k
}

// Keeps reports whether clients that are one under a mask of persistence are together.
func (k ShardKey) Keeps(mask conntrack.Addr) bool {
	wider := NewShardKey(mask)
	return wider.Mask4&k.Mask4 == k.Mask4 && wider.Mask6&k.Mask6 == k.Mask6
}

// Of returns which of n Forwarders an address belongs to. A program for the kernel can
// compute it (package iface has one): a multiplication, of which the high bits count.
func (k ShardKey) Of(a *conntrack.Addr, n int) int {
	const odd = 0x9e3779b1 // 2^32 divided by the golden ratio
	h := binary.BigEndian.Uint32(a[12:]) & k.Mask4
	if !a.Is4() {
		h = binary.BigEndian.Uint32(a[:])&uint32(k.Mask6>>32)*odd ^ binary.BigEndian.Uint32(a[4:])&uint32(k.Mask6)
	}
	return int(h * odd >> 16 % uint32(n))
}

// place is which of several a Forwarder is.
type place struct {
	self, n int
	key     ShardKey
}

// maxHops is how often a packet is handed over at most: to where its local port tells
// and from there to where its source does.
const maxHops = 2

// elsewhere decides about a packet without an entry here, of the tuple t, or about whose
// answer t is: whether it belongs to another Forwarder, or is to be met as a first one.
// own is the index of its destination among our addresses, or -1.
func (f *Forwarder) elsewhere(p *Packet, t *conntrack.Tuple, own int32) (v Verdict, away bool) {
	k := f.place.key.Of(f.outside(t, own), f.place.n)
	if p.Hops >= maxHops {
		if k == f.place.self {
			return Verdict{}, false
		}
		f.counters.strange++
		return drop(ReasonWrongShard), true // two snapshots do not agree yet
	}
	hops := p.Hops + 1
	if f.mayBeLocal(t, own) {
		r := f.told(t)
		if r != f.place.self {
			return elsewhere(r, hops), true
		}
		hops = maxHops
	}
	if k != f.place.self {
		return elsewhere(k, hops), true
	}
	return Verdict{}, false
}

func elsewhere(shard int, hops uint8) Verdict {
	return Verdict{Action: Elsewhere, Shard: uint8(shard), Hops: hops}
}

// outside returns the outside address of a packet, as far as addresses tell.
func (f *Forwarder) outside(t *conntrack.Tuple, own int32) *conntrack.Addr {
	if own >= 0 || f.snap.marks.wide && f.snap.inner.find(&t.Src.Addr) < 0 && f.snap.marks.between(&t.Src.Addr, &t.Dst.Addr) {
		return &t.Src.Addr
	}
	return &t.Dst.Addr
}

// mayBeLocal tells whether a packet may be an answer of full NAT.
func (f *Forwarder) mayBeLocal(t *conntrack.Tuple, own int32) bool {
	return own >= 0 && protoIndex(t.Proto) != protoIndex(ProtoICMP) && f.snap.inner.find(&t.Src.Addr) >= 0 &&
		f.snap.reserved[own].leaves(t.Proto, t.Dst.Port)
}

// told is whose connections have a port of ours as their local one.
func (w *place) told(port uint16) int { return int(port) % w.n }

// tells reports whether a port of ours may be the local one of a connection here.
func (f *Forwarder) tells(port uint16) bool {
	return f.place.n == 1 || f.place.told(port) == f.place.self
}

// meets counts a connection that a packet has met where it does not belong: there are none.
func (f *Forwarder) meets(c *conntrack.Conn) {
	if f.place.key.Of(&c.Client.Addr, f.place.n) != f.place.self {
		f.counters.strange++
	}
}

// fragmentElsewhere is elsewhere for a fragment, which has no ports: all of a datagram
// come together first, then the leader tells more.
func (f *Forwarder) fragmentElsewhere(p *Packet, h *parsed) (Verdict, bool) {
	if p.Hops > 0 {
		return Verdict{}, false
	}
	k := f.place.key.Of(f.outside(&h.tuple, f.snap.own.find(&h.tuple.Dst.Addr)), f.place.n)
	return elsewhere(k, 1), k != f.place.self
}

// handOn hands a datagram over whose leader p belongs elsewhere: all of it by the
// outbox, in order. last is the fragment that completed it, nil if that is the leader.
func (f *Forwarder) handOn(p, last *Packet, held *heldFragments, v Verdict) Verdict {
	mark := f.outbox.mark()
	put := func(data []byte) bool {
		b := f.outbox.room(len(data))
		if b == nil {
			return false
		}
		f.outbox.put(copy(b, data), Packet{In: p.In, From: p.From}, v)
		return true
	}
	ok := put(p.Data)
	for ok {
		data := held.next()
		if data == nil {
			break
		}
		ok = put(data)
	}
	if ok && last != nil {
		ok = put(last.Data)
	}
	if !ok {
		f.outbox.backTo(mark)
		f.counters.drops[ReasonFragmentLate] += uint64(held.drop())
		return drop(ReasonOutboxFull)
	}
	return Verdict{Action: Hold}
}

// Owner returns the Forwarder that has the connection of a packet that one of them
// forwarded: it tells the sender that the next hop did not answer. data is the packet as
// it left.
func (f *Forwarder) Owner(data []byte) int {
	p, h := Packet{Data: data}, &f.parsed
	if f.place.n == 1 || h.parse(&p) != ReasonNone {
		return f.place.self
	}
	if t := f.snap.tunnelOf(&h.tuple, h.proto); t != nil {
		var inner quoted
		if _, ok := f.innerConn(p.Data, &quoted{l4: h.l4, end: len(p.Data), proto: h.proto}, t, &inner); ok {
			return f.place.key.Of(&inner.tuple.Src.Addr, f.place.n)
		}
	}
	back := conntrack.Tuple{Src: h.tuple.Dst, Dst: h.tuple.Src, Proto: h.tuple.Proto}
	own := f.snap.own.find(&back.Dst.Addr)
	if f.mayBeLocal(&back, own) {
		return f.told(&back)
	}
	return f.place.key.Of(f.outside(&back, own), f.place.n)
}

// commons are what Forwarders beside each other share.
type commons struct {
	mapper    portMapper
	next      atomic.Int64 // of their limiters for answers
	paths     sharedPaths
	strangers strangers
}

// sharedPaths is what routers said of the ways to servers, to whichever Forwarder. Each
// looks it up in a copy of its own.
type sharedPaths struct {
	lessons atomic.Uint64
	mu      sync.Mutex
	cache   pathCache
}

func (s *sharedPaths) learn(a *conntrack.Addr, mtu uint32, now conntrack.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.learn(a, mtu, now)
	s.lessons.Add(1)
}

// follow brings the copy c up to date, which has taken up as many lessons as known says.
func (s *sharedPaths) follow(c *pathCache, known *uint64) {
	n := s.lessons.Load()
	if n == *known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*c, *known = s.cache, s.lessons.Load()
}
