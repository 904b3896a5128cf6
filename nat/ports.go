// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/vsnat/vsnat/conntrack"
)

// Port mapping for SNAT and hairpin.
//
// A mapping ties an inside endpoint to a port of one of our addresses. It is
// made with the first connection of the endpoint, shared by all of them
// (endpoint-independent mapping, RFC 4787 REQ-1, RFC 5382 REQ-1), and ends
// with the last. No two endpoints ever share a port (REQ-3). For ICMP queries
// the identifier is the port (RFC 5508 REQ-1).
//
// All memory is claimed when an address becomes ours: per address and protocol
// one bit a port for what is taken and one for what is reserved (64 KiB an
// address), and a row for each port that can be handed out, but never more rows
// than the table has connections (32 bytes a row, and 4 to 8 for its bucket).

// maxPortAddrs bounds the addresses that ports are handed out of.
const maxPortAddrs = 256

// A portPool hands out the ports of one address and protocol.
type portPool struct {
	taken    [1024]uint64 // a bit for each port, 1: mapped
	reserved [1024]uint64 // 1: never to be handed out
}

// The classes of netfilter (nf_nat_core.c): a port is replaced by one of its
// own class, so that a privileged one stays privileged.
var portClasses = [...]struct{ from, min, max uint16 }{
	{1024, 1024, 65535},
	{512, 600, 1023},
	{0, 1, 511},
}

func classOf(port uint16) (lo, hi uint16) {
	for _, c := range portClasses {
		if port >= c.from {
			return c.min, c.max
		}
	}
	return 1, 511
}

func (p *portPool) free(port uint16) bool {
	return (p.taken[port/64]|p.reserved[port/64])>>(port%64)&1 == 0
}

// pick returns a free port in [lo, hi], the first at or after a place that
// salt decides, or 0 if none is left. It looks at 64 ports at a time, so that
// an exhausted range costs about a microsecond.
func (p *portPool) pick(lo, hi uint16, kind portKind, salt uint32) uint16 {
	first, last := int(lo/64), int(hi/64)
	n := last - first + 1
	start := int(salt>>8) % n
	for i := 0; i <= n; i++ {
		w := first + (start+i)%n
		free := ^(p.taken[w] | p.reserved[w]) & kind.of64(w*64)
		if w == first {
			free &= ^uint64(0) << (lo % 64)
		}
		if w == last {
			free &= ^uint64(0) >> (63 - hi%64)
		}
		if i == 0 { // begin in the middle of the first word
			free &= ^uint64(0) << (salt % 64)
		}
		if free != 0 {
			return uint16(w*64 + bits.TrailingZeros64(free))
		}
	}
	return 0
}

// mapping is one row: an inside endpoint and the port that stands for it.
type mapping struct {
	inside conntrack.Endpoint
	proto  uint8
	pool   uint8 // which of our addresses
	port   uint16
	kind   portKind
	refs   uint32 // connections
	next   uint32 // in the chain of its bucket, or in the free list; 0 ends
}

// A portKind says which ports an endpoint may be given. With several Forwarders those
// that stand for a client towards servers tell whose connections they are of, so that an
// endpoint has one for each Forwarder, beside the one of SNAT.
type portKind struct{ shard, of uint8 }

// anyPort may be any.
var anyPort = portKind{0, 1}

// locals are the ports that tell of connections here.
func (w *place) locals() portKind { return portKind{uint8(w.self), uint8(w.n)} }

func (k portKind) has(port uint16) bool { return uint8(port%uint16(k.of)) == k.shard }

// of64 has a bit for each of 64 ports from first on that is one of k.
func (k portKind) of64(first int) (bits uint64) {
	if k.of == 1 {
		return ^uint64(0)
	}
	n := int(k.of)
	for i := (int(k.shard) + n - first%n) % n; i < 64; i += n {
		bits |= 1 << i
	}
	return bits
}

// portMapper holds the mappings of all Forwarders, as a port must never stand for two
// endpoints, and an endpoint has its port whoever it talks to. The first packets and the
// removals of connections with a mapping come here, and no others.
type portMapper struct {
	mu      sync.Mutex
	seed    uint64 // never changes
	maxRows int
	serial  uint64           // of the newest snapshot that was taken up
	addrs   []conntrack.Addr // by pool number, at most maxPortAddrs
	pools   [][4]*portPool   // parallel: TCP, UDP, SCTP, ICMP
	rows    []mapping        // row 0 is none
	heads   []uint32
	free    uint32 // rows given back
	fresh   uint32 // rows from here on were never used
	used    int
	counts  [maxPortAddrs]int           // mappings per address
	shared  [maxPortAddrs]*atomic.Int64 // the same, for Rules
}

func protoIndex(proto uint8) int {
	switch proto {
	case ProtoTCP:
		return 0
	case ProtoUDP:
		return 1
	case ProtoSCTP:
		return 2
	}
	return 3
}

// init readies an empty mapper. A mapping lives by its connections, so that
// there are never more mappings than connections.
func (m *portMapper) init(seed uint64, maxConns int) {
	m.seed, m.maxRows, m.fresh = seed, maxConns+1, 1 // row 0 is none
	m.rows = make([]mapping, 1)
	m.rehash()
}

// sync takes up the addresses and reserved ports of a new snapshot: those of
// SNAT rules, and those of services for the hairpin. An address that is ours no
// longer keeps its pool while mappings live on. It returns the pool of each address
// of ours, in the memory of pools: -1 if it has none, or none any more because a newer
// snapshot was taken up by another Forwarder.
func (m *portMapper) sync(s *snapshot, pools []int16) []int16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	pools = slices.Grow(pools[:0], len(s.own.entries))[:len(s.own.entries)]
	for i := range pools {
		pools[i] = -1
	}
	for pool := range m.addrs {
		if i := s.own.find(&m.addrs[pool]); i >= 0 {
			pools[i] = int16(pool)
		}
	}
	if s.serial < m.serial {
		return pools
	}
	m.serial = s.serial
	m.claim(s, pools, func(e *ownEntry) bool { return e.snat })
	m.claim(s, pools, func(e *ownEntry) bool { return e.service })
	if want := min(m.maxRows, 4*65535*len(m.addrs)) + 1; want > len(m.rows) {
		rows := make([]mapping, want)
		copy(rows, m.rows[:m.fresh])
		m.rows = rows
		m.rehash()
	}
	for i, pool := range pools {
		if pool >= 0 {
			m.reserve(int(pool), &s.reserved[i])
			m.shared[pool] = s.own.entries[i].mapped
		}
	}
	return pools
}

// claim gives a pool to each address of a kind that has none, if one is left.
func (m *portMapper) claim(s *snapshot, pools []int16, kind func(*ownEntry) bool) {
	for i := range s.own.entries {
		if e := &s.own.entries[i]; pools[i] < 0 && kind(e) {
			pools[i] = int16(m.addPool(s, e.addr))
		}
	}
}

// addPool claims the memory for an address, 64 KiB of bits, or takes that of an
// address that is ours no longer. -1: there are too many.
func (m *portMapper) addPool(s *snapshot, addr conntrack.Addr) int {
	for pool := range m.addrs {
		if m.counts[pool] == 0 && s.own.find(&m.addrs[pool]) < 0 {
			m.addrs[pool] = addr
			return pool
		}
	}
	if len(m.addrs) == maxPortAddrs {
		return -1
	}
	m.addrs = append(m.addrs, addr)
	m.pools = append(m.pools, [4]*portPool{{}, {}, {}, {}})
	return len(m.addrs) - 1
}

// reserve says anew which ports of a pool may be handed out.
func (m *portMapper) reserve(pool int, r *portReserve) {
	for proto, p := range m.pools[pool] {
		if proto == protoIndex(ProtoICMP) {
			p.reserved = [1024]uint64{0: 1} // identifiers are nobody's, but 0 stands for none
			continue
		}
		for i := range p.reserved {
			p.reserved[i] = ^uint64(0)
		}
		for _, span := range r.spans {
			p.unreserve(span[0], span[1])
		}
		for _, port := range r.ports[proto] {
			p.reserved[port/64] |= 1 << (port % 64)
		}
		p.reserved[0] |= 1
	}
}

// unreserve clears the bits of lo to hi.
func (p *portPool) unreserve(lo, hi uint16) {
	first, last := lo/64, hi/64
	for w := first; w <= last; w++ {
		clear := ^uint64(0)
		if w == first {
			clear &= ^uint64(0) << (lo % 64)
		}
		if w == last {
			clear &= ^uint64(0) >> (63 - hi%64)
		}
		p.reserved[w] &^= clear
	}
}

// anyPool returns the index of an address of ours of a family that more ports may be
// mapped of, or -1.
func (f *Forwarder) anyPool(four bool) int32 {
	for i, pool := range f.pools {
		if e := &f.snap.own.entries[i]; pool >= 0 && e.addr.Is4() == four && !e.leaving {
			return int32(i)
		}
	}
	return -1
}

// mapPort returns a mapping of inside to a port of one of our addresses, given by its
// index among them: see portMapper.get. 0: no port is left.
func (f *Forwarder) mapPort(own int32, inside *conntrack.Endpoint, proto uint8, lo, hi uint16, kind portKind) (row uint32, port uint16) {
	if own < 0 || f.pools[own] < 0 {
		return 0, 0
	}
	return f.mapper.get(&f.snap.own.entries[own].addr, uint8(f.pools[own]), inside, proto, lo, hi, kind)
}

// mapped reports whether a port of one of our addresses stands for somebody inside.
func (f *Forwarder) mapped(own int32, proto uint8, port uint16) bool {
	if own < 0 || f.pools[own] < 0 {
		return false
	}
	return f.mapper.mapped(uint8(f.pools[own]), proto, port)
}

// bytes is the memory claimed.
func (m *portMapper) bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.rows))*int64(unsafe.Sizeof(mapping{})) + 4*int64(len(m.heads)) +
		int64(len(m.pools))*4*int64(unsafe.Sizeof(portPool{}))
}

func (m *portMapper) stats() (list []PoolStats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, a := range m.addrs {
		list = append(list, PoolStats{Addr: a, Mappings: m.counts[i]})
	}
	return list
}

func (m *portMapper) rehash() {
	m.heads = make([]uint32, 1<<bits.Len(uint(len(m.rows)-1)))
	for i := 1; i < int(m.fresh); i++ { // row 0 is none
		if row := &m.rows[i]; row.refs > 0 {
			b := m.bucket(&row.inside, row.proto, row.pool)
			row.next = m.heads[b]
			m.heads[b] = uint32(i)
		}
	}
}

func (m *portMapper) bucket(e *conntrack.Endpoint, proto, pool uint8) uint64 {
	return m.hash(e, proto, pool) & uint64(len(m.heads)-1)
}

// hash is keyed, so that nobody outside can foretell a port or fill a chain.
func (m *portMapper) hash(e *conntrack.Endpoint, proto, pool uint8) uint64 {
	h := m.seed ^ binary.LittleEndian.Uint64(e.Addr[8:])
	hi, lo := bits.Mul64(h, 0x9e3779b97f4a7c15^binary.LittleEndian.Uint64(e.Addr[:8]))
	h = hi ^ lo ^ uint64(e.Port)<<16 ^ uint64(proto)<<8 ^ uint64(pool)
	hi, lo = bits.Mul64(h^m.seed, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// find returns the row of an inside endpoint's mapping, or 0.
func (m *portMapper) find(e *conntrack.Endpoint, proto, pool uint8, kind portKind) uint32 {
	for i := m.heads[m.bucket(e, proto, pool)]; i != 0; i = m.rows[i].next {
		if row := &m.rows[i]; row.inside == *e && row.proto == proto && row.pool == pool && row.kind == kind {
			return i
		}
	}
	return 0
}

// get returns a mapping of e to a port of addr, the pool's address: the one there is, or a
// new one with e's own port if that is free, else one of [lo, hi]. A reference is
// counted; give it back with release. 0: no port is left, or the pool is another
// address's by now.
func (m *portMapper) get(addr *conntrack.Addr, pool uint8, e *conntrack.Endpoint, proto uint8, lo, hi uint16, kind portKind) (row uint32, port uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addrs[pool] != *addr {
		return 0, 0
	}
	if i := m.find(e, proto, pool, kind); i != 0 {
		m.rows[i].refs++
		return i, m.rows[i].port
	}
	p := m.pools[pool][protoIndex(proto)]
	port = e.Port
	if port < lo || port > hi || !kind.has(port) || !p.free(port) {
		if port = p.pick(lo, hi, kind, uint32(m.hash(e, proto, pool)>>32)); port == 0 {
			return 0, 0
		}
	}
	if row = m.put(pool, e, proto, port, kind); row == 0 {
		return 0, 0
	}
	return row, port
}

// resume is get for a mapping that there was before: that port of the pool or none,
// whether the kind has it or not. 0: it is taken, or must not be handed out any more.
func (m *portMapper) resume(addr *conntrack.Addr, pool uint8, e *conntrack.Endpoint, proto uint8, port uint16, kind portKind) (row uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addrs[pool] != *addr {
		return 0
	}
	if i := m.find(e, proto, pool, kind); i != 0 {
		if m.rows[i].port != port {
			return 0
		}
		m.rows[i].refs++
		return i
	}
	if !m.pools[pool][protoIndex(proto)].free(port) {
		return 0
	}
	return m.put(pool, e, proto, port, kind)
}

// put makes a row for a port that is free, with one reference. 0: there is no room.
func (m *portMapper) put(pool uint8, e *conntrack.Endpoint, proto uint8, port uint16, kind portKind) uint32 {
	i := m.free
	switch {
	case i != 0:
		m.free = m.rows[i].next
	case int(m.fresh) < len(m.rows):
		i = m.fresh
		m.fresh++
	default:
		return 0
	}
	b := m.bucket(e, proto, pool)
	m.rows[i] = mapping{inside: *e, proto: proto, pool: pool, port: port, refs: 1, next: m.heads[b], kind: kind}
	m.heads[b] = i
	m.pools[pool][protoIndex(proto)].taken[port/64] |= 1 << (port % 64)
	m.used++
	m.counts[pool]++
	m.shared[pool].Add(1)
	return i
}

// release gives a reference back; the last one frees the port.
func (m *portMapper) release(i uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := &m.rows[i]
	if row.refs--; row.refs > 0 {
		return
	}
	m.pools[row.pool][protoIndex(row.proto)].taken[row.port/64] &^= 1 << (row.port % 64)
	at := &m.heads[m.bucket(&row.inside, row.proto, row.pool)]
	for *at != i {
		at = &m.rows[*at].next
	}
	*at = row.next
	m.counts[row.pool]--
	m.shared[row.pool].Add(-1)
	*row = mapping{next: m.free}
	m.free = i
	m.used--
}

func (m *portMapper) mapped(pool, proto uint8, port uint16) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pools[pool][protoIndex(proto)].taken[port/64]>>(port%64)&1 != 0
}
