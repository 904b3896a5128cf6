// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// What the packets of clients say about a server: how many first packets went there, how
// many were answered and how soon, and how many refused. It is counted where a connection
// changes anyway, once when it begins and once when its server is heard first, so that
// other packets cost nothing. Who is interested reads the sums now and then: that a first
// packet has no answer is seen by nobody when it happens.
//
// Servers that answer past us are not judged, nor what is scheduled datagram by datagram.

// ServerSignals are those of a server, in one Forwarder, since the server was added.
type ServerSignals struct {
	Asked    uint64 // connections begun: a SYN, an INIT, the first datagram of a flow
	Answered uint64 // of those, with a SYN-ACK, an INIT ACK, a datagram from the server
	Refused  uint64 // a RST, an ABORT or ICMP unreachable from the server's side came instead
	Latency  Latency
}

// Add adds what another Forwarder counted.
func (s *ServerSignals) Add(o *ServerSignals) {
	s.Asked += o.Asked
	s.Answered += o.Answered
	s.Refused += o.Refused
	s.Latency.add(&o.Latency)
}

// LatencyBounds are the upper ends of the ranges of [Latency], which has one more range
// without an end.
var LatencyBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond,
}

// Latency says how long a server took from the SYN that we sent to its SYN-ACK, as a
// histogram. A handshake whose SYN came twice is left out, since nobody knows which was
// answered (as RFC 6298 section 3 has it). Times are those of turns of the packet loop.
type Latency struct {
	Counts [len(LatencyBounds) + 1]uint64 // handshakes by the range of their time
	Sum    time.Duration
}

func (l *Latency) observe(d time.Duration) {
	i := 0
	for i < len(LatencyBounds) && d > LatencyBounds[i] {
		i++
	}
	l.Counts[i]++
	l.Sum += d
}

func (l *Latency) add(o *Latency) {
	for i, n := range o.Counts {
		l.Counts[i] += n
	}
	l.Sum += o.Sum
}

// asked counts a connection that begins with a packet of the client.
func (f *Forwarder) asked(c *conntrack.Conn) {
	if c.Server != conntrack.NoSlot && c.Flags&conntrack.InputOnly == 0 {
		f.counters.servers[c.Server].signals.Asked++
	}
}

// serverHeard counts the first packet of a connection's server. The packet before it was the
// client's and has set the deadline, from which the time that it came at follows.
func (f *Forwarder) serverHeard(h *parsed, c *conntrack.Conn) {
	if c.Server == conntrack.NoSlot || c.State == conntrack.Listen {
		return // SNAT, or the server begins: nobody has asked
	}
	s := &f.counters.servers[c.Server].signals
	if h.ends() {
		s.Refused++
		return
	}
	s.Answered++
	if h.kind != kindTCP || c.State != conntrack.SynRecv || h.flags&(flagSYN|flagACK) != flagSYN|flagACK || c.Heard() != 1 {
		return
	}
	life := f.life(c, conntrack.SynRecv)
	if took := f.now - (c.Deadline - life); took >= 0 && took < life { // else the time-out was changed meanwhile
		s.Latency.observe(time.Duration(took))
	}
}

// refusedByError counts an ICMP error about the first packet of a connection: nobody is
// there, or the port is closed (of UDP this is the only refusal).
func (f *Forwarder) refusedByError(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction) {
	if dir != conntrack.Outbound || c.Server == conntrack.NoSlot || c.Flags&(conntrack.Replied|conntrack.InputOnly) != 0 {
		return
	}
	code := icmpHeader(p.Data[h.l4:]).code()
	if h.proto == protoICMP && h.icmpType == icmpUnreachable && code != icmpFragNeeded || h.proto == protoICMPv6 && h.icmpType == icmpv6Unreachable {
		f.counters.servers[c.Server].signals.Refused++
	}
}

// Signals appends a copy of what was counted of each server, by slot. It is to be called
// between batches.
func (f *Forwarder) Signals(list []ServerSignals) []ServerSignals {
	for i := range f.counters.servers {
		list = append(list, f.counters.servers[i].signals)
	}
	return list
}
