// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"

	"github.com/vsnat/vsnat/conntrack"
)

// Probes: a SYN of our own to a server, from an address of ours, which the host need not
// have. What comes back tells whether the server serves, and also, if the address is
// outside the server's network, whether its way back leads here: the answer passes where
// the answers to clients pass. A server that accepts is sent a RST, and none sees a
// connection.
//
// With several Forwarders one sends, and all expect the answer.

// A Probe is one SYN.
type Probe struct {
	From, To netip.AddrPort
	Seq      uint32
}

// ProbeAnswer is what came back.
type ProbeAnswer uint8

const (
	ProbeSilent   ProbeAnswer = iota // nothing yet
	ProbeAccepted                    // a SYN-ACK
	ProbeRefused                     // a RST
)

// maxProbes bounds the probes that are under way in a Forwarder. The oldest is forgotten.
const maxProbes = 64

// probePorts are those that probes come from: above what hosts take for themselves.
var probePorts = hairpinPorts

type probe struct {
	Probe
	src, dst conntrack.Endpoint
	answer   ProbeAnswer
}

// probes are those under way, in a ring.
type probes struct {
	ring    [maxProbes]probe
	next    int
	waiting bool // for the answer to some
}

// NewProbe finds a port of an address of ours that a probe can come from. It reports false
// if the address is not ours, or no port is free.
func (f *Forwarder) NewProbe(from netip.Addr, to netip.AddrPort) (Probe, bool) {
	addr := conntrack.AddrFrom(from)
	own := f.snap.own.find(&addr)
	if own < 0 || from.Is4() != to.Addr().Is4() {
		return Probe{}, false
	}
	f.probeSeq = f.probeSeq*1664525 + uint32(f.now) | 1
	first, n := int(probePorts[0]), int(probePorts[1]-probePorts[0])+1
	dst := conntrack.Endpoint{Addr: conntrack.AddrFrom(to.Addr()), Port: to.Port()}
	for i := range n {
		src := conntrack.Endpoint{Addr: addr, Port: uint16(first + (int(f.probeSeq>>8)+i)%n)}
		t := conntrack.Tuple{Src: dst, Dst: src, Proto: ProtoTCP}
		if c, _ := f.table.Lookup(&t, conntrack.DstOurs); c == nil && f.tells(src.Port) && f.snap.reserved[own].leaves(ProtoTCP, src.Port) && !f.mapped(own, ProtoTCP, src.Port) {
			return Probe{From: src.AddrPort(), To: to, Seq: f.probeSeq}, true
		}
	}
	return Probe{}, false
}

// ExpectProbe has the Forwarder know the answer to a probe. It is to be called between
// batches, as the methods below are.
func (f *Forwarder) ExpectProbe(p Probe) {
	f.probes.ring[f.probes.next] = probe{
		Probe: p,
		src:   conntrack.Endpoint{Addr: conntrack.AddrFrom(p.From.Addr()), Port: p.From.Port()},
		dst:   conntrack.Endpoint{Addr: conntrack.AddrFrom(p.To.Addr()), Port: p.To.Port()},
	}
	f.probes.next = (f.probes.next + 1) % maxProbes
	f.probes.waiting = true
}

// SendProbe puts a probe into the outbox. It reports false if there is no way or no room.
func (f *Forwarder) SendProbe(p Probe) bool {
	src := conntrack.Endpoint{Addr: conntrack.AddrFrom(p.From.Addr()), Port: p.From.Port()}
	dst := conntrack.Endpoint{Addr: conntrack.AddrFrom(p.To.Addr()), Port: p.To.Port()}
	h := f.hops.lookup(&f.snap.routes, &dst.Addr)
	b := f.outbox.room(resetLen)
	if h.port >= MaxPorts || b == nil {
		return false
	}
	n := buildResetSegment(b, &src, &dst, p.Seq, 0, flagSYN)
	f.outbox.put(n, Packet{In: h.port}, Verdict{Action: Forward, Port: h.port, NextHop: h.next})
	return true
}

// Probed says what came back for a probe.
func (f *Forwarder) Probed(p Probe) ProbeAnswer {
	for i := range f.probes.ring {
		if f.probes.ring[i].Probe == p {
			return f.probes.ring[i].answer
		}
	}
	return ProbeSilent
}

// ForgetProbe has the Forwarder expect no answer any more.
func (f *Forwarder) ForgetProbe(p Probe) {
	f.probes.waiting = false
	for i := range f.probes.ring {
		q := &f.probes.ring[i]
		if q.Probe == p {
			*q = probe{}
		}
		f.probes.waiting = f.probes.waiting || q.Probe != Probe{}
	}
}

// answersProbe takes a packet that is the answer to a probe.
func (f *Forwarder) answersProbe(p *Packet, h *parsed) bool {
	if h.kind != kindTCP || h.flags&flagACK == 0 || h.flags&(flagSYN|flagRST) == 0 {
		return false
	}
	for i := range f.probes.ring {
		q := &f.probes.ring[i]
		if q.src != h.tuple.Dst || q.dst != h.tuple.Src || h.ack != q.Seq+1 {
			continue
		}
		if q.answer = ProbeAccepted; h.flags&flagRST != 0 {
			q.answer = ProbeRefused
			return true
		}
		f.reset(p, h, ReasonNone)
		return true
	}
	return false
}
