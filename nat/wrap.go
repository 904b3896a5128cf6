// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// A packet on its way into a tunnel, when all has been decided about it. What is
// wrapped is a copy, in the outbox: a packet never grows where it lies. Nothing of
// what the kernel may do for a packet later, segments and open checksums, can be
// said of one inside another, and so is done here first.

// A wrapping says how the packet at hand is wrapped.
type wrapping struct {
	on     bool
	tunnel *tunnel
	mtu    int    // of the way, for the outer packet
	port   uint16 // source port of GUE
}

// fitsTunnel is fits for a packet that is to be wrapped: w.mtu is what is left of
// the way's for it. The outer packet is cut where the inner one may be, or where
// pmtu_disc is off; and where IPv6 would get less than every link has.
func (f *Forwarder) fitsTunnel(p *Packet, h *parsed, w *way) (Verdict, bool) {
	f.mtu = int(w.mtu)
	six := ipHeader(p.Data).is6()
	room := f.mtu
	if six {
		room = max(room, ipv6MinMTU)
	}
	if h.gsoFits(p, room) && h.solid <= room {
		return Verdict{}, true
	}
	if six || f.snap.settings.PMTUDisc && (h.dontFragment || h.solid > room) {
		return f.unreachable(p, h, fragNeeded(room), ReasonTooBig), false
	}
	return Verdict{}, true
}

// wrap sends a packet, which f.parsed describes if it is a super-packet.
func (f *Forwarder) wrap(p *Packet, v Verdict, w *wrapping) Verdict {
	mark := f.outbox.mark()
	var r Reason
	switch p.Offload.GSOType &^ GSOECN {
	case GSOTCPv4, GSOTCPv6, GSOUDPL4:
		r = f.wrapSegments(p, v, w)
	default: // of GSOUDP the outer packet is cut
		if !completeOffload(p) {
			return drop(ReasonShort)
		}
		r = f.putWrapped(p.Data, p.In, v, w)
	}
	if r != ReasonNone {
		f.outbox.backTo(mark)
		return drop(r)
	}
	return Verdict{Action: Hold}
}

// wrapSegments wraps each packet that a super-packet stands for.
func (f *Forwarder) wrapSegments(p *Packet, v Verdict, w *wrapping) Reason {
	s, ok := newSegmenter(p, &f.parsed)
	if !ok {
		return ReasonTooBig
	}
	before := int(w.tunnel.overhead)
	for n := s.length(); n > 0; n = s.length() {
		if before+n > w.mtu {
			inner := f.scratch[:n]
			s.next(inner)
			if r := f.putCut(inner, p.In, v, w); r != ReasonNone {
				return r
			}
			continue
		}
		b := f.outbox.room(before + n)
		if b == nil {
			return ReasonOutboxFull
		}
		s.next(b[before:])
		f.head(b[:before], b[before:], w, true)
		f.outbox.put(len(b), Packet{In: p.In}, v)
	}
	return ReasonNone
}

// putWrapped wraps one packet whose checksums are complete.
func (f *Forwarder) putWrapped(inner []byte, in uint16, v Verdict, w *wrapping) Reason {
	before := int(w.tunnel.overhead)
	if before+len(inner) > w.mtu {
		return f.putCut(inner, in, v, w)
	}
	b := f.outbox.room(before + len(inner))
	if b == nil {
		return ReasonOutboxFull
	}
	copy(b[before:], inner)
	f.head(b[:before], b[before:], w, true)
	f.outbox.put(len(b), Packet{In: in}, v)
	return ReasonNone
}

// head writes the outer headers; whole tells that the packet will not be cut.
func (f *Forwarder) head(h, inner []byte, w *wrapping, whole bool) {
	df := whole && f.snap.settings.PMTUDisc && !ipHeader(inner).is6() && ipHeader(inner).dontFragment()
	w.tunnel.head(h, inner, f.nextID(), df, w.port)
}

// putCut wraps one packet and cuts the outer one into fragments, as the host does
// that a tunnel starts at (RFC 2003 section 5, RFC 2473 section 7): the server
// puts them together before it unwraps them.
func (f *Forwarder) putCut(inner []byte, in uint16, v Verdict, w *wrapping) Reason {
	var memory [maxTunnelOverhead]byte
	head := memory[:w.tunnel.overhead]
	ip, fragmentAt := ipv4HeaderLen, ipv4HeaderLen
	if !w.tunnel.dst.Is4() {
		ip, fragmentAt = ipv6HeaderLen, ipv6HeaderLen+ipv6FragmentHeaderLen
	}
	length := len(head) - ip + len(inner) // of what is behind the outer IP header
	take := (w.mtu - fragmentAt) &^ 7
	if take <= 0 || ip+length > ipv4MaxLen {
		return ReasonTooBig
	}
	f.head(head, inner, w, false)
	f.cutID += uint32(f.place.n)
	for at := 0; at < length; at += take {
		n := min(take, length-at)
		b := f.outbox.room(fragmentAt + n)
		if b == nil {
			return ReasonOutboxFull
		}
		copy(b, head[:ip])
		data := b[fragmentAt:]
		if shim := head[ip:]; at < len(shim) {
			data = data[copy(data, shim[at:]):]
		}
		copy(data, inner[max(0, at-(len(head)-ip)):])
		markFragment(b, at, at+n < length, f.cutID)
		f.outbox.put(len(b), Packet{In: in}, v)
	}
	return ReasonNone
}

// markFragment makes of b, which begins with the header of the whole packet, one of
// its fragments. In IPv6 there is room for a header behind the first; IPv4 has its
// identification already.
func markFragment(b []byte, offset int, more bool, id uint32) {
	if h := ipv4Header(b); h.version() == 4 {
		word := uint16(offset / 8)
		if more {
			word |= ipv4MoreFragments
		}
		h.setTotalLen(len(b))
		h.setFragment(word)
		h.computeChecksum()
		return
	}
	h := ipv6Header(b)
	f := h[ipv6HeaderLen : ipv6HeaderLen+ipv6FragmentHeaderLen]
	f[0], f[1] = h.nextHeader(), 0
	word := uint16(offset)
	if more {
		word |= 1
	}
	binary.BigEndian.PutUint16(f[2:], word)
	binary.BigEndian.PutUint32(f[4:], id)
	h.setNextHeader(protoFragment)
	h.setPayloadLen(len(b) - ipv6HeaderLen)
}

// pathCache remembers the MTUs of the ways to servers as routers told them, one a
// row: the inner packet alone would not show how large an outer one may be.
type pathCache struct {
	rows [64]struct {
		addr  conntrack.Addr
		mtu   uint16
		until conntrack.Time
	}
}

const (
	// pathLife is how long what a router said is believed (ip_rt_mtu_expires).
	pathLife = conntrack.Time(600e9)
	// ipv4MinPath is the smallest that a router of good will says
	// (ip_rt_min_pmtu): a forged message cannot ask for more fragments than that.
	ipv4MinPath = 552
)

// mtu is what is known of the way to a, or 65535.
func (c *pathCache) mtu(a *conntrack.Addr, now conntrack.Time) uint16 {
	row := &c.rows[hashAddr(a)%uint64(len(c.rows))]
	if row.addr != *a || row.until <= now {
		return 0xffff
	}
	return row.mtu
}

// learn notes that a router said mtu of the way to a.
func (c *pathCache) learn(a *conntrack.Addr, mtu uint32, now conntrack.Time) {
	least := uint32(ipv4MinPath)
	if !a.Is4() {
		least = ipv6MinMTU
	}
	mtu = min(max(mtu, least), 0xffff)
	if uint16(mtu) >= c.mtu(a, now) {
		return
	}
	row := &c.rows[hashAddr(a)%uint64(len(c.rows))]
	row.addr, row.mtu, row.until = *a, uint16(mtu), now+pathLife
}
