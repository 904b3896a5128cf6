// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// What the packets of clients say of servers. The packet loops count (nat.ServerSignals);
// ten times a second decide reads the sums, and keeps of the last ten seconds what each
// step has brought (account.go). A server is suspected when
//
//	refused  of the last answers, five at least, four of five were refusals
//	silent   of the last SYNs that are older than answerSteps, five at least, four of five
//	         have no answer
//
// A client that does something odd must not take a server from all others: a server of TCP
// is asked by a SYN of our own before anything follows (wayback.go), from an address
// outside its network, so that a wrong way back shows as well. Of UDP nothing can be asked
// that every server would answer; there silence counts where another server of the service
// has answered meanwhile, since there are services that never answer.
//
// Of a server with checks they are told, and asked at once, and what they say counts; but
// for a wrong way back, which they cannot see, and where they contradict clients twice.
//
// A server that is out otherwise is tried again after a pause, by a SYN of our own where that can be,
// and each time in vain doubles the pause. The last server of a service is never out: its
// clients would gain nothing.

// signalsEvery is how long a step is.
const signalsEvery = 100 * time.Millisecond

// clientele is what is known by the packets of clients. decide owns it.
type clientele struct {
	accounts  map[uint64]*account // by serial of the server
	sums      []nat.ServerSignals // by slot; scratch
	inquiries []*inquiry
	wrong     map[netip.Addr]*wrongWay
}

func newClientele() clientele {
	return clientele{accounts: make(map[uint64]*account), wrong: make(map[netip.Addr]*wrongWay)}
}

// judgeClients is a step.
func (d *director) judgeClients(now time.Time) {
	k := &d.clientele
	services := d.rules.Services()
	if len(services) == 0 && len(k.accounts) == 0 {
		return
	}
	var ok bool
	if k.sums, ok = d.shards.Signals(k.sums); !ok {
		return
	}
	for i := range services {
		s := &services[i]
		for j := range s.Servers {
			if v := &s.Servers[j]; v.Replies && int(v.Slot) < len(k.sums) {
				a := k.accounts[v.Serial]
				if a == nil {
					a = &account{}
					k.accounts[v.Serial] = a
				}
				a.met = true
				a.add(&k.sums[v.Slot])
			}
		}
	}
	for i := range services {
		for j := range services[i].Servers {
			d.judge(&services[i], &services[i].Servers[j], now)
		}
	}
	for _, v := range d.rules.Leaving() { // it may come back, with its counters
		if a := k.accounts[v.Serial]; a != nil && int(v.Slot) < len(k.sums) {
			a.met = true
			a.add(&k.sums[v.Slot])
		}
	}
	for serial, a := range k.accounts {
		if !a.met {
			delete(k.accounts, serial)
		}
		a.met = false
	}
	d.hearInquiries(now)
	d.watchWaysBack(now)
	if d.followWaysBack(services) {
		d.publish()
	}
	d.retry(now)
}

// judge suspects a server if there is reason to.
func (d *director) judge(s *nat.ServiceInfo, v *nat.ServerInfo, now time.Time) {
	a := d.clientele.accounts[v.Serial]
	if a == nil || a.busy {
		return
	}
	q := inquiry{service: s.ServiceKey, server: netip.AddrPortFrom(v.Addr, v.Port), serial: v.Serial}
	if n, yes := a.refusing(); yes && s.Passive {
		q.kind, q.n, q.suspected = health.Refused, n, true
	} else if n, yes := a.silent(leastSignals); yes && s.Passive && d.answersMissed(s, v) {
		q.kind, q.n, q.suspected = health.Silent, n, true
	} else if n, yes := a.silent(1); yes && !v.FullNAT && now.Sub(a.inquired) > 2*time.Second {
		q.kind, q.n = health.Silent, n // not enough to act on, but to look whether its way back is wrong
	} else {
		return
	}
	d.inquire(q, a, now)
}

// answersMissed reports whether silence of a server tells anything: of UDP, if another one
// has answered.
func (d *director) answersMissed(s *nat.ServiceInfo, v *nat.ServerInfo) bool {
	if s.Proto != nat.ProtoUDP {
		return true
	}
	for _, other := range s.Servers {
		if a := d.clientele.accounts[other.Serial]; a != nil && other.Serial != v.Serial {
			for i := range a.ring {
				if a.ring[i].answered > 0 {
					return true
				}
			}
		}
	}
	return false
}

// shun takes a server out, and has its checks know.
func (d *director) shun(q *inquiry, now time.Time) {
	s, m := d.roster.Service(q.service), d.roster.Member(q.service, q.server)
	if m == nil || m.Shunned() {
		return
	}
	key := controlKey(q.service)
	what := fmt.Sprintf("%d clients got no answer", q.n)
	if q.kind == health.Refused {
		what = fmt.Sprintf("%d clients were refused", q.n)
	}
	if m.Checked() && !q.elsewhere {
		// A check finds it too, and when it is over. If it does not, that is not believed.
		d.monitor.Signal(health.Signal{Server: q.server, Proto: s.Key.Proto, Kind: q.kind, N: q.n, Detail: what})
		d.heard()
		if again := m.Signalled(now); m.Failed() || !again {
			return
		}
	}
	if !s.HasOther(m) {
		d.warn("last "+q.server.String(), fmt.Sprintf("server %s of %s stays, being the last", q.server, key), what)
		return
	}
	pause := m.Shun(now)
	text := fmt.Sprintf("server %s of %s is out: %s; tried again in %v", q.server, key, what, pause)
	d.log.Warn("server out", "server", q.server, "service", key.String(), "why", what, "pause", pause)
	d.event(control.Event{Kind: control.EventServerDown, Service: key, Server: q.server, By: byClients, Text: text})
	d.heard()
}

// retry looks after servers that are out.
func (d *director) retry(now time.Time) {
	for s := range d.roster.Services() {
		for _, m := range s.Members {
			if !m.Shunned() {
				continue
			}
			switch {
			case !s.HasOther(m):
				d.readmit(s, m, "no other server is left", now)
			case !m.Due(now) || d.clientele.trying(s.Key, m.Server()):
			case askable(s.Key, m.Server()):
				d.inquire(inquiry{service: s.Key, server: m.Server(), trial: true, kind: health.Silent}, nil, now)
			default:
				d.readmit(s, m, "it is tried again", now)
			}
		}
	}
}

// trying reports whether an inquiry is under way that says whether a server is back.
func (k *clientele) trying(service nat.ServiceKey, server netip.AddrPort) bool {
	return slices.ContainsFunc(k.inquiries, func(q *inquiry) bool { return q.trial && q.service == service && q.server == server })
}

// readmit has a server that was out take connections again.
func (d *director) readmit(s *roster.Service, m *roster.Member, why string, now time.Time) {
	s.Readmit(m, now)
	for serial, a := range d.clientele.accounts {
		if d.serialOf(s.Key, m.Server()) == serial {
			a.forget()
		}
	}
	key, server := controlKey(s.Key), m.Server()
	d.log.Info("server back", "server", server, "service", key.String(), "why", why)
	d.event(control.Event{Kind: control.EventServerUp, Service: key, Server: server, By: byClients, Text: fmt.Sprintf("server %s of %s is back: %s", server, key, why)})
	d.heard()
}

// serialOf is the serial of a server in the rules, 0 if it is not there.
func (d *director) serialOf(k nat.ServiceKey, server netip.AddrPort) uint64 {
	for _, s := range d.rules.Services() {
		for _, v := range s.Servers {
			if s.ServiceKey == k && v.Addr == server.Addr() && v.Port == server.Port() {
				return v.Serial
			}
		}
	}
	return 0
}

// shunProblems tells of servers that are out.
func (d *director) shunProblems() (list []string) {
	for s := range d.roster.Services() {
		for _, m := range s.Members {
			if m.Shunned() {
				list = append(list, fmt.Sprintf("server %s of %s is out, since clients got no answer from it", m.Server(), controlKey(s.Key)))
			}
		}
	}
	return list
}
