// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/sched"
)

// A snapshot is everything that Forwarders read and Rules decides: immutable
// once published, swapped whole, loaded once per batch.
type snapshot struct {
	serial    uint64 // how many were published before
	own       ownTable
	owned     []connected // of own, those with a network
	services  serviceTable
	marks     markTable
	anyPort   bool           // there is a service of all ports
	once      serviceTable   // services with one-packet scheduling, by endpoints of servers; empty: none
	service   []serviceEntry // by service slot
	server    []serverEntry  // by server slot
	endpoint  endpointTable  // what real servers serve at
	snat      []snatRule     // longest prefix first
	inner     ownTable       // addresses of real servers whose answers pass us
	tunnels   []tunnel       // by server slot
	tunnelled serviceTable   // of server slots, by what their tunnels look like from outside
	reserved  []portReserve  // parallel to own.entries
	routes    routeTable
	ports     [MaxPorts]PortInfo
	settings  Settings
	departed  uint64   // servers that were ever deleted, if one of them left something to do
	idle      bool     // there is no service
	helpers   bool     // some service has one
	ftpData   bool     // some service takes data connections of FTP that nobody has announced
	inside    []prefix // networks whose packets are ours to translate or to refuse
	host      []conntrack.Addr
}

type serviceEntry struct {
	key       serviceKey // zero but for the family with a mark
	mark      uint32
	pool      *sched.Pool
	servers   []uint32 // server slots, newest first
	noServer  NoServer
	persist   persistence
	onePacket bool
	helper    Helper
	serial    uint64 // tells one user of the slot from the next
}

type serverEntry struct {
	dest     conntrack.Endpoint // port 0: that of the packet
	server   *sched.Server      // nil: the slot is free
	service  uint32             // NoSlot: deleted
	method   Method             // of new connections
	gone     bool               // deleted, kept for the connections that refer to it
	fate     fate               // of its connections, if it is gone
	drain    Drain
	timeouts *conntrack.Timeouts // of its connections
	hop      hop                 // the way there
	once     bool                // its answers are in the snapshot's table once
	full     bool                // its new connections get full NAT
	locals   []int32             // what clients appear with then, by index in own.entries
	serial   uint64
}

type snatRule struct {
	from prefix
	to   conntrack.Addr
	own  int32 // index in own.entries
	min  uint16
	max  uint16
}

// A portReserve says which ports of one of our addresses may be handed out:
// those of the spans, but for the listed ones.
type portReserve struct {
	spans [][2]uint16 // both ends included
	ports [3][]uint16 // TCP, UDP, SCTP
}

// leaves reports whether a port may be handed out.
func (r *portReserve) leaves(proto uint8, port uint16) bool {
	if i := protoIndex(proto); i < len(r.ports) && slices.Contains(r.ports[i], port) {
		return false
	}
	return r.covers(port)
}

func (r *portReserve) covers(port uint16) bool {
	for _, s := range r.spans {
		if port >= s[0] && port <= s[1] {
			return true
		}
	}
	return false
}

// ---- addresses

type prefix struct {
	addr conntrack.Addr
	bits uint8 // of 128
}

func newPrefix(p netip.Prefix) prefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return prefix{addr: conntrack.AddrFrom(p.Masked().Addr()), bits: uint8(bits)}
}

// contains reports whether a is in the network, which is of a's family then:
// the mapped form of IPv4 lies in no network of IPv6.
func (p *prefix) contains(a *conntrack.Addr) bool {
	if p.bits == 128 {
		return p.addr == *a
	}
	if p.bits < 96 && a.Is4() {
		return false
	}
	hi := binary.BigEndian.Uint64(p.addr[:8]) ^ binary.BigEndian.Uint64(a[:8])
	if p.bits < 64 {
		return hi>>(64-p.bits) == 0
	}
	lo := binary.BigEndian.Uint64(p.addr[8:]) ^ binary.BigEndian.Uint64(a[8:])
	return hi == 0 && lo>>(128-p.bits) == 0
}

// ends reports whether a is the first or the last address of an IPv4 network of
// more than two (RFC 1122 section 3.2.1.3, RFC 3021).
func (p *prefix) ends(a *conntrack.Addr) bool {
	if p.bits > 126 || !p.addr.Is4() {
		return false
	}
	all := ^uint32(0) >> (p.bits - 96)
	host := binary.BigEndian.Uint32(a[12:]) & all
	return host == 0 || host == all
}

// hashAddr mixes an address for the small tables of a snapshot. Their content
// is the operator's, so no secret is needed: a sender can choose what it looks
// up, not what it collides with.
func hashAddr(a *conntrack.Addr) uint64 {
	return mix(binary.LittleEndian.Uint64(a[:8])^0x9e3779b97f4a7c15, binary.LittleEndian.Uint64(a[8:])^0xff51afd7ed558ccd)
}

func hashService(k *serviceKey) uint64 {
	return mix(hashAddr(&k.Addr)^0xc4ceb9fe1a85ec53, uint64(k.Port)<<8|uint64(k.proto)|1<<63)
}

// mix folds two words so that every bit counts in the low ones: the hosts of a
// network differ in their last byte alone.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// tableSize returns a power of two that n entries fill to at most a half.
func tableSize(n int) int {
	size := 8
	for size < 2*n {
		size *= 2
	}
	return size
}

// ownEntry is an address that packets are taken from the wire for.
type ownEntry struct {
	addr    conntrack.Addr
	onHost  bool // the host has it, and keeps what is not ours on it
	service bool // some service is on it
	snat    bool // some SNAT rule leads to it
	local   bool // clients appear with it; see fullnat.go
	held    bool // the director speaks from it too
	leaving bool // nothing but a deleted rule, whose connections go on
	mapped  *atomic.Int64
}

// ownTable finds addresses of ours. Each packet asks for both of its own, most of
// the time for one that is not there: a third of the slots is in use at most, and a
// slot says all that is asked.
type ownTable struct {
	slots   []ownSlot
	entries []ownEntry
}

type ownSlot struct {
	addr  conntrack.Addr
	index int32 // into entries, -1 free
}

func newOwnTable(entries []ownEntry) ownTable {
	t := ownTable{slots: make([]ownSlot, tableSize(2*len(entries))), entries: entries}
	for i := range t.slots {
		t.slots[i].index = -1
	}
	mask := uint64(len(t.slots) - 1)
	for i := range entries {
		at := hashAddr(&entries[i].addr) & mask
		for t.slots[at].index >= 0 {
			at = (at + 1) & mask
		}
		t.slots[at] = ownSlot{entries[i].addr, int32(i)}
	}
	return t
}

// find returns the index of a's entry, or -1.
func (t *ownTable) find(a *conntrack.Addr) int32 {
	mask := uint64(len(t.slots) - 1)
	for at := hashAddr(a) & mask; ; at++ {
		s := &t.slots[at&mask]
		if s.index < 0 || s.addr == *a {
			return s.index
		}
	}
}

// ---- services and servers by endpoint

type serviceKey struct {
	conntrack.Endpoint
	proto uint8
}

type serviceTable struct {
	slot []int32 // service slot, -1 free
	keys []serviceKey
}

func emptyServiceTable(entries int) serviceTable {
	n := tableSize(entries)
	t := serviceTable{slot: make([]int32, n), keys: make([]serviceKey, n)}
	for i := range t.slot {
		t.slot[i] = -1
	}
	return t
}

func newServiceTable(services []serviceEntry) serviceTable {
	t := emptyServiceTable(len(services))
	for i := range services {
		if services[i].pool != nil && services[i].mark == 0 {
			t.put(services[i].key, int32(i))
		}
	}
	return t
}

// put adds k, or replaces its slot.
func (t *serviceTable) put(k serviceKey, slot int32) {
	mask := uint64(len(t.slot) - 1)
	at := hashService(&k) & mask
	for t.slot[at] >= 0 && t.keys[at] != k {
		at = (at + 1) & mask
	}
	t.slot[at], t.keys[at] = slot, k
}

// find returns the slot of the service at k, or -1.
func (t *serviceTable) find(k *serviceKey) int32 {
	mask := uint64(len(t.slot) - 1)
	for at := hashService(k) & mask; ; at = (at + 1) & mask {
		if t.slot[at] < 0 || t.keys[at] == *k {
			return t.slot[at]
		}
	}
}

// serviceOf returns the slot of the service that a packet is for, or -1: that of
// its destination and port, else that of FTP there, if it may be for data, else that
// of its destination and all ports (ip_vs_service_find).
func (s *snapshot) serviceOf(t *conntrack.Tuple) int32 {
	k := serviceKey{t.Dst, t.Proto}
	slot := s.services.find(&k)
	if slot < 0 && s.ftpData {
		slot = s.ftpDataService(t)
	}
	if slot < 0 && s.anyPort {
		k.Port = 0
		slot = s.services.find(&k)
	}
	return slot
}

func (s *snapshot) snatFor(src *conntrack.Addr) *snatRule {
	for i := range s.snat {
		if s.snat[i].from.contains(src) {
			return &s.snat[i]
		}
	}
	return nil
}

func (s *snapshot) isInside(a *conntrack.Addr) bool {
	for i := range s.inside {
		if s.inside[i].contains(a) {
			return true
		}
	}
	return false
}
