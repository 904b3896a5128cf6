// SPDX-License-Identifier: Apache-2.0

package nat

// The way of a fragment. The first one, which has the ports, goes the way of a
// whole packet; what comes of it holds for the others, which follow or wait.

// fragment decides about a part of a datagram.
func (f *Forwarder) fragment(p *Packet, h *parsed) Verdict {
	if f.snap.own.find(&h.tuple.Dst.Addr) < 0 && f.snap.snatFor(&h.tuple.Src.Addr) == nil &&
		f.snap.inner.find(&h.tuple.Src.Addr) < 0 {
		return Verdict{Action: Pass} // nothing of ours, and not worth remembering
	}
	o := f.frags.add(f.now, h, p.Data)
	switch o.state {
	case fragHeld:
		return Verdict{Action: Hold}
	case fragKnown:
		return f.follower(p, h, o.decision)
	case fragFirst:
		return f.leader(p, h)
	}
	return drop(o.reason)
}

// leader decides about a datagram by its first fragment, and lets those go
// that came before it.
func (f *Forwarder) leader(p *Packet, h *parsed) Verdict {
	key := *h // the addresses as they came: the rewrite changes the packet
	v := f.whole(p, h)
	d := fragDecision{Action: v.Action, Reason: v.Reason, Port: v.Port, NextHop: v.NextHop, To: v.To}
	switch v.Action {
	case Forward:
		ip := ipHeader(p.Data)
		d.Src, d.Dst = ip.src(), ip.dst()
		d.Server, d.Dir = f.counted.server, f.counted.dir
	case Hold:
		d = f.answered(&key)
	}
	held := f.frags.decide(f.now, &key, d)
	for data := held.next(); data != nil; data = held.next() {
		f.release(p, data, &d)
	}
	return v
}

// answered decides about the rest of a datagram whose first fragment was
// answered: a ping's goes back as well, so that the echo is whole.
func (f *Forwarder) answered(h *parsed) fragDecision {
	n := len(f.outbox.list)
	if h.kind != kindEcho || n == f.outbox.taken {
		return fragDecision{Action: Drop, Reason: ReasonFragmentLate}
	}
	v := &f.outbox.list[n-1].Verdict
	return fragDecision{
		Action: Forward, Src: h.tuple.Dst.Addr, Dst: h.tuple.Src.Addr,
		Port: v.Port, To: v.To, NextHop: v.NextHop, Uncounted: true,
	}
}

// release sends a fragment that waited.
func (f *Forwarder) release(p *Packet, data []byte, d *fragDecision) {
	ip := ipHeader(data)
	if ip.ttl() <= 1 {
		f.counters.drops[ReasonTTL]++
		return
	}
	f.translate(ip, len(data), d)
	if mtu := f.mtuOf(d); len(data) > mtu {
		if ip.dontFragment() {
			f.counters.drops[ReasonTooBig]++
			return
		}
		if v := f.cutTo(&Packet{Data: data, In: p.In}, d.verdict(), mtu); v.Action == Drop {
			f.counters.drops[v.Reason]++
		}
		return
	}
	b := f.outbox.room(len(data))
	if b == nil {
		f.counters.drops[ReasonOutboxFull]++
		return
	}
	copy(b, data)
	f.outbox.put(len(b), Packet{In: p.In}, d.verdict())
}

// follower sends a fragment after the first one.
func (f *Forwarder) follower(p *Packet, h *parsed, d *fragDecision) Verdict {
	if d.Action != Forward {
		return Verdict{Action: d.Action, Reason: d.Reason}
	}
	if h.ttl <= 1 {
		return drop(ReasonTTL)
	}
	if mtu := f.mtuOf(d); len(p.Data) > mtu {
		if h.dontFragment {
			return drop(ReasonTooBig)
		}
		f.split = uint16(mtu)
	}
	f.translate(ipHeader(p.Data), len(p.Data), d)
	return d.verdict()
}

// mtuOf returns the largest packet that leaves the way of a datagram.
func (f *Forwarder) mtuOf(d *fragDecision) int {
	if h := f.hops.lookup(&f.snap.routes, &d.Dst); h.port == d.Port {
		return int(h.mtu)
	}
	return min(f.snap.ports[d.Port%MaxPorts].MTU, 0xffff)
}

func (d *fragDecision) verdict() Verdict {
	return Verdict{Action: Forward, Port: d.Port, To: d.To, NextHop: d.NextHop}
}

// translate rewrites what a fragment without ports has to rewrite. A datagram
// counts as one packet with the bytes of all its fragments, one header apart:
// the length it had before it was cut.
func (f *Forwarder) translate(ip ipHeader, length int, d *fragDecision) {
	var none delta
	f.takeHop(ip, d.Port)
	ip.replaceSource(&d.Src, &none)
	ip.replaceDestination(&d.Dst, &none)
	if !d.Uncounted {
		f.add(d.Server, d.Dir, 0, length-ip.headerLen())
	}
}

// cut sends a packet as fragments that fit the way out.
func (f *Forwarder) cut(p *Packet, v Verdict) Verdict { return f.cutTo(p, v, int(f.split)) }

func (f *Forwarder) cutTo(p *Packet, v Verdict, mtu int) Verdict {
	parts, r := newSplitter(p, mtu)
	if r != ReasonNone {
		return drop(r)
	}
	list, used := len(f.outbox.list), f.outbox.used
	for {
		b := f.outbox.room(mtu)
		if b == nil { // all of it or nothing
			f.outbox.list, f.outbox.used = f.outbox.list[:list], used
			return drop(ReasonOutboxFull)
		}
		n := parts.next(b)
		if n == 0 {
			return Verdict{Action: Hold}
		}
		f.outbox.put(n, Packet{In: p.In}, v)
	}
}
