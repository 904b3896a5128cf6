// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// The way of a datagram in fragments. They wait until it is whole. Then the
// leader, which has the ports, goes the way of a whole packet, and the others
// follow it, in the order in which they came: all of them, or none.

// fragment decides about a part of a datagram.
func (f *Forwarder) fragment(p *Packet, h *parsed) Verdict {
	if f.place.n > 1 {
		if v, away := f.fragmentElsewhere(p, h); away {
			return v
		}
	}
	if f.snap.own.find(&h.tuple.Dst.Addr) < 0 && f.snap.snatFor(&h.tuple.Src.Addr) == nil &&
		f.snap.inner.find(&h.tuple.Src.Addr) < 0 && !f.snap.marks.between(&h.tuple.Src.Addr, &h.tuple.Dst.Addr) {
		return Verdict{Action: Pass} // nothing of ours, and not worth remembering
	}
	o := f.frags.add(f.now, h, p)
	switch o.state {
	case fragHeld:
		return Verdict{Action: Hold}
	case fragDead:
		f.counters.drops[o.reason] += uint64(o.lost)
		return drop(o.reason)
	}
	if h.fragOffset == 0 {
		return f.datagram(p, h, nil, &o)
	}
	leader := Packet{Data: o.held.next(), In: o.in, From: o.from, Hops: p.Hops}
	if r := f.leader.parse(&leader); r != ReasonNone {
		f.counters.drops[ReasonFragmentLate] += uint64(o.held.drop())
		return drop(r) // it was sound when it came
	}
	return f.datagram(&leader, &f.leader, p, &o)
}

// datagram decides about a whole datagram by its leader p, parsed as h. last is
// the fragment that completed it, nil if that is the leader; the verdict is
// about it.
func (f *Forwarder) datagram(p *Packet, h *parsed, last *Packet, o *fragOutcome) Verdict {
	h.ttl, h.solid = o.ttl, o.solid // no fragment may end here while the others go on
	h.behind = o.length - (h.totalLen - h.headerLen)
	mark := f.outbox.mark()
	v := f.whole(p, h)
	var d following
	switch v.Action {
	case Pass:
		f.handBack(p, last, &o.held)
		return v
	case Drop:
		f.counters.drops[ReasonFragmentLate] += uint64(o.held.drop())
		return v
	case Forward:
		ip := ipHeader(p.Data)
		d = following{verdict: v, src: ip.src(), dst: ip.dst(), mtu: f.mtu, wrapping: f.wrapping, counted: f.counted}
		v = f.sendLeader(p, last, v)
	case Hold:
		d, v = f.answered(h, mark)
	case Elsewhere:
		return f.handOn(p, last, &o.held, v)
	}
	for v.Action != Drop {
		data := o.held.next()
		if data == nil {
			break
		}
		v = f.release(data, p.In, &d, v)
	}
	if last != nil && v.Action != Drop {
		v = f.release(last.Data, p.In, &d, v)
	}
	if v.Action == Drop {
		f.outbox.backTo(mark)
		f.counters.drops[ReasonFragmentLate] += uint64(o.held.drop())
	}
	return v
}

// sendLeader sends the leader after whole has rewritten it: in place if it is the
// packet at hand and not to be cut, else through the outbox.
func (f *Forwarder) sendLeader(p, last *Packet, v Verdict) Verdict {
	switch {
	case f.wrapping.on:
		return f.wrap(p, v, &f.wrapping)
	case f.split != 0:
		return f.cut(p, v)
	case last == nil:
		return v
	}
	return f.putCopy(p.Data, p.In, v)
}

// putCopy puts a copy of a fragment into the outbox.
func (f *Forwarder) putCopy(data []byte, in uint16, v Verdict) Verdict {
	b := f.outbox.room(len(data))
	if b == nil {
		return drop(ReasonOutboxFull)
	}
	f.outbox.put(copy(b, data), Packet{In: in}, v)
	return Verdict{Action: Hold}
}

// handBack gives the fragments of a datagram that is the host's back as they
// came, to a host that has no copy: one that has routed them to us by a port
// without link addresses. The packet at hand goes back by its verdict.
func (f *Forwarder) handBack(p, last *Packet, held *heldFragments) {
	if !f.snap.ports[p.In%MaxPorts].L3 || f.straysFrom(p) {
		held.drop()
		return
	}
	v := Verdict{Action: Forward, Port: p.In, NextHop: ipHeader(p.Data).dst()}
	data := p.Data
	if last == nil {
		data = held.next()
	}
	for ; data != nil; data = held.next() {
		if v := f.putCopy(data, p.In, v); v.Action == Drop {
			f.counters.drops[v.Reason]++
		}
	}
}

// straysFrom tells whether a packet that is not ours would leave a host that does not
// route such packets, only because it was routed to us: what a real server sends to
// others, most of all, would show its address there.
func (f *Forwarder) straysFrom(p *Packet) bool {
	port := &f.snap.ports[p.In%MaxPorts]
	if !port.L3 {
		return false
	}
	ip := ipHeader(p.Data)
	if ip.is6() && port.Forwards6 || !ip.is6() && port.Forwards4 {
		return false
	}
	return !slices.Contains(f.snap.host, ip.dst())
}

// following is what the other fragments of a datagram take from its leader.
type following struct {
	verdict  Verdict // Forward
	src, dst conntrack.Addr
	mtu      int
	wrapping wrapping
	answer   bool // the leader is a ping that we have answered
	counted  counted
}

// answered decides about the rest of a ping, whose leader was answered behind
// mark: it goes back as well, so that the echo is whole.
func (f *Forwarder) answered(h *parsed, mark outboxMark) (following, Verdict) {
	if len(f.outbox.list) == mark.packets {
		return following{}, drop(ReasonNoRoute)
	}
	v := f.outbox.list[mark.packets].Verdict
	return following{
		verdict: v, src: h.tuple.Dst.Addr, dst: h.tuple.Src.Addr,
		mtu: min(f.snap.ports[v.Port%MaxPorts].MTU, 0xffff), answer: true,
	}, Verdict{Action: Hold}
}

// release sends a fragment behind its leader. It returns so, the verdict until
// then, or a drop.
func (f *Forwarder) release(data []byte, in uint16, d *following, so Verdict) Verdict {
	f.translate(ipHeader(data), len(data), d)
	v := Verdict{Action: Hold}
	switch {
	case d.wrapping.on:
		v = f.wrap(&Packet{Data: data, In: in}, d.verdict, &d.wrapping)
	case len(data) <= d.mtu:
		v = f.putCopy(data, in, d.verdict)
	case ipHeader(data).dontFragment():
		v = drop(ReasonTooBig)
	default:
		v = f.cutTo(&Packet{Data: data, In: in}, d.verdict, d.mtu)
	}
	if v.Action == Drop {
		return v
	}
	return so
}

// translate rewrites what a fragment without ports has to rewrite. A datagram
// counts as one packet with the bytes of all its fragments, one header apart:
// the length it had before it was cut.
func (f *Forwarder) translate(ip ipHeader, length int, d *following) {
	var none delta
	if d.answer {
		ip.renewTTL()
	} else {
		f.takeHop(ip, d.verdict.Port)
		f.add(d.counted.server, d.counted.dir, 0, length-ip.headerLen())
	}
	ip.replaceSource(&d.src, &none)
	ip.replaceDestination(&d.dst, &none)
}

// cut sends a packet as fragments that fit the way out.
func (f *Forwarder) cut(p *Packet, v Verdict) Verdict { return f.cutTo(p, v, int(f.split)) }

// cutTo puts the fragments of a packet into the outbox, all or none.
func (f *Forwarder) cutTo(p *Packet, v Verdict, mtu int) Verdict {
	parts, r := newSplitter(p, mtu)
	if r != ReasonNone {
		return drop(r)
	}
	mark := f.outbox.mark()
	for {
		b := f.outbox.room(mtu)
		if b == nil {
			f.outbox.backTo(mark)
			return drop(ReasonOutboxFull)
		}
		n := parts.next(b)
		if n == 0 {
			return Verdict{Action: Hold}
		}
		f.outbox.put(n, Packet{In: p.In}, v)
	}
}
