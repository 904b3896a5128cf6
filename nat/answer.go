// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// What the Forwarder says itself: ICMP errors, echo replies and resets. Each
// goes back to the neighbour that the packet in question came from, costs a
// token of the rate limit, and is built in the outbox.

// outbox holds the packets that a Forwarder made during a batch. Its memory is
// fixed; what does not fit any more is dropped and counted.
type outbox struct {
	list   []Generated
	taken  int // list[:taken] was handed out
	memory []byte
	used   int
}

const (
	outboxPackets = 2048
	outboxBytes   = 2 << 20
)

func (o *outbox) init() {
	o.list = make([]Generated, 0, outboxPackets)
	o.memory = make([]byte, outboxBytes)
}

func (o *outbox) reset() { o.list, o.taken, o.used = o.list[:0], 0, 0 }

// room returns n bytes to build a packet in, or nil. They are taken by put.
func (o *outbox) room(n int) []byte {
	at := o.used + Headroom
	if len(o.list) == cap(o.list) || at+n > len(o.memory) {
		return nil
	}
	return o.memory[at : at+n : at+n]
}

// fits reports whether there is room for n packets of at most size bytes.
func (o *outbox) fits(n, size int) bool {
	return len(o.list)+n <= cap(o.list) && o.used+n*(Headroom+size) <= len(o.memory)
}

// outboxMark is a state of the outbox to go back to.
type outboxMark struct{ packets, used int }

func (o *outbox) mark() outboxMark { return outboxMark{len(o.list), o.used} }

// backTo takes back what was put since a mark.
func (o *outbox) backTo(m outboxMark) { o.list, o.used = o.list[:m.packets], m.used }

// put adds the packet that was built in the first n bytes of room.
func (o *outbox) put(n int, p Packet, v Verdict) {
	end := o.used + Headroom + n
	memory := o.memory[o.used:end:end]
	p.Data = memory[Headroom:]
	o.used = end
	o.list = append(o.list, Generated{Packet: p, Verdict: v, Memory: memory})
}

// Outbox returns the packets that were made since Begin or the last call. They
// are to be sent after the packets forwarded before the call. Their memory is
// valid until the next Begin.
func (f *Forwarder) Outbox() []Generated {
	g := f.outbox.list[f.outbox.taken:]
	f.outbox.taken = len(f.outbox.list)
	return g
}

// Crowded reports whether the outbox is half full: what is in it should be sent
// and a batch begun anew, before a packet that becomes many finds no room.
func (f *Forwarder) Crowded() bool {
	return len(f.outbox.list) > outboxPackets/2 || f.outbox.used > outboxBytes/2
}

// reply adds the answer to p that was built in the first n bytes of room: it
// goes back to where p came from.
func (f *Forwarder) reply(p *Packet, n int, o Offload, dst *conntrack.Addr) {
	v := Verdict{Action: Forward, Port: p.In, To: p.From, NextHop: *dst}
	if v.To == (conntrack.LinkAddr{}) && (p.In >= MaxPorts || !f.snap.ports[p.In].L3) {
		h := f.hops.lookup(&f.snap.routes, dst)
		v.Port, v.NextHop = h.port, h.next
	}
	if v.Port < MaxPorts {
		f.outbox.put(n, Packet{In: p.In, Offload: o}, v)
	}
}

// answer reserves room for an answer of n bytes to h, and charges it. nil, and
// a reason that was counted, if there must be or can be none.
func (f *Forwarder) answer(h *parsed, n int) []byte {
	if !h.mayAnswer() {
		return nil
	}
	return f.reserve(&f.limit, n)
}

// reserve is room for a packet of our own of n bytes, which it charges a limit for.
// nil, and a reason that was counted, if there can be none.
func (f *Forwarder) reserve(l *limiter, n int) []byte {
	if !l.allow(f.now) {
		f.counters.suppressed[ReasonRateLimit]++
		return nil
	}
	b := f.outbox.room(n)
	if b == nil {
		f.counters.suppressed[ReasonOutboxFull]++
	}
	return b
}

// unreachable drops a packet for the reason r and tells its sender by an ICMP
// error, which quotes it as it came.
func (f *Forwarder) unreachable(p *Packet, h *parsed, e icmpError, r Reason) Verdict {
	if b := f.answer(h, maxErrorLen); b != nil {
		src := f.sourceFor(p, h)
		n := buildICMPError(b, e, &src, f.nextID(), p)
		f.reply(p, n, Offload{}, &h.tuple.Src.Addr)
	}
	return drop(r)
}

func (f *Forwarder) timeExceeded(p *Packet, h *parsed) Verdict {
	return f.unreachable(p, h, timeExceeded(), ReasonTTL)
}

// reset drops a segment for the reason r and answers it with a RST, in the
// name of the address it was sent to.
func (f *Forwarder) reset(p *Packet, h *parsed, r Reason) Verdict {
	if h.flags&flagRST != 0 {
		return drop(r)
	}
	if b := f.answer(h, resetLen); b != nil {
		if n := buildReset(b, h); n > 0 {
			f.reply(p, n, Offload{}, &h.tuple.Src.Addr)
		}
	}
	return drop(r)
}

// refuse answers as a host does on a port where nobody listens.
func (f *Forwarder) refuse(p *Packet, h *parsed, r Reason) Verdict {
	switch h.kind {
	case kindTCP:
		return f.reset(p, h, r)
	case kindSCTP:
		return f.abort(p, h, r)
	}
	return f.unreachable(p, h, unreachable(icmpPortUnreachable), r)
}

// echo answers a ping of an address that is ours alone. An address that the
// host has is answered by the host.
func (f *Forwarder) echo(p *Packet, h *parsed, own *ownEntry) Verdict {
	if own.onHost {
		return Verdict{Action: Pass}
	}
	if !h.echoRequest() {
		if own.holds(h.icmpID) {
			return Verdict{Action: Pass}
		}
		return drop(ReasonUnsolicited)
	}
	b := f.answer(h, len(p.Data))
	if b == nil {
		return drop(ReasonRateLimit)
	}
	copy(b, p.Data)
	if !makeEchoReply(b, h, f.nextID()) {
		return drop(ReasonICMPHeader)
	}
	f.reply(p, len(b), p.Offload, &h.tuple.Src.Addr)
	return Verdict{Action: Hold}
}

// sourceFor returns the address that an ICMP error about p comes from: the
// address of ours that it was sent to, or else ours in its sender's network.
func (f *Forwarder) sourceFor(p *Packet, h *parsed) conntrack.Addr {
	if f.snap.own.find(&h.tuple.Dst.Addr) >= 0 {
		return h.tuple.Dst.Addr
	}
	return f.ourAddress(p.In, &h.tuple.Src.Addr)
}

// ourAddress returns an address of ours or of the host in the network that
// peer shares with a port; failing that any on the port, and failing that any
// of ours: of the family of peer, and one that routers forward.
func (f *Forwarder) ourAddress(in uint16, peer *conntrack.Addr) conntrack.Addr {
	if in < MaxPorts {
		port := &f.snap.ports[in]
		for i := range port.addrs {
			if port.addrs[i].net.contains(peer) {
				return port.addrs[i].addr
			}
		}
		for i := range f.snap.owned {
			if f.snap.owned[i].net.contains(peer) {
				return f.snap.owned[i].addr
			}
		}
		for i := range port.addrs {
			if a := &port.addrs[i].addr; a.Is4() == peer.Is4() && routable(a) {
				return *a
			}
		}
	}
	for i := range f.snap.own.entries {
		if a := &f.snap.own.entries[i].addr; a.Is4() == peer.Is4() {
			return *a
		}
	}
	return *peer
}

// nextID numbers the packets that we make. They are never fragmented, so that
// uniqueness is courtesy (RFC 6864, 4.1).
func (f *Forwarder) nextID() uint16 {
	f.id += uint16(f.place.n) // no other Forwarder uses these
	return f.id
}

// Unreachable says that the next hop of a packet did not answer. data is the
// packet as Forward left it; the ICMP error that is made of it takes the way of
// any error from a router on that side, so that the sender sees its own packet
// quoted. The error is in the outbox then.
func (f *Forwarder) Unreachable(data []byte, port uint16) {
	f.counters.drops[ReasonNeighbour]++
	f.counters.verdicts[Drop]++
	p := Packet{Data: data, In: port}
	h := &f.parsed
	if h.parse(&p) != ReasonNone || !h.mayAnswer() || f.serverUnreachable(&p, h) {
		return
	}
	b := f.reserve(&f.limit, maxErrorLen)
	if b == nil {
		return
	}
	// It comes from the host that cannot be reached, as far as the look-up is
	// concerned; who reads it is told by us.
	src := h.tuple.Dst.Addr
	n := buildICMPError(b, unreachable(icmpHostUnreachable), &src, f.nextID(), &p)
	e := Packet{Data: b[:n], In: port}
	if h.parse(&e) != ReasonNone {
		return
	}
	v := f.icmpError(&e, h)
	if v.Action != Forward {
		return
	}
	if ip := ipHeader(e.Data); ip.src() == src {
		var d delta
		dst := ip.dst()
		ours := f.ourAddress(v.Port, &dst)
		ip.replaceSource(&ours, &d)
		icmpHeader(e.Data[h.l4:]).apply(h.proto, d)
	}
	f.outbox.put(n, e, v)
}
