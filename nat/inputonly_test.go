// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// pastModel is connections of which the client's side alone is seen, in a plain map:
// each stays with its server, and has the state of the third column of the table.
type pastModel struct {
	t     *testing.T
	s     *script
	r     *rand.Rand
	conns map[string]*pastConn // by client and virtual address
	log   []string
}

type pastConn struct {
	server   string
	state    conntrack.State
	deadline conntrack.Time
}

func (m *pastModel) fatal(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n  after:\n    %s", fmt.Sprintf(format, args...), strings.Join(m.log[max(0, len(m.log)-12):], "\n    "))
}

// send puts a packet in and returns the server that it went to, or "" and why not.
func (m *pastModel) send(packet string, tunnel bool) (server, why string) {
	m.log = append(m.log, packet)
	m.s.arrive("", packet)
	v, out, made := *m.s.verdict, decodePacket(m.s.packet.Data, Offload{}), m.s.made
	m.s.verdict, m.s.made, m.s.madeBy = nil, nil, nil
	if v.Action == Drop {
		return "", v.Reason.String()
	}
	if tunnel {
		if v.Action != Hold || len(made) != 1 {
			m.fatal("%v, made %q", v, made)
		}
		head, _, inner := splitFields(made[0])
		if out = inner; head[0] != "ipip" || head[1] != "10.0.0.1" {
			m.fatal("wrapped as %s", made[0])
		}
		server = head[3]
	} else {
		server = v.NextHop.String()
	}
	if !agrees(packet, out) {
		m.fatal("changed to %s", out)
	}
	return server, ""
}

func (m *pastModel) packet() {
	events := map[string]conntrack.Event{"S seq=5000": conntrack.SYN, "A seq=5001 ack=7001": conntrack.ACK, "FA seq=5001 ack=7001": conntrack.FIN, "R seq=5001": conntrack.RST}
	flags := []string{"S seq=5000", "A seq=5001 ack=7001", "A seq=5001 ack=7001", "FA seq=5001 ack=7001", "R seq=5001"}[m.r.IntN(5)]
	service := m.r.IntN(2)
	ends := fmt.Sprintf("192.168.88.%d:%d > 192.168.88.%d:%d", 30+m.r.IntN(2), 40000+m.r.IntN(3), 23+m.r.IntN(2), 80+service)
	c := m.conns[ends]
	if c != nil && flags[0] == 'S' && over(c.state) {
		c = nil // begins anew
	}
	server, why := m.send("tcp "+ends+" "+flags, service == 1)
	switch {
	case c == nil && flags[0] != 'S':
		if why != "no-conn" {
			m.fatal("no entry, no SYN: %q", why)
		}
		return
	case why != "":
		m.fatal("dropped: %s", why)
	case c == nil:
		c = &pastConn{server: server}
		m.conns[ends] = c
	case c.server != server:
		m.fatal("went from %s to %s", c.server, server)
	}
	c.state = c.state.Next(conntrack.InboundOnly, events[flags])
	c.deadline = m.s.now.Add(conntrack.DefaultTimeouts()[c.state])
}

// answer is a packet of a server from its own address, which is none of ours.
func (m *pastModel) answer() {
	packet := fmt.Sprintf("tcp 10.0.0.%d:%d > 192.168.88.30:40000 SA seq=7000 ack=5001", 2+m.r.IntN(3), 80+m.r.IntN(2))
	m.s.arrive("", packet)
	if m.s.verdict.Action != Pass {
		m.fatal("%s: %v", packet, *m.s.verdict)
	}
	m.s.verdict = nil
}

func (m *pastModel) advance() {
	m.s.step("advance", []string{"1s", "11s", "61s", "121s"}[m.r.IntN(4)])
	there := map[string]conntrack.State{}
	for _, c := range m.s.f.Conns(ConnQuery{}).Conns {
		there[fmt.Sprintf("%s > %s", c.Client, c.Virtual)] = c.State
		if c.Replied || c.Method == Masquerade {
			m.fatal("listed as %+v", c)
		}
	}
	for ends, c := range m.conns {
		state, in := there[ends]
		left := time.Duration(c.deadline - m.s.now)
		if in && state != c.state || left > 0 && !in || left < -300*time.Millisecond && in {
			m.fatal("%s: %s, %v left; in the table %v %s", ends, c.state, left, in, state)
		}
		if !in {
			delete(m.conns, ends)
		}
	}
	if len(there) != len(m.conns) {
		m.fatal("the table has %d connections, the model %d", len(there), len(m.conns))
	}
	recount(m.t, m.s.rules, m.s.f)
}

func TestModelPastUs(t *testing.T) {
	for seed := range uint64(4) {
		s := newScript(t, fmt.Sprintf("seed %d", seed))
		m := &pastModel{t: t, s: s, r: rand.New(rand.NewPCG(seed, 2)), conns: map[string]*pastConn{}}
		for _, v := range []string{"192.168.88.23", "192.168.88.24"} {
			for port, method := range []string{"route", "tunnel"} {
				s.step("service", fmt.Sprintf("tcp %s:%d sched wlc", v, 80+port))
				for i := range 3 {
					s.step("server", fmt.Sprintf("10.0.0.%d:%d method %s", 2+i, 80+port, method))
				}
			}
		}
		s.step("icmp-rate", "1000000")
		for range 3000 {
			switch n := m.r.IntN(100); {
			case n < 85:
				m.packet()
			case n < 92:
				m.answer()
			case n < 95:
				s.step("of", "tcp 192.168.88.23:80")
				s.step("edit-server", fmt.Sprintf("10.0.0.%d:80 method route weight %d", 2+m.r.IntN(3), 1+m.r.IntN(3)))
			default:
				m.advance()
			}
		}
		s.step("advance", "1200s")
		recount(t, s.rules, s.f)
		if n := s.f.Stats().Conns; n != 0 {
			t.Fatalf("%d connections are left", n)
		}
		s.f.Close()
	}
}
