// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"

	"github.com/vsnat/vsnat/conntrack"
)

// The short way of the packet that comes most: TCP or UDP behind a plain IP header,
// of a masqueraded or an SNAT connection that it leaves in the state in which it is.
// What parse, whole, follow and send make of it is made here in one piece, with
// wide loads and without what they ask about other packets.
//
//	look       headers of the usual form, in words: tuple, and what TCP says
//	Lookup     the entry
//	leaves     that nothing about it is out of the ordinary
//	           where the packet leaves, and that it fits there
//	Follow     window, deadline, counters
//	rewrite    addresses, ports, checksums
//
// The steps are long functions, or stand in hit itself, on purpose: each call made on the
// way has everything that is known so far put into memory and read again, and half a
// dozen of them were a sixth of the time of a packet.
//
// There is no second opinion about any packet: hit decides about nothing that it does
// not forward, has written nothing when it gives up, and what it does to a packet
// and to an entry is what the walk would do, bit for bit (FuzzHit).

// A glimpse is what hit needs to know of a packet. It is scratch: look fills in what
// its protocol has.
type glimpse struct {
	tuple    conntrack.Tuple
	seq, ack uint32
	l4       int // offset of the transport header
	header   int // length of the transport header
	total    int // of the whole packet
	window   uint16
	flags    uint8
	ttl      uint8
	partial  bool // as in parsed
}

// hit forwards a packet of the common kind, as v says then, which is zero before. It
// reports false, and has changed nothing but v, if p is of another kind.
func (f *Forwarder) hit(p *Packet, v *Verdict) bool {
	g, s := &f.glimpse, f.snap
	if !g.look(p) {
		return false
	}
	ours := conntrack.DstForeign
	if s.own.find(&g.tuple.Dst.Addr) >= 0 {
		ours = conntrack.DstOurs
	}
	c, dir := f.table.Lookup(&g.tuple, ours)
	if c == nil && ours == conntrack.DstForeign && s.marks.wide {
		c, dir = f.table.Lookup(&g.tuple, conntrack.DstOurs) // see lookup
	}
	if c == nil || !g.leaves(c, dir) || s.own.find(&g.tuple.Src.Addr) >= 0 {
		return false
	}

	// Where it leaves, and how large it may be there.
	end, dst := &c.Dest, &c.Dest.Addr
	if dir == conntrack.Outbound {
		if p.In != c.InsidePort {
			return false
		}
		end, dst = &c.Virtual, &c.Client.Addr
	}
	timeouts, service := &s.settings.Timeouts, uint32(conntrack.NoSlot)
	var h *hop
	if c.Server != conntrack.NoSlot {
		e := &s.server[c.Server]
		timeouts, service = e.timeouts, e.service
		if dir == conntrack.Inbound {
			if e.gone || c.HopPort != p.In || c.Hop != p.From { // of SNAT, the neighbour is of no interest
				return false
			}
			h = &e.hop
		}
	}
	mtu := 0
	if dir == conntrack.Outbound && c.HopPort < MaxPorts {
		if port := &s.ports[c.HopPort]; port.Up && !port.L3 {
			v.Port = c.HopPort
			v.To = c.Hop
			v.NextHop = *dst
			mtu = min(port.MTU, 0xffff)
		}
	}
	if mtu == 0 {
		if h == nil {
			h = f.hops.find(&s.routes, dst)
		}
		if h.port == NoPort {
			return false
		}
		v.Port = h.port
		v.NextHop = h.next
		mtu = int(h.mtu)
	}
	if g.total > mtu && !g.fitsInSegments(p, mtu) {
		return false
	}

	if f.place.n > 1 {
		f.meets(c)
	}
	v.Action = Forward
	b := p.Data[:g.total:g.total]
	p.Data = b
	if g.tuple.Proto == protoTCP {
		c.Follow(dir, g.seq, g.ack, g.window, g.flags, g.total-g.l4-g.header)
	}
	f.table.SetDeadline(c, f.now+conntrack.Time(timeouts[c.State]))
	if dir == conntrack.Inbound {
		c.Hear()
	}
	g.rewrite(b, dir, end, f.takesHop(v.Port))
	if c.Server != conntrack.NoSlot {
		f.counters.add(service, c.Server, dir, 1, len(b))
	} else {
		f.counters.snat.count(dir, 1, len(b))
	}
	f.weigh(c, len(b))
	f.counters.verdicts[Forward]++
	return true
}

// mappedPrefix is the second half of ::ffff:0:0, in little endian.
const mappedPrefix = 0xffff0000

// look reads a packet. It reports false for one that is not of the common kind,
// sound or not.
func (g *glimpse) look(p *Packet) bool {
	b := p.Data
	if len(b) < ipv4HeaderLen+udpHeaderLen {
		return false
	}
	src, dst := &g.tuple.Src.Addr, &g.tuple.Dst.Addr
	if b[0] == 4<<4|ipv4HeaderLen/4 {
		h := (*[ipv4HeaderLen]byte)(b)
		first, second, last := binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint32(h[16:])
		s, carry := bits.Add64(first, second, 0)
		s, carry = bits.Add64(s, uint64(last), carry)
		parts := bits.ReverseBytes16(ipv4MoreFragments | ipv4OffsetMask)
		if foldWide(s, carry) != 0xffff || uint16(first>>48)&parts != 0 || badSource(h[12]) || uint32(second>>32) == last {
			return false
		}
		g.total = int(binary.BigEndian.Uint16(h[2:]))
		g.ttl, g.tuple.Proto = h[8], h[9]
		g.l4 = ipv4HeaderLen
		binary.LittleEndian.PutUint64(src[:], 0)
		binary.LittleEndian.PutUint64(src[8:], mappedPrefix|second&^0xffffffff)
		binary.LittleEndian.PutUint64(dst[:], 0)
		binary.LittleEndian.PutUint64(dst[8:], mappedPrefix|uint64(last)<<32)
	} else {
		if len(b) < ipv6HeaderLen+udpHeaderLen || b[0]>>4 != 6 {
			return false
		}
		h := (*[ipv6HeaderLen]byte)(b)
		s1, s2 := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
		d1, d2 := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[32:])
		if !ordinary(s1) || !ordinary(d1) || s1 == d1 && s2 == d2 {
			return false
		}
		g.total = ipv6HeaderLen + int(binary.BigEndian.Uint16(h[4:])) // a super-packet that cannot say it has no transport header by that
		g.tuple.Proto, g.ttl = h[6], h[7]
		g.l4 = ipv6HeaderLen
		binary.LittleEndian.PutUint64(src[:], s1)
		binary.LittleEndian.PutUint64(src[8:], s2)
		binary.LittleEndian.PutUint64(dst[:], d1)
		binary.LittleEndian.PutUint64(dst[8:], d2)
	}
	if g.ttl <= 1 || g.total > len(b) || g.total < g.l4 {
		return false
	}
	l4 := b[g.l4:g.total]
	field := tcpChecksumOffset
	switch g.tuple.Proto {
	case protoTCP:
		if len(l4) < tcpHeaderLen {
			return false
		}
		h := (*[tcpHeaderLen]byte)(l4)
		g.header, g.flags = int(h[12]>>4)*4, h[13]
		if g.header < tcpHeaderLen || g.header > len(l4) || g.flags&(flagFIN|flagSYN|flagRST|flagACK) != flagACK {
			return false
		}
		g.seq, g.ack, g.window = binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint16(h[14:])
	case protoUDP:
		if len(l4) < udpHeaderLen {
			return false
		}
		field, g.header = udpChecksumOffset, udpHeaderLen
		h := udpHeader(l4)
		if n := h.length(); n < udpHeaderLen || n > len(l4) || h.checksum() == 0 && !p.Offload.NeedsChecksum && g.l4 == ipv6HeaderLen {
			return false
		}
	default:
		return false
	}
	o := &p.Offload
	g.partial = o.NeedsChecksum
	if g.partial && (int(o.ChecksumStart) != g.l4 || int(o.ChecksumOffset) != field) {
		return false
	}
	g.tuple.Src.Port, g.tuple.Dst.Port = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	return g.tuple.Src.Port != 0 && g.tuple.Dst.Port != 0
}

// ordinary tells from the first half of an IPv6 address, in little endian, whether it
// can be a host's that a router reaches. It says no to a few that can.
func ordinary(half uint64) bool {
	return half != 0 && uint8(half) != 0xff && half&0xc0ff != 0x80fe
}

// leaves reports whether a packet of c leaves it in the state in which it is, and
// nothing about c is out of the ordinary.
func (g *glimpse) leaves(c *conntrack.Conn, dir conntrack.Direction) bool {
	const special = conntrack.FullNAT | conntrack.InputOnly | conntrack.OnePacket | conntrack.Helped
	flags := c.Flags & (special | conntrack.Replied)
	if g.tuple.Proto == protoTCP {
		return c.State == conntrack.Established && flags == conntrack.Replied && c.Class() == conntrack.ClassHeld
	}
	return c.State == conntrack.UDP && (flags == conntrack.Replied || flags == 0 && sideOf(c, dir) == conntrack.Inbound)
}

// fitsInSegments reports whether the segments of a super-packet can leave.
func (g *glimpse) fitsInSegments(p *Packet, mtu int) bool {
	o := &p.Offload
	kind := o.GSOType &^ GSOECN
	return (kind == GSOTCPv4 || kind == GSOTCPv6) && g.tuple.Proto == protoTCP &&
		o.GSOSize > 0 && g.l4+g.header+int(o.GSOSize) <= mtu
}

// rewrite puts e in place of the end of the packet b that dir says, counts us as a hop
// if hop, and keeps the checksums. Sums are in machine order, which is as good
// (checksum.go).
func (g *glimpse) rewrite(b []byte, dir conntrack.Direction, e *conntrack.Endpoint, hop bool) {
	var change uint64 // of the address: ^old + new, not zero
	if g.l4 == ipv4HeaderLen {
		h := (*[ipv4HeaderLen]byte)(b)
		address := (*[4]byte)(h[12:])
		if dir == conntrack.Inbound {
			address = (*[4]byte)(h[16:])
		}
		became := binary.LittleEndian.Uint32(e.Addr[12:])
		change = uint64(^binary.LittleEndian.Uint32(address[:])) + uint64(became)
		binary.LittleEndian.PutUint32(address[:], became)
		s := change + uint64(^binary.LittleEndian.Uint16(h[10:]))
		if hop {
			h[8]--
			s += 0xfffe // ^old + new of a word that became less by one
		}
		binary.LittleEndian.PutUint16(h[10:], ^foldWide(s, 0))
	} else {
		h := (*[ipv6HeaderLen]byte)(b)
		address := (*[16]byte)(h[8:])
		if dir == conntrack.Inbound {
			address = (*[16]byte)(h[24:])
		}
		became1, became2 := binary.LittleEndian.Uint64(e.Addr[:]), binary.LittleEndian.Uint64(e.Addr[8:])
		s, carry := bits.Add64(^binary.LittleEndian.Uint64(address[:]), became1, 0)
		s, carry = bits.Add64(s, ^binary.LittleEndian.Uint64(address[8:]), carry)
		s, carry = bits.Add64(s, became2, carry)
		change = uint64(foldWide(s, carry))
		binary.LittleEndian.PutUint64(address[:], became1)
		binary.LittleEndian.PutUint64(address[8:], became2)
		if hop {
			h[7]--
		}
	}

	ports := (*[udpHeaderLen]byte)(b[g.l4:])
	port := (*[2]byte)(ports[:])
	if dir == conntrack.Inbound {
		port = (*[2]byte)(ports[2:])
	}
	became := bits.ReverseBytes16(e.Port)
	full := change + uint64(^binary.LittleEndian.Uint16(port[:])) + uint64(became)
	binary.LittleEndian.PutUint16(port[:], became)
	field := (*[2]byte)(ports[udpChecksumOffset:])
	if g.tuple.Proto == protoTCP {
		field = (*[2]byte)(b[g.l4+tcpChecksumOffset:])
	}
	check := binary.LittleEndian.Uint16(field[:])
	switch {
	case g.partial:
		check = foldWide(change+uint64(check), 0)
	case g.tuple.Proto == protoTCP:
		check = ^foldWide(full+uint64(^check), 0)
	case check != 0:
		check = nonZero(^foldWide(full+uint64(^check), 0))
	}
	binary.LittleEndian.PutUint16(field[:], check)
}

// foldWide brings a sum of 64 bits, and a carry out of it, to 16 bits. Only a sum of
// zero folds to zero.
func foldWide(s, carry uint64) uint16 {
	s = s>>32 + s&0xffffffff + carry
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}
