// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// The way out of a packet that belongs to an entry.

// A way is where a packet leaves.
type way struct {
	next   conntrack.Addr     // on-link address to resolve
	to     conntrack.LinkAddr // known link address, or zero
	port   uint16             // NoPort: there is none
	mtu    uint16             // largest IP packet
	tunnel *tunnel            // that it is wrapped for, or nil
}

func (w *way) verdict() Verdict {
	return Verdict{Action: Forward, Port: w.port, To: w.to, NextHop: w.next}
}

// way finds where a packet of c that goes dir leaves. Replies to a client go to
// the neighbour that its packets come from, whatever the routes say; all else
// goes by the routes.
func (f *Forwarder) way(c *conntrack.Conn, dir conntrack.Direction) way {
	dst := &c.Dest.Addr
	if dir == conntrack.Outbound {
		dst = &c.Client.Addr
		if c.HopPort < MaxPorts {
			if port := &f.snap.ports[c.HopPort]; port.Up && !port.L3 {
				return way{next: *dst, to: c.Hop, port: c.HopPort, mtu: uint16(min(port.MTU, 0xffff))}
			}
		}
	}
	h := f.hops.lookup(&f.snap.routes, dst)
	w := way{next: h.next, port: h.port, mtu: h.mtu}
	if dir == conntrack.Inbound && c.Flags&conntrack.InputOnly != 0 {
		f.wayPastUs(c, &w)
	}
	return w
}

// moveHop follows a client whose packets begin to come from another neighbour:
// its router failed over, or it moved. What cannot be of the connection, being
// outside the window or with another tag, moves nothing.
func (f *Forwarder) moveHop(p *Packet, h *parsed, c *conntrack.Conn) {
	if c.Flags&conntrack.SNAT != 0 {
		return // what was opened from inside goes by the routes
	}
	if h.kind == kindTCP && c.InWindow(conntrack.Inbound, h.seq) == conntrack.Outside ||
		h.kind == kindSCTP && !c.HasTag(conntrack.Inbound, h.tag, h.reflected) {
		return
	}
	if p.In != c.HopPort && f.hops.lookup(&f.snap.routes, &c.Client.Addr).port != p.In {
		return // the routes do not expect it there: its source may be forged
	}
	c.Hop, c.HopPort = p.From, p.In
}

// fits reports whether a packet can leave by w. If not, its sender has been
// told and the verdict is final. A super-packet fits if its segments do, the
// leader of a datagram if the other fragments do.
func (f *Forwarder) fits(p *Packet, h *parsed, w *way) (Verdict, bool) {
	f.split = 0 // of an earlier choice
	if w.port == NoPort {
		return f.unreachable(p, h, unreachable(icmpHostUnreachable), ReasonNoRoute), false
	}
	if w.tunnel != nil {
		return f.fitsTunnel(p, h, w)
	}
	f.mtu = int(w.mtu)
	if h.gsoFits(p, f.mtu) && h.solid <= f.mtu {
		return Verdict{}, true
	}
	if h.dontFragment || h.solid > f.mtu || p.Offload.GSOType != GSONone && p.Offload.GSOType != GSOUDP {
		return f.unreachable(p, h, fragNeeded(f.mtu), ReasonTooBig), false
	}
	f.split = w.mtu
	return Verdict{}, true
}

// takeHop counts us as a hop. Not on a port without link addresses: there the
// host routes to us and routes on what we give back, and counts itself each time.
func (f *Forwarder) takeHop(ip ipHeader, port uint16) {
	if f.takesHop(port) {
		ip.decrementTTL()
	}
}

func (f *Forwarder) takesHop(port uint16) bool { return !f.snap.ports[port%MaxPorts].L3 }

// send rewrites a packet of c in place and says where it goes.
func (f *Forwarder) send(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction, w *way) Verdict {
	if c.Flags&conntrack.InputOnly != 0 {
		return f.sendPastUs(p, c, w)
	}
	ip := ipHeader(p.Data)
	f.takeHop(ip, w.port)
	var d delta
	src, dst := &h.tuple.Src, &h.tuple.Dst
	if dir == conntrack.Inbound {
		dst = &c.Dest
		if c.Flags&conntrack.FullNAT != 0 {
			src = &c.Local
		}
	} else {
		src = &c.Virtual
		if c.Flags&conntrack.FullNAT != 0 {
			dst = &c.Client
		}
	}
	if src != &h.tuple.Src {
		ip.replaceSource(&src.Addr, &d)
	}
	if dst != &h.tuple.Dst {
		ip.replaceDestination(&dst.Addr, &d)
	}
	l4 := p.Data[h.l4:]
	switch h.kind {
	case kindTCP:
		t := tcpHeader(l4)
		t.replaceSrcPort(src.Port, &d)
		t.replaceDstPort(dst.Port, &d)
		if h.partial {
			t.applyPartial(d)
		} else {
			t.apply(d)
		}
	case kindUDP:
		u := udpHeader(l4)
		u.replaceSrcPort(src.Port, &d)
		u.replaceDstPort(dst.Port, &d)
		if h.partial {
			u.applyPartial(d)
		} else {
			u.apply(d)
		}
	case kindSCTP:
		sctpHeader(l4).replacePorts(src.Port, dst.Port, h.sctpLen())
	case kindEcho:
		id := src.Port // of a request
		if !h.echoRequest() {
			id = dst.Port
		}
		m := icmpHeader(l4)
		m.replaceEchoID(id, &d)
		m.apply(h.proto, d)
	}
	return w.verdict()
}
