// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// A roster is what is configured of services and servers, beside what of it is in
// force: in its rules a server has the weight that its standing gives it, may be
// missing for having failed, and another may stand in for all of them. Every change
// of services and servers goes by the roster, and settle has the rules follow.
//
// decide owns it, as it does the rules. Methods with the name of one of nat.Rules do
// the same, and return the same errors.
type roster struct {
	rules    *nat.Rules
	services map[nat.ServiceKey]*rosterService
	changed  bool // what is checked: the monitor is to be told
}

// rosterService is a service with what checks mean to it.
type rosterService struct {
	key       nat.ServiceKey
	scheduler string
	proto     uint8
	checking  config.Checking
	members   []*member // in the order in which they were added

	sorry       sorryState
	quorate     bool
	quorumKnown bool
	persistent  bool
}

// sorryState is where the server is that stands in.
type sorryState uint8

const (
	sorryOut     sorryState = iota // it is not in the rules
	sorryIn                        // it takes what comes
	sorryLeaving                   // it keeps what it has, until that is over
)

// A member is a server of a service.
type member struct {
	standing
	spec   nat.ServerSpec // as configured; of its weight standing knows
	absent bool           // failed, and taken out of the rules
	late   bool           // it came while others served
	rose   time.Time      // when its slow start began, or zero
	given  int            // its weight in the rules
	shown  int            // the same in terms of what is configured
	why    string         // it is not the configured one

	targets []health.Target
	keys    []string // of targets

	shunning
}

func newRoster(rules *nat.Rules) *roster {
	return &roster{rules: rules, services: make(map[nat.ServiceKey]*rosterService)}
}

// AddService adds a service, of whose servers nothing is checked yet.
func (r *roster) AddService(spec nat.ServiceSpec) error {
	if err := r.rules.AddService(spec); err != nil {
		return err
	}
	r.services[spec.ServiceKey] = &rosterService{
		key: spec.ServiceKey, scheduler: spec.Scheduler, proto: spec.Proto, persistent: spec.Persistence.Timeout > 0,
	}
	return nil
}

// EditService leaves checks as they are.
func (r *roster) EditService(spec nat.ServiceSpec) error {
	if err := r.rules.EditService(spec); err != nil {
		return err
	}
	s := r.services[spec.ServiceKey]
	s.scheduler, s.persistent = spec.Scheduler, spec.Persistence.Timeout > 0
	return nil
}

// DelService deletes the checks of a service with it.
func (r *roster) DelService(k nat.ServiceKey) error {
	if err := r.rules.DelService(k); err != nil {
		return err
	}
	r.changed = r.changed || len(r.services[k].members) > 0
	delete(r.services, k)
	return nil
}

// Clear deletes all services.
func (r *roster) Clear() {
	r.rules.Clear()
	clear(r.services)
	r.changed = true
}

func (s *rosterService) find(addr netip.Addr, port uint16) (int, *member) {
	i := slices.IndexFunc(s.members, func(m *member) bool { return m.spec.Addr == addr && m.spec.Port == port })
	if i < 0 {
		return i, nil
	}
	return i, s.members[i]
}

// AddServer adds a server that gets nothing before its checks allow it.
func (r *roster) AddServer(k nat.ServiceKey, spec nat.ServerSpec) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	if _, m := s.find(spec.Addr, spec.Port); m != nil {
		return nat.ErrServerExists
	}
	if s.sorry != sorryOut && s.checking.Sorry == netip.AddrPortFrom(spec.Addr, spec.Port) {
		r.dismiss(s)
	}
	m := &member{spec: spec, standing: standing{configured: spec.Weight, suggested: health.NoWeight}}
	s.check(m)
	m.late = !m.healthy() && slices.ContainsFunc(s.members, func(m *member) bool { return m.given > 0 })
	m.given, m.why = m.weight()
	m.shown = m.given
	spec.Weight = m.given
	if err := r.rules.AddServer(k, spec); err != nil {
		return err
	}
	s.members = append(s.members, m)
	r.changed = r.changed || m.checked
	return nil
}

// EditServer replaces what is configured of a server.
func (r *roster) EditServer(k nat.ServiceKey, spec nat.ServerSpec) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	_, m := s.find(spec.Addr, spec.Port)
	if m == nil {
		return nat.ErrNoServer
	}
	edited := *m
	edited.configured = spec.Weight
	edited.given, edited.why = edited.weight()
	edited.shown = edited.given
	if !m.absent {
		inForce := spec
		inForce.Weight = edited.given
		if err := r.rules.EditServer(k, inForce); err != nil {
			return err
		}
	}
	*m = edited
	m.spec = spec
	return nil
}

// DelServer deletes a server, whether it is in the rules at the time or not.
func (r *roster) DelServer(k nat.ServiceKey, addr netip.Addr, port uint16) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	i, m := s.find(addr, port)
	if m == nil {
		return nat.ErrNoServer
	}
	if !m.absent {
		if err := r.rules.DelServer(k, addr, port); err != nil {
			return err
		}
	}
	s.members = slices.Delete(s.members, i, i+1)
	r.changed = r.changed || m.checked
	return nil
}

// SetChecking replaces what is checked of a service, and what follows. A server that
// was used goes on being used until the first result of a new check.
func (r *roster) SetChecking(k nat.ServiceKey, c config.Checking) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	if c.Sorry != s.checking.Sorry {
		r.dismiss(s)
	}
	if !reflect.DeepEqual(c.Quorum, s.checking.Quorum) {
		s.quorumKnown = false
	}
	s.checking = c
	for _, m := range s.members {
		used := m.healthy()
		s.check(m)
		if used {
			m.trusted, m.late = true, false
		}
	}
	r.changed = true
	return nil
}

// Arrange puts servers into the order that it is given for those of each service.
func (r *roster) Arrange(services []nat.ServiceKey, servers [][]netip.AddrPort, snats []netip.Prefix) {
	r.rules.Arrange(services, servers, snats)
	for i, k := range services {
		if s := r.services[k]; s != nil {
			slices.SortStableFunc(s.members, func(a, b *member) int {
				return cmp.Compare(rank(servers[i], a), rank(servers[i], b))
			})
		}
	}
}

// rank is where a member stands in a list; what is not there is behind it.
func rank(list []netip.AddrPort, m *member) int {
	if i := slices.Index(list, netip.AddrPortFrom(m.spec.Addr, m.spec.Port)); i >= 0 {
		return i
	}
	return len(list)
}

// Order has an operator's word count for a server.
func (r *roster) Order(k nat.ServiceKey, server netip.AddrPort, o override) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	_, m := s.find(server.Addr(), server.Port())
	if m == nil {
		return nat.ErrNoServer
	}
	m.order = o
	return nil
}

// check fills in what is checked of a member.
func (s *rosterService) check(m *member) {
	server := netip.AddrPortFrom(m.spec.Addr, m.spec.Port)
	m.targets, m.keys = nil, nil
	for _, spec := range s.checking.Of(server) {
		t := health.Target{Server: server, Proto: s.proto, Spec: spec}
		m.targets, m.keys = append(m.targets, t), append(m.keys, t.Key())
	}
	m.checked = len(m.targets) > 0
	m.trusted = s.checking.Start == config.StartUp
	if !m.checked {
		m.state, m.suggested, m.lowered = health.Unknown, health.NoWeight, 0
	}
}

// targets lists all checks.
func (r *roster) targets() []health.Target {
	var list []health.Target
	for _, s := range r.services {
		for _, m := range s.members {
			list = append(list, m.targets...)
		}
	}
	return list
}

// A turn is a server whose state has changed.
type turn struct {
	service nat.ServiceKey
	server  netip.AddrPort
	state   health.State
	text    string // of the result that turned it
}

// learn takes up where checks stand. status finds one by its key.
func (r *roster) learn(now time.Time, status func(key string) (health.Status, bool)) (turns []turn) {
	for _, s := range r.services {
		for _, m := range s.members {
			if !m.checked {
				continue
			}
			state, text := m.judge(status)
			if state == health.Unknown || state == m.state {
				continue // a new check of a server that is known already
			}
			if state == health.Up && (m.state == health.Down || m.late) && s.checking.SlowStart > 0 && config.Ramps(s.scheduler) {
				m.rose = now
			}
			if state == health.Down {
				m.rose = time.Time{}
			}
			m.state, m.late = state, false
			turns = append(turns, turn{s.key, netip.AddrPortFrom(m.spec.Addr, m.spec.Port), state, text})
		}
	}
	return turns
}

// judge is the state of all checks of a member together: down if one is, and up if
// all are. Weights count that checks ask for, the least one.
func (m *member) judge(status func(key string) (health.Status, bool)) (state health.State, text string) {
	state, m.suggested = health.Up, health.NoWeight
	for _, key := range m.keys {
		c, ok := status(key)
		switch {
		case !ok || c.State == health.Unknown:
			if state == health.Up {
				state = health.Unknown
			}
		case c.State == health.Down:
			state = health.Down
			text = c.Type + ": " + c.Last.Text
		case text == "":
			text = c.Type + ": " + c.Last.Text
		}
		if w := c.Weight; ok && w != health.NoWeight {
			if c.Percent {
				w = min((m.configured*w+99)/100, control.MaxWeight)
			}
			if m.suggested == health.NoWeight || w < m.suggested {
				m.suggested = w
			}
		}
	}
	return state, text
}
