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

// The model of persistence: what a template is and how long it lives, by the
// letter of the rule. It takes the choice of a server from the Forwarder when a
// template is made, and from then on holds the Forwarder to it.

type persistModel struct {
	t         *testing.T
	s         *script
	r         *rand.Rand
	port      int
	templates []*modelTemplate
	retired   []*modelTemplate
	gone      map[string]bool // "service server"
	weight    map[string]int
	quiescent bool
	log       []string
}

type modelTemplate struct {
	service        *modelService
	client, server string
	life, deadline time.Duration
	assured        bool
	unsure         bool // its last connection ended when its own time came: either may be first
	children       []*modelChild
}

type modelChild struct {
	client, virtual, dest string
	deadline              time.Duration
	template              *modelTemplate
}

type modelService struct {
	words, of, virtual, port string // port: of the servers
	life                     time.Duration
	mask                     int // clients in blocks of so many are one
	listed                   string
}

var modelServices = []*modelService{
	{"tcp 192.168.88.23:80 sched rr persistent 60s mask 255.255.255.252", "tcp 192.168.88.23:80", "192.168.88.23:80", ":8080", time.Minute, 4, "192.168.88.23:80"},
	{"tcp 192.168.88.24:0 sched wlc persistent 100s", "tcp 192.168.88.24:0", "192.168.88.24:%d", ":0", 100 * time.Second, 1, "192.168.88.24:0"},
	{"mark 1 sched rr persistent 30s", "mark 1", "192.168.88.25:%d", ":0", 30 * time.Second, 1, "0.0.0.1:0"},
}

func (m *persistModel) fatal(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n  after:\n    %s", fmt.Sprintf(format, args...), strings.Join(m.log[max(0, len(m.log)-15):], "\n    "))
}

func (m *persistModel) now() time.Duration { return time.Duration(m.s.now) }

// send returns the destination of what a packet became, or why it went nowhere.
func (m *persistModel) send(text string) string {
	m.log = append(m.log, text)
	m.s.arrive("", text)
	v := m.s.verdict
	m.s.verdict, m.s.made, m.s.madeBy = nil, nil, nil
	if v.Action != Forward {
		return v.Reason.String()
	}
	return strings.Fields(decodePacket(m.s.packet.Data, Offload{}))[3]
}

// open has a client open a connection, and leaves some of them half open.
func (m *persistModel) open() {
	v := modelServices[m.r.IntN(len(modelServices))]
	last := 32 + m.r.IntN(8)
	m.port++
	client := fmt.Sprintf("192.168.88.%d:%d", last, m.port)
	virtual := v.virtual
	if strings.Contains(virtual, "%") {
		virtual = fmt.Sprintf(virtual, 1000+m.r.IntN(3))
	}
	who := fmt.Sprintf("192.168.88.%d:0", last-last%v.mask)
	var t *modelTemplate
	if i := slices.IndexFunc(m.templates, func(t *modelTemplate) bool { return t.service == v && t.client == who }); i >= 0 {
		t = m.templates[i]
		if m.gone[v.of+t.server] || m.quiescent && m.weight[v.of+t.server] == 0 {
			m.retired = append(m.retired, t)
			m.templates = slices.Delete(m.templates, i, i+1)
			t = nil
		}
	}
	dest := m.send(fmt.Sprintf("tcp %s > %s S seq=5000", client, virtual))
	server, port, _ := strings.Cut(dest, ":")
	switch {
	case t != nil && server != t.server:
		m.fatal("%s got %s; its server is %s", client, dest, t.server)
	case t == nil && dest == "no-server":
		return
	case m.gone[v.of+server] || t == nil && m.weight[v.of+server] == 0:
		m.fatal("%s was given to %s", client, dest)
	case port != strings.TrimPrefix(v.port, ":") && (v.port != ":0" || !strings.HasSuffix(virtual, ":"+port)):
		m.fatal("%s arrived at port %s", virtual, port)
	}
	if t == nil {
		t = &modelTemplate{service: v, client: who, server: server, life: v.life}
		m.templates = append(m.templates, t)
	}
	t.deadline = m.now() + t.life
	c := &modelChild{client, virtual, dest, m.now() + time.Minute, t}
	t.children = append(t.children, c)
	if m.r.IntN(4) > 0 {
		m.send(fmt.Sprintf("tcp %s > %s SA seq=7000 ack=5001", dest, client))
		m.send(fmt.Sprintf("tcp %s > %s A seq=5001 ack=7001", client, virtual))
		c.deadline, t.assured = m.now()+15*time.Minute, true
	}
}

// close has a server end one of its connections, deleted or not.
func (m *persistModel) close() {
	for _, t := range slices.Concat(m.templates, m.retired) {
		for _, c := range t.children {
			if m.r.IntN(8) > 0 {
				continue
			}
			if to := m.send(fmt.Sprintf("tcp %s > %s RA seq=7001 ack=5001", c.dest, c.client)); to == c.client {
				c.deadline = m.now() + 10*time.Second
			}
			return
		}
	}
}

func (m *persistModel) edit() {
	v := modelServices[m.r.IntN(len(modelServices))]
	server := fmt.Sprintf("10.0.0.%d", 2+m.r.IntN(3))
	m.s.step("of", v.of)
	step, rest := "edit-server", fmt.Sprintf("%s%s weight %d", server, v.port, m.r.IntN(2))
	switch key := v.of + server; {
	case m.gone[key]:
		step, rest = "server", server+v.port
		m.gone[key], m.weight[key] = false, 1
	case m.r.IntN(2) == 0:
		step, rest = "delete-server", server+v.port
		m.gone[key] = true
	default:
		m.weight[key] = int(rest[len(rest)-1] - '0')
	}
	m.s.step(step, rest)
	m.log = append(m.log, step+" "+v.of+" "+rest)
}

// slack is what a timer may be late by in the table.
const slack = 700 * time.Millisecond

// advance lets time go by in small steps, and compares.
func (m *persistModel) advance() {
	const often = 250 * time.Millisecond
	d := time.Duration(m.r.IntN(280)) * often
	for end := m.now() + d; m.now() < end; {
		m.s.step("advance", often.String())
		for _, t := range slices.Concat(m.templates, m.retired) {
			t.children = slices.DeleteFunc(t.children, func(c *modelChild) bool {
				over := c.deadline+slack/2 < m.now()
				t.unsure = t.unsure || over && (c.deadline-t.deadline).Abs() < slack
				return over
			})
			if m.now() < t.deadline+slack/2 || len(t.children) == 0 {
				continue
			}
			t.unsure = true
			for _, c := range t.children {
				t.unsure = t.unsure && c.deadline < t.deadline+slack
			}
			t.deadline, t.life = t.deadline+time.Minute, time.Minute
		}
	}
	m.log = append(m.log, "advance "+d.String())

	var there []ConnInfo
	for _, c := range m.s.f.Conns(ConnQuery{}).Conns {
		if c.Template {
			there = append(there, c)
		}
	}
	m.templates = slices.DeleteFunc(m.templates, func(t *modelTemplate) bool { return !m.found(t, t.service.listed, &there) })
	m.retired = slices.DeleteFunc(m.retired, func(t *modelTemplate) bool {
		listed, _, _ := strings.Cut(t.service.listed, ":")
		return !m.found(t, listed+":65535", &there)
	})
	if len(there) > 0 {
		m.fatal("the model has no %+v", there)
	}
	recount(m.t, m.s.rules, m.s.f)
}

// found looks for a template in a listing and takes it out. It reports false if
// its time may have been over.
func (m *persistModel) found(t *modelTemplate, virtual string, list *[]ConnInfo) bool {
	left := t.deadline - m.now()
	i := slices.IndexFunc(*list, func(c ConnInfo) bool {
		by := (c.Expires - left).Abs()
		if by > time.Minute-2*slack {
			by = time.Minute - by // one of the two has begun to wait for the children, the other is about to
		}
		return c.Client.String() == t.client && c.Virtual.String() == virtual && c.Dest.Addr().String() == t.server &&
			by.Abs() <= 2*slack && (c.State == conntrack.Assured) == t.assured
	})
	if i < 0 {
		if left > slack && !t.unsure {
			m.fatal("template %s %s of %s, %v left, assured %v, is not among %d", t.client, virtual, t.server, left, t.assured, len(*list))
		}
		return false
	}
	t.unsure = false
	if there := (*list)[i].Expires; there > 0 {
		if there-left > time.Minute-2*slack {
			t.life = time.Minute
		}
		t.deadline = m.now() + there // that little by which the two differ does not add up
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}

func TestPersistModel(t *testing.T) {
	for seed := range uint64(4) {
		s := newScript(t, fmt.Sprintf("seed %d", seed))
		s.max = 20_000
		m := &persistModel{
			t: t, s: s, r: rand.New(rand.NewPCG(seed, 2)), port: 1000,
			gone: map[string]bool{}, weight: map[string]int{},
		}
		for _, v := range modelServices {
			s.step("service", v.words)
			for i := 2; i <= 4; i++ {
				server := fmt.Sprintf("10.0.0.%d", i)
				s.step("server", server+v.port)
				m.weight[v.of+server] = 1
			}
		}
		s.step("mark", "1 to 192.168.88.25/32")
		s.step("icmp-rate", "1000000")
		for range 700 {
			switch n := m.r.IntN(100); {
			case n < 55:
				m.open()
			case n < 80:
				m.close()
			case n < 87:
				m.edit()
			case n < 89:
				m.quiescent = !m.quiescent
				s.step("set", map[bool]string{true: "expire_quiescent_template 1", false: "expire_quiescent_template 0"}[m.quiescent])
			default:
				m.advance()
			}
		}
		s.step("advance", "1000s")
		s.step("advance", "120s")
		recount(t, s.rules, s.f)
		if stats := s.f.Stats(); stats.Conns != 0 {
			t.Fatalf("%d entries are left", stats.Conns)
		}
		if err := s.f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
