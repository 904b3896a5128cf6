// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// A Roster is what is configured of services and servers, beside what of it is in
// force: in its rules a server has the weight that its standing gives it, may be
// missing for having failed, and another may stand in for all of them. Every change
// of services and servers goes by the roster, and Settle has the rules follow.
//
// One goroutine owns it, together with the rules. Methods with the name of one of nat.Rules
// do the same, and return the same errors.
type Roster struct {
	rules    *nat.Rules
	services map[nat.ServiceKey]*Service
	changed  bool // see Changed
}

// A Service is a service with what checks mean to it. Only the roster changes it.
type Service struct {
	Key      nat.ServiceKey
	Checking config.Checking
	Members  []*Member // in the order in which they were added

	scheduler   string
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

// A Member is a server of a service.
type Member struct {
	standing
	shunning
	spec   nat.ServerSpec // as configured; of its weight standing knows
	absent bool           // failed, and taken out of the rules
	late   bool           // it came while others served
	rose   time.Time      // when its slow start began, or zero
	given  int            // its weight in the rules
	shown  int            // the same in terms of what is configured
	why    string         // it is not the configured one

	targets []health.Target
	keys    []string // of targets
}

// New makes a roster of rules that are empty.
func New(rules *nat.Rules) *Roster {
	return &Roster{rules: rules, services: make(map[nat.ServiceKey]*Service)}
}

// AddService adds a service, of whose servers nothing is checked yet.
func (r *Roster) AddService(spec nat.ServiceSpec) error {
	if err := r.rules.AddService(spec); err != nil {
		return err
	}
	r.services[spec.ServiceKey] = &Service{
		Key: spec.ServiceKey, scheduler: spec.Scheduler, persistent: spec.Persistence.Timeout > 0,
	}
	return nil
}

// EditService leaves checks as they are.
func (r *Roster) EditService(spec nat.ServiceSpec) error {
	if err := r.rules.EditService(spec); err != nil {
		return err
	}
	s := r.services[spec.ServiceKey]
	s.scheduler, s.persistent = spec.Scheduler, spec.Persistence.Timeout > 0
	return nil
}

// DelService deletes the checks of a service with it.
func (r *Roster) DelService(k nat.ServiceKey) error {
	if err := r.rules.DelService(k); err != nil {
		return err
	}
	r.changed = r.changed || len(r.services[k].Members) > 0
	delete(r.services, k)
	return nil
}

// Clear deletes all services.
func (r *Roster) Clear() {
	r.rules.Clear()
	clear(r.services)
	r.changed = true
}

// Rules are those that follow the roster. Services and servers of them are changed by the
// roster alone.
func (r *Roster) Rules() *nat.Rules { return r.rules }

// Services are all, in no order.
func (r *Roster) Services() iter.Seq[*Service] { return maps.Values(r.services) }

// Service returns a service, or nil.
func (r *Roster) Service(k nat.ServiceKey) *Service { return r.services[k] }

// Member returns a server of a service, or nil.
func (r *Roster) Member(k nat.ServiceKey, server netip.AddrPort) *Member {
	_, m, _ := r.member(k, server)
	return m
}

// member returns a server with its service, or which of them is not there.
func (r *Roster) member(k nat.ServiceKey, server netip.AddrPort) (*Service, *Member, error) {
	s := r.services[k]
	if s == nil {
		return nil, nil, nat.ErrNotDefined
	}
	m := s.find(server)
	if m == nil {
		return nil, nil, nat.ErrNoServer
	}
	return s, m, nil
}

func (s *Service) find(server netip.AddrPort) *Member {
	if i := slices.IndexFunc(s.Members, func(m *Member) bool { return m.Server() == server }); i >= 0 {
		return s.Members[i]
	}
	return nil
}

// StandsIn reports whether the sorry server takes what comes.
func (s *Service) StandsIn() bool { return s.sorry == sorryIn }

// Server is its address.
func (m *Member) Server() netip.AddrPort { return addressOf(&m.spec) }

func addressOf(s *nat.ServerSpec) netip.AddrPort { return netip.AddrPortFrom(s.Addr, s.Port) }

// Spec is what is configured of it.
func (m *Member) Spec() nat.ServerSpec {
	spec := m.spec
	spec.Weight = m.configured
	return spec
}

// InForce is its weight in the rules, in terms of the configured one while a slow start
// multiplies all, and why it is another one: a word or two for people.
func (m *Member) InForce() (weight int, why string) { return m.shown, m.why }

// State is that of all its checks together; Unknown if it has none, or they have no result
// yet.
func (m *Member) State() health.State { return m.state }

// Checked reports whether it has a check.
func (m *Member) Checked() bool { return m.checked }

// Keys are those of its checks; not to be changed.
func (m *Member) Keys() []string { return m.keys }

// AddServer adds a server that gets nothing before its checks allow it.
func (r *Roster) AddServer(k nat.ServiceKey, spec nat.ServerSpec) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	if s.find(addressOf(&spec)) != nil {
		return nat.ErrServerExists
	}
	if s.sorry != sorryOut && s.Checking.Sorry == addressOf(&spec) {
		r.dismiss(s)
	}
	m := &Member{spec: spec, standing: standing{configured: spec.Weight, suggested: health.NoWeight}}
	s.check(m)
	m.late = !m.healthy() && slices.ContainsFunc(s.Members, func(m *Member) bool { return m.given > 0 })
	m.given, m.why = m.weight()
	m.shown = m.given
	spec.Weight = m.given
	if err := r.rules.AddServer(k, spec); err != nil {
		return err
	}
	s.Members = append(s.Members, m)
	r.changed = r.changed || m.checked
	return nil
}

// EditServer replaces what is configured of a server.
func (r *Roster) EditServer(k nat.ServiceKey, spec nat.ServerSpec) error {
	_, m, err := r.member(k, addressOf(&spec))
	if err != nil {
		return err
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
func (r *Roster) DelServer(k nat.ServiceKey, addr netip.Addr, port uint16) error {
	s, m, err := r.member(k, netip.AddrPortFrom(addr, port))
	if err != nil {
		return err
	}
	if !m.absent {
		if err := r.rules.DelServer(k, addr, port); err != nil {
			return err
		}
	}
	s.Members = slices.DeleteFunc(s.Members, func(o *Member) bool { return o == m })
	r.changed = r.changed || m.checked
	return nil
}

// SetChecking replaces what is checked of a service, and what follows. A server that
// was used goes on being used until the first result of a new check.
func (r *Roster) SetChecking(k nat.ServiceKey, c config.Checking) error {
	s := r.services[k]
	if s == nil {
		return nat.ErrNotDefined
	}
	if c.Sorry != s.Checking.Sorry {
		r.dismiss(s)
	}
	if !reflect.DeepEqual(c.Quorum, s.Checking.Quorum) {
		s.quorumKnown = false
	}
	s.Checking = c
	for _, m := range s.Members {
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
func (r *Roster) Arrange(services []nat.ServiceKey, servers [][]netip.AddrPort, snats []netip.Prefix) {
	r.rules.Arrange(services, servers, snats)
	for i, k := range services {
		if s := r.services[k]; s != nil {
			slices.SortStableFunc(s.Members, func(a, b *Member) int {
				return cmp.Compare(rank(servers[i], a), rank(servers[i], b))
			})
		}
	}
}

// rank is where a member stands in a list; what is not there is behind it.
func rank(list []netip.AddrPort, m *Member) int {
	if i := slices.Index(list, m.Server()); i >= 0 {
		return i
	}
	return len(list)
}

// Order has an operator's word count for a server.
func (r *Roster) Order(k nat.ServiceKey, server netip.AddrPort, o Override) error {
	_, m, err := r.member(k, server)
	if err != nil {
		return err
	}
	m.order = o
	return nil
}
