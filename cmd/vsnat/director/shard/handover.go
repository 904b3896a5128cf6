// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// Packets that came to another shard than their own. The kernel brings nearly all to the
// right one (see iface.Steering), which is fast and no more: what tells is the Forwarder,
// and what it does not want is copied to the shard that it names.
//
// Each two shards have a ring for each direction, of bytes, so that it holds few
// super-packets or many small ones. One writes, one reads, neither waits: what does not
// fit is dropped and counted. The reader judges packets where they lie, and gives their
// room back when they were sent. It is woken if it sleeps, once for all that a batch
// brought.

const (
	// ringBytes is the room of a ring, a power of two: seven super-packets.
	ringBytes = 512 << 10
	// recordHeader is in front of each packet; both together are a multiple of it.
	recordHeader = 32
)

// A letter is what goes with a packet from shard to shard.
type letter struct {
	silent  bool // it was sent, and its next hop did not answer
	port    uint16
	hops    uint8
	header  uint8 // bytes of data in front of the packet
	from    conntrack.LinkAddr
	offload iface.Offload
}

// A ring carries packets from one shard to another. Its ends count bytes since the
// beginning.
type ring struct {
	bytes []byte
	_     [64]byte      // the ends are on cache lines of their own
	put   atomic.Uint64 // written by the sender
	_     [64]byte
	taken atomic.Uint64 // written by the receiver
	_     [64]byte
}

func newRing() *ring { return &ring{bytes: make([]byte, ringBytes)} }

// send copies a packet into the ring. It reports false if there is no room.
func (r *ring) send(l *letter, data []byte) bool {
	size := (recordHeader + len(data) + recordHeader - 1) &^ (recordHeader - 1)
	end := r.put.Load()
	room := len(r.bytes) - int(end-r.taken.Load())
	at := int(end % uint64(len(r.bytes)))
	if rest := len(r.bytes) - at; rest < size { // never cut: it goes to the beginning
		if room < rest+size {
			return false
		}
		binary.NativeEndian.PutUint32(r.bytes[at:], 0)
		end, room, at = end+uint64(rest), room-rest, 0
	}
	if room < size {
		return false
	}
	b := r.bytes[at : at+size]
	binary.NativeEndian.PutUint32(b, uint32(recordHeader+len(data)))
	binary.NativeEndian.PutUint16(b[4:], l.port)
	b[6], b[7], b[8] = l.hops, l.header, 0
	if l.silent {
		b[8] = 1
	}
	copy(b[10:16], l.from[:])
	l.offload.Encode(b[16:])
	copy(b[recordHeader:], data)
	r.put.Store(end + uint64(size))
	return true
}

// empty reports whether nothing was sent that was not taken.
func (r *ring) empty() bool { return r.put.Load() == r.taken.Load() }

// receive reads the packet at a place, which taken is at first, and returns the place of
// the next. The packet lies in the ring until taken has passed it. nil: there is none.
func (r *ring) receive(place uint64, l *letter) (data []byte, next uint64) {
	for place != r.put.Load() {
		at := int(place % uint64(len(r.bytes)))
		length := int(binary.NativeEndian.Uint32(r.bytes[at:]))
		if length == 0 {
			place += uint64(len(r.bytes) - at)
			continue
		}
		size := (length + recordHeader - 1) &^ (recordHeader - 1)
		b := r.bytes[at : at+length : at+length]
		l.port = binary.NativeEndian.Uint16(b[4:])
		l.hops, l.header, l.silent = b[6], b[7], b[8] != 0
		l.from = conntrack.LinkAddr(b[10:16])
		l.offload = iface.DecodeOffload(b[16:])
		return b[recordHeader:], place + uint64(size)
	}
	return nil, place
}

// A neighbourhood is what a shard knows of the others.
type neighbourhood struct {
	self   int
	all    Set
	to     []*ring // by shard; nil to itself
	from   []*ring
	told   uint64      // a bit for each shard that was sent something since it was woken
	asleep atomic.Bool // looks at its rings no more before it is woken

	handedOver, takenOver uint64
}

// connect gives shards rings to each other.
func (all Set) connect() {
	for i, s := range all {
		s.beside = neighbourhood{self: i, all: all, to: make([]*ring, len(all)), from: make([]*ring, len(all))}
	}
	for i, s := range all {
		for j, other := range all {
			if i != j {
				r := newRing()
				s.beside.to[j], other.beside.from[i] = r, r
			}
		}
	}
}

// handOver gives a packet to another shard, with what is in front of it.
func (s *Shard) handOver(to int, l *letter, data []byte) {
	if to >= len(s.beside.to) || s.beside.to[to] == nil || !s.beside.to[to].send(l, data) {
		s.unsent[nat.ReasonHandOver]++
		return
	}
	s.beside.handedOver++
	s.beside.told |= 1 << to
}

// wakeOthers wakes the shards that were sent something.
func (s *Shard) wakeOthers() {
	for to := 0; s.beside.told != 0; to++ {
		if s.beside.told>>to&1 == 0 {
			continue
		}
		s.beside.told &^= 1 << to
		if other := s.beside.all[to]; other.beside.asleep.Load() {
			other.poller.Wake()
		}
	}
}

// expected reports whether another shard has sent something.
func (n *neighbourhood) expected() bool {
	for _, r := range n.from {
		if r != nil && !r.empty() {
			return true
		}
	}
	return false
}

// takeOver moves what others have sent, a batch of each.
func (s *Shard) takeOver() {
	for _, r := range s.beside.from {
		if r == nil || r.empty() {
			continue
		}
		s.forwarder.Begin(s.now)
		place := r.taken.Load()
		for range iface.BatchSize {
			var l letter
			data, next := r.receive(place, &l)
			if place = next; data == nil {
				break
			}
			s.beside.takenOver++
			s.open(&l, data)
			if s.forwarder.Crowded() {
				s.generated()
				s.flush()
				s.forwarder.Begin(s.now)
			}
		}
		s.forwarder.Sweep(sweepPerBatch)
		s.generated()
		s.flush()
		r.taken.Store(place) // what was queued was written
	}
}

// open judges one packet that another shard has sent.
func (s *Shard) open(l *letter, data []byte) {
	header := int(l.header)
	if l.silent {
		s.forwarder.Unreachable(data[header:], l.port)
		return
	}
	p := s.ports[l.port%nat.MaxPorts]
	if p == nil {
		s.unsent[nat.ReasonSend]++ // it was closed meanwhile
		return
	}
	packet := nat.Packet{
		Data: data[header:], Offload: fromWire(&l.offload, uint16(header)), In: l.port, From: l.from, Hops: l.hops,
	}
	s.forward(p, data, header, &packet, &l.offload)
}

// silent is told of each frame whose next hop did not answer. Whose connection it is
// tells the sender.
func (s *Shard) silent(port int, frame []byte) {
	owner := s.forwarder.Owner(frame[etherHeaderLen:])
	if owner == s.beside.self {
		s.forwarder.Unreachable(frame[etherHeaderLen:], uint16(port))
		return
	}
	s.handOver(owner, &letter{silent: true, port: uint16(port), header: etherHeaderLen}, frame)
}
