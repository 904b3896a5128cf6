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
		ip := ipv4Header(p.Data)
		d.Src, d.Dst = ip.src(), ip.dst()
	case Hold: // answered: the rest is of no use
		d.Action, d.Reason = Drop, ReasonFragmentLate
	}
	held := f.frags.decide(f.now, &key, d)
	for data := held.next(); data != nil; data = held.next() {
		f.release(p, data, &d)
	}
	return v
}

// release sends a fragment that waited.
func (f *Forwarder) release(p *Packet, data []byte, d *fragDecision) {
	b := f.outbox.room(len(data))
	if b == nil {
		f.counters.suppressed[ReasonOutboxFull]++
		return
	}
	copy(b, data)
	ip := ipv4Header(b)
	if ip.ttl() <= 1 {
		f.counters.drops[ReasonTTL]++
		return
	}
	translate(ip, d)
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
	if mtu := f.snap.ports[d.Port%MaxPorts].MTU; len(p.Data) > mtu {
		if h.dontFragment {
			return drop(ReasonTooBig)
		}
		f.split = uint16(mtu)
	}
	translate(ipv4Header(p.Data), d)
	return d.verdict()
}

func (d *fragDecision) verdict() Verdict {
	return Verdict{Action: Forward, Port: d.Port, To: d.To, NextHop: d.NextHop}
}

// translate rewrites what a fragment without ports has to rewrite.
func translate(ip ipv4Header, d *fragDecision) {
	var none delta
	ip.decrementTTL()
	ip.replaceSource(&d.Src, &none)
	ip.replaceDestination(&d.Dst, &none)
}

// cut sends a packet as fragments that fit the way out.
func (f *Forwarder) cut(p *Packet, v Verdict) Verdict {
	parts, r := newSplitter(p, int(f.split))
	if r != ReasonNone {
		return drop(r)
	}
	for {
		b := f.outbox.room(int(f.split))
		if b == nil {
			return drop(ReasonOutboxFull)
		}
		n := parts.next(b)
		if n == 0 {
			return Verdict{Action: Hold}
		}
		f.outbox.put(n, Packet{In: p.In}, v)
	}
}
