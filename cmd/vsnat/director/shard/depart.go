// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// The way out: a verdict becomes a link header and a place in a port's batch.

// depart sends a frame whose packet was judged: data[header:] is the packet,
// and what is in front of it room for a link header.
func (s *Shard) depart(data []byte, header int, packet *nat.Packet, v *nat.Verdict) {
	p := s.ports[v.Port%nat.MaxPorts]
	if p == nil {
		s.unsent[nat.ReasonSend]++
		return
	}
	if p.L3 {
		s.queue(p, data[header:], toWire(&packet.Offload, 0))
		return
	}
	if header < etherHeaderLen {
		s.unsent[nat.ReasonSend]++ // in by a port without link addresses, out by one with
		return
	}
	frame := data[header-etherHeaderLen:]
	off := toWire(&packet.Offload, etherHeaderLen)
	etherType := uint16(etherTypeIPv4)
	if frame[etherHeaderLen]>>4 == 6 {
		etherType = etherTypeIPv6
	}
	binary.BigEndian.PutUint16(frame[12:14], etherType)
	to := v.To
	if to == (conntrack.LinkAddr{}) {
		generation := s.neighbours.Generation()
		row := s.macs.row(&v.NextHop, v.Port)
		if !row.holds(&v.NextHop, v.Port, generation) && !s.resolve(p, v, frame, off, row, generation) {
			return
		}
		to = row.mac
	}
	copy(frame[0:6], to[:])
	copy(frame[6:12], p.MAC[:])
	s.queue(p, frame, off)
}

// resolve looks a next hop up and keeps the answer in row. It reports false if
// the frame was taken care of: it waits for the neighbour, or is lost.
func (s *Shard) resolve(p *Port, v *nat.Verdict, frame []byte, off iface.Offload, row *macRow, generation uint32) bool {
	addr := v.NextHop.Netip()
	now := iface.Time(s.now)
	mac, ok := s.neighbours.Lookup(now, int(p.Index), addr)
	if !ok {
		switch s.neighbours.Resolve(now, int(p.Index), addr, frame, off, s.sendNow) {
		case iface.ResolveQueued:
			return false
		case iface.ResolveKnown:
			s.queue(p, frame, off)
			return false
		case iface.ResolveUnreachable:
			s.forwarder.Unreachable(frame[etherHeaderLen:], p.Index)
			return false
		case iface.ResolveFull:
			s.unsent[nat.ReasonQueueFull]++
			return false
		}
		s.unsent[nat.ReasonNeighbour]++
		return false
	}
	*row = macRow{addr: v.NextHop, port: v.Port, generation: generation, mac: mac, set: true}
	return true
}

// queue puts a frame into a port's batch. Its memory must stay as it is until
// flush.
func (s *Shard) queue(p *Port, frame []byte, off iface.Offload) {
	if len(p.out) == cap(p.out) {
		s.write(p)
	}
	if s.ports[p.Index] != p {
		s.unsent[nat.ReasonSend]++ // it failed just now
		return
	}
	p.out = append(p.out, iface.Frame{Data: frame, Offload: off})
}

// generated sends what the Forwarder made itself, or kept until it was whole.
func (s *Shard) generated() {
	for list := s.forwarder.Outbox(); len(list) > 0; list = s.forwarder.Outbox() {
		for i := range list {
			g := &list[i]
			if g.Verdict.Action == nat.Elsewhere {
				s.handOn(g)
				continue
			}
			s.depart(g.Memory, nat.Headroom, &g.Packet, &g.Verdict)
		}
	}
}

// handOn hands over what the Forwarder kept for another shard. Its link header is gone,
// the room for one is not.
func (s *Shard) handOn(g *nat.Generated) {
	p := s.ports[g.Packet.In%nat.MaxPorts]
	if p == nil {
		s.unsent[nat.ReasonSend]++
		return
	}
	header := etherHeaderLen
	if p.L3 {
		header = 0
	}
	s.handOver(int(g.Verdict.Shard), &letter{
		port: g.Packet.In, hops: g.Verdict.Hops, header: uint8(header), from: g.Packet.From,
	}, g.Memory[nat.Headroom-header:])
}

// flush writes all batches.
func (s *Shard) flush() {
	for _, p := range s.ports {
		if p != nil && len(p.out) > 0 {
			s.write(p)
		}
	}
}

func (s *Shard) write(p *Port) {
	n, err := p.Queue.Write(p.out)
	s.sent += uint64(n)
	p.out = p.out[:0]
	if err != nil {
		s.portFailed(p, err)
	}
}

// sendFrame sends one frame at once: an ARP packet, or one that waited for a
// neighbour. Its memory is borrowed.
func (s *Shard) sendFrame(port int, frame []byte, off iface.Offload) {
	p := s.ports[port%nat.MaxPorts]
	if p == nil {
		return
	}
	s.single[0] = iface.Frame{Data: frame, Offload: off}
	n, err := p.Queue.Write(s.single[:])
	s.sent += uint64(n)
	if err != nil {
		s.portFailed(p, err)
	}
}

// fromWire and toWire move the offsets of an offload header by the length of
// the link header: the Forwarder counts from the IP header.
func fromWire(o *iface.Offload, header uint16) nat.Offload {
	n := nat.Offload{GSOType: o.GSOType, GSOSize: o.GSOSize}
	if o.GSOType != iface.GSONone && o.HeaderLen > header {
		n.HeaderLen = o.HeaderLen - header
	}
	if o.NeedsChecksum() && o.ChecksumStart >= header {
		n.NeedsChecksum = true
		n.ChecksumStart, n.ChecksumOffset = o.ChecksumStart-header, o.ChecksumOffset
	}
	return n
}

func toWire(n *nat.Offload, header uint16) iface.Offload {
	o := iface.Offload{GSOType: n.GSOType, GSOSize: n.GSOSize}
	if n.GSOType != nat.GSONone {
		o.HeaderLen = n.HeaderLen + header
	}
	if n.NeedsChecksum {
		o.Flags = iface.FlagNeedsChecksum
		o.ChecksumStart, o.ChecksumOffset = n.ChecksumStart+header, n.ChecksumOffset
	}
	return o
}

// macCache keeps the link addresses of the last next hops, one a row, as long
// as the neighbours' generation stays. It saves the shard their lock.
type macCache [256]macRow

type macRow struct {
	addr       conntrack.Addr
	generation uint32
	port       uint16
	mac        conntrack.LinkAddr
	set        bool
}

func (c *macCache) clear() { *c = macCache{} }

func (c *macCache) row(a *conntrack.Addr, port uint16) *macRow {
	h := uint32(a[15]) ^ uint32(a[14])<<3 ^ uint32(a[13])<<5 ^ uint32(a[12])<<6 ^ uint32(port)<<4
	return &c[(h^h>>8)%uint32(len(c))]
}

func (r *macRow) holds(a *conntrack.Addr, port uint16, generation uint32) bool {
	return r.set && r.generation == generation && r.port == port && r.addr == *a
}
