// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// The way back of servers. With masquerading a server answers the client's address, and
// its default gateway has to be the director. Where it is another one, the answers go past
// us, the clients throw them away, and nothing says why. It is found out by two SYNs of our
// own to a server that leaves clients without an answer:
//
//	near   from an address in the server's network    answered: the server serves
//	far    from one outside of it, such as the        answered: its way back leads here
//	       virtual one
//
// Near alone answered says that the gateway is another one. Then it is named, with the
// command that sets it right, and a server with nat: auto gets full NAT. Far is asked again
// as long as that is so: when it is answered, three times in a row, the server masquerades
// again.

const (
	probeTime   = 300 * time.Millisecond // for the answer to a SYN of our own
	recheckTime = 5 * time.Second        // from one look at a wrong way back to the next
	rightAgain  = 3                      // answers in a row that end it
)

// byClients and byWayBack change something by themselves: Event.By.
const (
	byClients = "clients"
	byWayBack = "way-back"
)

// An inquiry asks a server, by SYNs of our own, why it was suspected.
type inquiry struct {
	service   nat.ServiceKey
	server    netip.AddrPort
	serial    uint64
	kind      health.SignalKind // what is suspected
	n         int               // clients that say so
	suspected bool              // there is enough reason to take it out
	trial     bool              // it is out, and shall show that it is back
	recheck   bool              // its way back was wrong
	elsewhere bool              // it serves, and answers elsewhere

	begun     time.Time
	far, near nat.Probe // zero: there is none
	dialed    bool      // near was answered, from the host's own stack
	dialing   bool
}

// askable reports whether a server can be asked by a SYN.
func askable(service nat.ServiceKey, server netip.AddrPort) bool {
	return service.Proto == nat.ProtoTCP && server.Port() != 0
}

// inquire begins one. Where nothing can be asked, what is suspected is believed.
func (d *director) inquire(q inquiry, a *account, now time.Time) {
	if !askable(q.service, q.server) {
		if q.suspected {
			d.shun(&q, now)
			a.forget()
		}
		return
	}
	q.begun = now
	network, known := d.rules.Neighbourhood(q.server.Addr())
	for _, from := range d.farFrom(q.service, network) {
		if q.far = d.shards.Probe(from, q.server); q.far != (nat.Probe{}) {
			break
		}
	}
	if known && !q.trial && !q.recheck {
		if q.near = d.shards.Probe(network.Addr(), q.server); q.near == (nat.Probe{}) {
			q.dialing = true
		}
	}
	if q.far == (nat.Probe{}) {
		if q.trial || q.suspected {
			d.heedInquiry(&q, nat.ProbeSilent, nat.ProbeSilent, now) // as if without an answer
		}
		return
	}
	started := &q
	if a != nil {
		a.busy, a.inquired = true, now
	}
	if q.dialing {
		go d.dialNear(started, network.Addr())
	}
	d.clientele.inquiries = append(d.clientele.inquiries, started)
}

// farFrom lists addresses of ours outside a server's network, that of the service first.
func (d *director) farFrom(k nat.ServiceKey, network netip.Prefix) (list []netip.Addr) {
	four := network.Addr().Is4() || !network.IsValid() && k.Addr.Is4()
	for _, own := range d.rules.Ours() {
		if own.Addr.Is4() == four && !(network.IsValid() && network.Contains(own.Addr)) {
			list = append(list, own.Addr)
		}
	}
	if i := slices.Index(list, k.Addr); i > 0 {
		list[0], list[i] = list[i], list[0]
	}
	return list
}

// dialNear asks a server from an address that the host alone has. A goroutine of its own.
func (d *director) dialNear(q *inquiry, from netip.Addr) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: probeTime}
	conn, err := dialer.Dial("tcp", q.server.String())
	if err == nil {
		_ = conn.Close() // nothing was said
	}
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		d.tell(func() { q.dialed = true })
	}
}

// hearInquiries ends those that have their answers, or had their time.
func (d *director) hearInquiries(now time.Time) {
	k := &d.clientele
	pending := k.inquiries
	k.inquiries = nil
	for _, q := range pending {
		far, near := d.shards.Probed(q.far), d.shards.Probed(q.near)
		if q.dialed {
			near = nat.ProbeAccepted
		}
		if far == nat.ProbeSilent && now.Sub(q.begun) < probeTime {
			k.inquiries = append(k.inquiries, q)
			continue
		}
		d.shards.Forget(q.far)
		d.shards.Forget(q.near)
		if a := k.accounts[q.serial]; a != nil {
			a.busy = false
		}
		d.heedInquiry(q, far, near, now)
	}
}

// heedInquiry does what follows.
func (d *director) heedInquiry(q *inquiry, far, near nat.ProbeAnswer, now time.Time) {
	a, wrong := d.clientele.accounts[q.serial], d.clientele.wrong[q.server.Addr()]
	switch {
	case q.trial:
		d.tried(q, far, now)
	case q.recheck && wrong != nil && far == nat.ProbeSilent:
		wrong.right = 0
	case q.recheck && wrong != nil:
		if wrong.right++; wrong.right >= rightAgain {
			d.wayBackRight(q.server.Addr())
		}
	case q.recheck:
	case far == nat.ProbeAccepted:
		if a != nil {
			a.forget() // some clients have a reason of their own
		}
	case far == nat.ProbeSilent && near != nat.ProbeSilent:
		q.elsewhere = true
		if wrong == nil {
			d.wayBackWrong(q.server.Addr(), now)
		}
		if d.rewrites(q) {
			if a != nil {
				a.forget() // full NAT is what it needs
			}
			return
		}
		fallthrough
	case q.suspected:
		if q.suspected {
			d.shun(q, now)
		}
		if a != nil {
			a.forget()
		}
	}
}

// rewrites reports whether a server has full NAT, or gets it by itself.
func (d *director) rewrites(q *inquiry) bool {
	m := d.roster.Member(q.service, q.server)
	return m != nil && m.Spec().Source != nat.SourceKept
}

// tried heeds what a server that is out said to a SYN of our own.
func (d *director) tried(q *inquiry, far nat.ProbeAnswer, now time.Time) {
	m := d.roster.Member(q.service, q.server)
	if m == nil || !m.Shunned() {
		return
	}
	if far == nat.ProbeAccepted {
		d.readmit(d.roster.Service(q.service), m, "it accepts connections", now)
		return
	}
	m.InVain(now)
}

// A wrongWay is a host whose answers to clients do not come back here.
type wrongWay struct {
	since time.Time
	next  time.Time // when it is looked at again
	right int       // answers in a row that say that it is over
	text  string
}

// wayBackWrong takes note of a host.
func (d *director) wayBackWrong(server netip.Addr, now time.Time) {
	network, _ := d.rules.Neighbourhood(server)
	text := wayBackText(server, network.Addr())
	d.clientele.wrong[server] = &wrongWay{since: now, next: now.Add(recheckTime), text: text}
	d.log.Warn("server answers elsewhere", "server", server, "fix", "on the server: "+gatewayCommand(network.Addr()))
	d.event(control.Event{Kind: control.EventAsymmetry, By: byWayBack, Server: netip.AddrPortFrom(server, 0), Text: text})
}

// wayBackText names what is wrong and what to do.
func wayBackText(server, gateway netip.Addr) string {
	return fmt.Sprintf("%s answers elsewhere: its gateway is not %s; on %s: %s", server, gateway, server, gatewayCommand(gateway))
}

func gatewayCommand(gateway netip.Addr) string {
	if gateway.Is6() {
		return "ip -6 route replace default via " + gateway.String()
	}
	return "ip route replace default via " + gateway.String()
}

// wayBackRight takes note that it is over.
func (d *director) wayBackRight(server netip.Addr) {
	delete(d.clientele.wrong, server)
	text := fmt.Sprintf("%s answers through here again", server)
	d.log.Info("server answers here again", "server", server)
	d.event(control.Event{Kind: control.EventAsymmetry, By: byWayBack, Server: netip.AddrPortFrom(server, 0), Text: text})
}

// watchWaysBack looks again at hosts whose way back was wrong, and forgets those that are
// no servers any more.
func (d *director) watchWaysBack(now time.Time) {
	for addr, w := range d.clientele.wrong {
		var at *inquiry
		for s := range d.roster.Services() {
			for _, m := range s.Members {
				if server := m.Server(); server.Addr() == addr && askable(s.Key, server) {
					at = &inquiry{service: s.Key, server: server, recheck: true}
				}
			}
		}
		switch {
		case at == nil:
			delete(d.clientele.wrong, addr)
		case !now.Before(w.next):
			w.next = now.Add(recheckTime)
			d.inquire(*at, nil, now)
		}
	}
}

// followWaysBack has servers with nat: auto have full NAT where their way back is wrong. It
// reports whether there is something to publish.
func (d *director) followWaysBack(services []nat.ServiceInfo) (publish bool) {
	for i := range services {
		for _, v := range services[i].Servers {
			want := d.clientele.wrong[v.Addr] != nil
			if v.Source != nat.SourceAuto || v.FullNAT == want {
				continue
			}
			if err := d.rules.SetFullNAT(services[i].ServiceKey, v.Addr, v.Port, want); err != nil {
				continue // it has just gone
			}
			publish = true
			what := "masquerades again"
			if want {
				what = "gets full NAT"
			}
			key, server := controlKey(services[i].ServiceKey), netip.AddrPortFrom(v.Addr, v.Port)
			d.changed(control.Event{
				Kind: control.EventServerEdited, By: byWayBack, Service: key, Server: server,
				Text: fmt.Sprintf("server %s of %s %s", server, key, what),
			})
		}
	}
	return publish
}

// wayBackProblems tells of hosts that answer elsewhere.
func (d *director) wayBackProblems() (list []string) {
	for _, w := range d.clientele.wrong {
		list = append(list, w.text)
	}
	slices.Sort(list)
	return list
}
