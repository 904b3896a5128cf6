// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// The model: who talks to whom, as a list that anybody can check by eye. It
// takes the choice of a server or of a port from the Forwarder when a
// connection opens, and from then on holds the Forwarder to it.

type modelConn struct {
	proto                        string
	client, virtual, dest, local string // local: hairpin and full NAT only
	snat, answered               bool   // answered: by the server
	state                        conntrack.State
	deadline                     time.Duration
}

func (c *modelConn) String() string {
	return fmt.Sprintf("%s %s c:%s v:%s d:%s l:%s", c.state, c.proto, c.client, c.virtual, c.dest, c.local)
}

type model struct {
	t     *testing.T
	s     *script
	r     *rand.Rand
	conns []*modelConn
	gone  map[string]bool // dest endpoints of deleted servers
	rests map[string]bool // those of weight 0
	down  string          // what becomes of the connections of deleted servers
	hides bool            // 10.0.0.4 has full NAT
	log   []string
}

func (m *model) fatal(format string, args ...any) {
	m.t.Helper()
	log := m.log[max(0, len(m.log)-12):]
	m.t.Fatalf("%s\n  after:\n    %s", fmt.Sprintf(format, args...), strings.Join(log, "\n    "))
}

func (m *model) now() time.Duration { return time.Duration(m.s.now) }

func (m *model) find(match func(*modelConn) bool) *modelConn {
	for _, c := range m.conns {
		if match(c) {
			return c
		}
	}
	return nil
}

func (m *model) remove(c *modelConn) {
	for i := range m.conns {
		if m.conns[i] == c {
			m.conns = append(m.conns[:i], m.conns[i+1:]...)
			return
		}
	}
}

// send puts a packet in and returns what came of it: the two ends of the packet
// that left, or the reason why none did.
func (m *model) send(proto, src, dst, flags string) (from, to, reason string) {
	text := fmt.Sprintf("%s %s > %s", proto, src, dst)
	if proto == "tcp" {
		numbers := " seq=5001 ack=7001"
		if strings.HasSuffix(src, ":8080") || strings.HasSuffix(src, ":80") || strings.HasPrefix(src, "203.") {
			numbers = " seq=7001 ack=5001" // a server's side
		}
		if flags == "S" {
			numbers = " seq=5000"
		}
		if flags == "SA" {
			numbers = " seq=7000 ack=5001"
		}
		text += " " + flags + numbers
	}
	if proto == "sctp" {
		tag := " tag=2 init=1" // a client's side: server's tag, and its own
		if strings.HasSuffix(src, ":9090") || strings.HasPrefix(src, "203.") {
			tag = " tag=1 init=2"
		}
		if flags == "INIT" {
			tag = " init=1"
		}
		text += " " + flags + tag
	}
	m.log = append(m.log, text)
	m.s.arrive("", text)
	v := m.s.verdict
	m.s.verdict, m.s.made, m.s.madeBy = nil, nil, nil
	if v.Action != Forward {
		m.log = append(m.log, "  "+v.Action.String()+" "+v.Reason.String())
		return "", "", v.Reason.String()
	}
	out := decodePacket(m.s.packet.Data, Offload{})
	m.log = append(m.log, "  "+out)
	if strings.Contains(out, "=bad") {
		m.fatal("a checksum is wrong: %s", out)
	}
	words := strings.Fields(out)
	if strings.HasPrefix(words[1], "10.") && v.Port == 0 || v.Port == 1 != strings.HasPrefix(words[3], "10.") {
		m.fatal("left by port %d: %s", v.Port, out)
	}
	return words[1], words[3], ""
}

func (m *model) step(c *modelConn, d conntrack.Direction, flags string) {
	if c.snat {
		d = d.Other()
	}
	if c.proto == "tcp" {
		e := map[byte]conntrack.Event{'S': conntrack.SYN, 'F': conntrack.FIN, 'A': conntrack.ACK, 'R': conntrack.RST}[flags[0]]
		c.state = c.state.Next(d, e)
	}
	if c.proto == "sctp" {
		c.state = c.state.NextChunk(d, conntrack.Chunk(slices.Index(modelChunks, flags)))
	}
	c.deadline = m.now() + conntrack.DefaultTimeouts()[c.state]
}

func (m *model) open(c *modelConn, d conntrack.Direction) {
	for _, o := range slices.Clone(m.conns) {
		switch {
		case o.proto != c.proto:
		case o.client == c.client && o.virtual == c.virtual:
			m.fatal("%v opened beside %v", c, o)
		case o.dest == c.dest && o.local == "" && c.local == "" && o.client == c.client && over(o.state):
			m.remove(o) // it gave way
		case o.dest == c.dest && o.local == "" && c.local == "" && o.client == c.client:
			m.fatal("replies of %v and %v are the same", c, o)
		case o.dest == c.dest && o.local != "" && o.local == c.local:
			m.fatal("replies of %v and %v are the same", c, o)
		}
		inside := func(c *modelConn) (string, string) {
			if c.local != "" {
				return c.client, c.local
			}
			return c.dest, c.virtual
		}
		if m.full(c.local) || m.full(o.local) {
			continue // a port for each connection of a server
		}
		if o.proto != c.proto || !(o.snat || o.local != "") || !(c.snat || c.local != "") {
			continue
		}
		oi, op := inside(o)
		ci, cp := inside(c)
		if (oi == ci) != (op == cp) && strings.Split(op, ":")[0] == strings.Split(cp, ":")[0] {
			m.fatal("mapping of %v and %v: one endpoint, one port", c, o)
		}
	}
	if c.snat && strings.HasSuffix(c.virtual, modelPorts[c.proto]) {
		m.fatal("the port of a service was handed out: %v", c)
	}
	c.state = conntrack.None
	if c.proto == "udp" {
		c.state = conntrack.UDP
	}
	m.conns = append(m.conns, c)
	m.step(c, d, modelOpens[c.proto])
}

var (
	// modelChunks are in the order of conntrack's; COOKIE ECHO alone agrees on
	// tags, which are the same always.
	modelChunks = []string{
		"DATA", "INIT", "INIT-ACK", "COOKIE-ECHO", "COOKIE-ACK", "SHUTDOWN", "SHUTDOWN-ACK", "SHUTDOWN-COMPLETE", "ERROR", "ABORT",
	}
	modelProtos = []string{"tcp", "udp", "sctp"}
	modelPorts  = map[string]string{"tcp": ":80", "udp": ":53", "sctp": ":90"}
	modelDests  = map[string]string{"tcp": ":8080", "udp": ":5353", "sctp": ":9090"}
	modelOpens  = map[string]string{"tcp": "S", "udp": "S", "sctp": "INIT"}
)

func (m *model) anyProto() string { return modelProtos[m.r.IntN(len(modelProtos))] }

// flags are those of a packet of the side that opens, or of the other.
func (m *model) flags(proto string, opener bool) string {
	switch {
	case proto == "sctp" && m.r.IntN(3) == 0:
		return "INIT"
	case proto == "sctp":
		return modelChunks[m.r.IntN(len(modelChunks))]
	case opener:
		return []string{"S", "A", "A", "FA", "R"}[m.r.IntN(5)]
	}
	return []string{"SA", "A", "FA", "R"}[m.r.IntN(4)]
}

func (m *model) inbound() {
	proto := m.anyProto()
	client := fmt.Sprintf("192.168.88.%d:%d", 30+m.r.IntN(3), 40000+m.r.IntN(4))
	if m.r.IntN(4) == 0 {
		client = fmt.Sprintf("10.0.0.%d:%d", 2+m.r.IntN(4), 40000+m.r.IntN(3))
	}
	virtual := fmt.Sprintf("192.168.88.%d%s", 23+m.r.IntN(2), modelPorts[proto])
	if m.r.IntN(3) == 0 { // by mark, in the network that the clients are in
		virtual = fmt.Sprintf("192.168.88.%d%s", 98+m.r.IntN(2), modelPorts[proto])
		if strings.HasPrefix(client, "10.") {
			client = fmt.Sprintf("10.0.0.5:%d", 40000+m.r.IntN(3)) // no server
		}
	}
	flags := m.flags(proto, true)
	c := m.find(func(c *modelConn) bool { return c.proto == proto && c.client == client && c.virtual == virtual })
	opens := proto == "udp" || flags == modelOpens[proto]
	if c != nil && opens && (over(c.state) || m.gone[c.proto+c.dest] || m.rests[c.proto+c.dest] && (m.down == "expire" || c.waits())) && (proto != "udp" || m.down == "repick") {
		m.remove(c)
		c = nil
	}
	from, to, reason := m.send(proto, client, virtual, flags)
	if c == nil && reason == "" && m.full(from) != (to[:8] == "10.0.0.4" && m.hides) {
		m.fatal("full NAT is for one server: %s came from %s", to, from)
	}
	switch {
	case c != nil && m.gone[c.proto+c.dest]:
		if reason != "server-gone" {
			m.fatal("to a server that is gone: %q", reason)
		}
	case c != nil:
		want := client
		if c.local != "" {
			want = c.local
		}
		if from != want || to != c.dest {
			m.fatal("%v: went from %s to %s (%s)", c, from, to, reason)
		}
		m.step(c, conntrack.Inbound, flags)
	case !opens:
		if reason != "no-conn" {
			m.fatal("no entry, no SYN: %q", reason)
		}
	case reason != "":
		if reason != "no-server" && reason != "reply-clash" {
			m.fatal("refused: %s", reason)
		}
	default:
		c = &modelConn{proto: proto, client: client, virtual: virtual, dest: to}
		if strings.HasPrefix(client, "10.") || m.full(from) {
			c.local = from
		} else if from != client {
			m.fatal("the client's address was changed: %s", from)
		}
		if m.gone[proto+to] {
			m.fatal("scheduled to a server that is gone")
		}
		m.open(c, conntrack.Inbound)
	}
}

// reply has an inside endpoint, or the peer of one, answer on a connection.
func (m *model) reply() {
	if len(m.conns) == 0 {
		return
	}
	c := m.conns[m.r.IntN(len(m.conns))]
	flags := m.flags(c.proto, false)
	if c.snat {
		from, to, reason := m.send(c.proto, c.client, c.virtual, flags)
		if from != c.client || to != c.dest {
			m.fatal("%v: came from %s to %s (%s)", c, from, to, reason)
		}
		m.step(c, conntrack.Inbound, flags)
		return
	}
	dst := c.client
	if c.local != "" {
		dst = c.local
	}
	from, to, reason := m.send(c.proto, c.dest, dst, flags)
	if from != c.virtual || to != c.client {
		m.fatal("%v: came from %s to %s (%s)", c, from, to, reason)
	}
	c.answered = true
	m.step(c, conntrack.Outbound, flags)
}

// waits reports whether all that was seen of c is its client's first packet.
func (c *modelConn) waits() bool {
	return !c.answered && (c.state == conntrack.SynRecv || c.state == conntrack.SCTPInit1 || c.state == conntrack.SCTPInit)
}

// outbound has an inside host open a connection, or go on with one.
func (m *model) outbound() {
	proto := m.anyProto()
	peer := fmt.Sprintf("203.0.113.%d%s", 9+m.r.IntN(2), modelPorts[proto])
	host := fmt.Sprintf("10.0.0.%d:%d", 2+m.r.IntN(4), 40000+m.r.IntN(3))
	flags := m.flags(proto, true)
	c := m.find(func(c *modelConn) bool { return c.snat && c.proto == proto && c.client == peer && c.dest == host })
	if c != nil && flags == modelOpens[proto] && over(c.state) {
		c.state = conntrack.None
	}
	from, to, reason := m.send(proto, host, peer, flags)
	switch {
	case c != nil:
		if from != c.virtual || to != peer {
			m.fatal("%v: went from %s to %s (%s)", c, from, to, reason)
		}
		m.step(c, conntrack.Outbound, flags)
	case proto != "udp" && flags != modelOpens[proto]:
		if reason != "stray-server-packet" {
			m.fatal("no entry, no SYN: %q", reason)
		}
	case reason != "":
		m.fatal("refused: %s", reason)
	default:
		if to != peer {
			m.fatal("went to %s", to)
		}
		m.open(&modelConn{proto: proto, client: peer, virtual: from, dest: host, snat: true}, conntrack.Outbound)
	}
}

// full reports whether an endpoint is one that clients have at servers with full NAT.
func (m *model) full(local string) bool { return strings.HasPrefix(local, "10.0.0.1:") }

// stranger must reach nobody.
func (m *model) stranger() {
	c := m.find(func(c *modelConn) bool { return c.snat || c.local != "" && !m.full(c.local) })
	if c == nil {
		return
	}
	to := c.virtual
	if c.local != "" {
		to = c.local
	}
	if _, _, reason := m.send(c.proto, fmt.Sprintf("198.51.100.7:%d", 1+m.r.IntN(65535)), to, modelOpens[c.proto]); reason != "unsolicited" {
		m.fatal("a stranger at %s: %q", to, reason)
	}
}

func (m *model) edit() {
	proto := m.anyProto()
	dest := fmt.Sprintf("10.0.0.%d%s", 2+m.r.IntN(3), modelDests[proto])
	weight, value := m.r.IntN(2) == 0, max(0, m.r.IntN(4)-1)
	for _, v := range []string{"192.168.88.23", "192.168.88.24"} {
		m.s.step("of", proto+" "+v+modelPorts[proto])
		switch {
		case m.gone[proto+dest]:
			m.s.step("server", dest+m.words(dest))
		case weight:
			m.s.step("edit-server", fmt.Sprintf("%s weight %d", dest, value)+m.words(dest))
			continue
		default:
			m.s.step("delete-server", dest)
		}
	}
	m.rests[proto+dest] = !m.gone[proto+dest] && weight && value == 0
	if m.gone[proto+dest] || !weight {
		m.gone[proto+dest] = !m.gone[proto+dest]
	}
	m.log = append(m.log, "edit "+proto+" "+dest)
	if m.gone[proto+dest] && m.down != "keep" {
		m.deleted(proto, dest)
	}
}

// deleted ends what is to end at once with a server.
func (m *model) deleted(proto, dest string) {
	var live []*modelConn
	for _, c := range m.conns {
		ends := !over(c.state)
		switch {
		case c.proto != proto || c.dest != dest || c.snat:
			ends = false
		case m.down == "expire":
			ends = true
		case m.down == "repick" && proto == "udp":
			ends = false
		}
		if !ends {
			live = append(live, c)
		}
	}
	m.conns = live
	m.s.step("advance", "0s")
	m.s.made, m.s.madeBy = nil, nil
}

func (m *model) advance() {
	d := []time.Duration{time.Second, 5 * time.Second, 11 * time.Second, 61 * time.Second, 301 * time.Second}[m.r.IntN(5)]
	m.s.step("advance", d.String())
	m.log = append(m.log, "advance "+d.String())
	there := map[string]bool{}
	for _, c := range m.s.f.Conns(ConnQuery{}).Conns {
		there[fmt.Sprintf("%s%s%s", protoName(c.Proto), c.Client, c.Virtual)] = true
	}
	var live []*modelConn
	for _, c := range m.conns {
		in := there[c.proto+c.client+c.virtual]
		left := c.deadline - m.now()
		if left > 0 && !in || left < -300*time.Millisecond && in {
			m.fatal("%v: %v left, in the table: %v", c, left, in)
		}
		if in {
			live = append(live, c)
		}
	}
	m.conns = live
	if len(there) != len(live) {
		m.fatal("the table has %d connections, the model %d", len(there), len(live))
	}
	recount(m.t, m.s.rules, m.s.f)
}

// words say how a server gets its packets.
func (m *model) words(dest string) string {
	if m.hides && strings.HasPrefix(dest, "10.0.0.4") {
		return " nat full"
	}
	return ""
}

func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		down := []string{"keep", "reset", "repick", "expire"}[seed%4]
		s := newScript(t, fmt.Sprintf("seed %d, %s", seed, down))
		m := &model{t: t, s: s, r: rand.New(rand.NewPCG(seed, 1)), gone: map[string]bool{}, rests: map[string]bool{}, down: down, hides: seed >= 8}
		words := " on-server-down " + down
		if down == "expire" {
			words = ""
			s.set("expire_nodest_conn", 1)
		}
		for _, v := range []string{"192.168.88.23", "192.168.88.24"} {
			for _, proto := range modelProtos {
				s.step("service", proto+" "+v+modelPorts[proto]+" sched "+map[string]string{"tcp": "wlc", "udp": "rr", "sctp": "wlc"}[proto]+words)
				for _, d := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
					s.step("server", d+modelDests[proto]+m.words(d))
				}
			}
		}
		s.step("service", "mark 1 sched rr")
		s.step("server", "10.0.0.2:0")
		s.step("server", "10.0.0.3:0")
		s.step("mark", "2 to 192.168.88.23/32") // which is by address: there is no mark 2
		s.step("mark", "2 to 192.168.88.24/32")
		s.step("mark", "1 to 192.168.88.0/24")
		s.step("snat", "10.0.0.0/24 192.168.88.23")
		s.step("icmp-rate", "1000000")
		for range 4000 {
			switch n := m.r.IntN(100); {
			case n < 40:
				m.inbound()
			case n < 70:
				m.reply()
			case n < 88:
				m.outbound()
			case n < 92:
				m.stranger()
			case n < 95:
				m.edit()
			default:
				m.advance()
			}
		}
		s.step("advance", "1200s")
		recount(t, s.rules, s.f)
		if stats := s.f.Stats(); stats.Conns != 0 || s.f.mapper.used != 0 {
			t.Fatalf("%d connections and %d mappings are left", stats.Conns, s.f.mapper.used)
		}
		if err := s.f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
