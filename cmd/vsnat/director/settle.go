// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// From standings to rules: weights, who is in, who stands in, and the quorum.

// A hook is a program that a quorum runs.
type hook struct {
	service nat.ServiceKey
	argv    []string
	gained  bool
}

// settled is what settle has done.
type settled struct {
	publish bool // a server came or went: the packet loop is to hear of it
	ramping bool // a slow start is under way, which settle is to be called for again
	hooks   []hook
}

// settle has the rules follow the standings. It goes on where something fails, which
// can only be what somebody else has put there.
func (r *roster) settle(now time.Time) (done settled, err error) {
	for _, s := range r.services {
		s.panic()
		scale := s.ramp(now)
		for _, m := range s.members {
			m.scale = scale
			publish, failed := r.follow(s, m)
			done.publish = done.publish || publish
			done.ramping = done.ramping || m.permille > 0
			err = errors.Join(err, failed)
		}
		publish, failed := r.standIn(s)
		done.publish = done.publish || publish
		err = errors.Join(err, failed)
		if h, ok := s.quorum(); ok {
			done.hooks = append(done.hooks, h)
		}
	}
	return done, err
}

// panic finds out whether too few servers are left to believe checks. Servers
// that nobody wants used, or that nobody has checked, say nothing. When none is
// left at all, one that stands in is better than ones that are all dead.
func (s *rosterService) panic() {
	all, left := 0, 0
	for _, m := range s.members {
		if m.order != noOverride || m.configured == 0 {
			continue
		}
		all++
		if !m.failed() {
			left++
		}
	}
	on := left*100 < all*s.checking.Panic && !(left == 0 && s.checking.Sorry.IsValid())
	for _, m := range s.members {
		m.panicking = on && m.failed()
	}
}

// rampWeight is what the largest weight of a service is multiplied to at least
// while a server of it is rising: a share that grows needs steps to grow by.
const rampWeight = 100

// ramp says how far each slow start has come, and by what all weights of the
// service are multiplied meanwhile.
func (s *rosterService) ramp(now time.Time) (scale int) {
	largest, ramping := 1, false
	for _, m := range s.members {
		m.permille = 0
		largest = max(largest, m.configured, m.suggested)
		if m.rose.IsZero() {
			continue
		}
		if length := s.checking.SlowStart; length > 0 && config.Ramps(s.scheduler) {
			m.permille = int(1000 * now.Sub(m.rose) / length)
		}
		if m.permille = max(m.permille, 1); m.permille >= 1000 || s.checking.SlowStart == 0 {
			m.permille, m.rose = 0, time.Time{}
			continue
		}
		ramping = true
	}
	if !ramping {
		return 1
	}
	return (rampWeight + largest - 1) / largest
}

// follow has the rules have a member as its standing wants it.
func (r *roster) follow(s *rosterService, m *member) (publish bool, err error) {
	given, why := m.weight()
	m.why, m.shown = why, (given+m.scale-1)/m.scale
	absent := s.checking.OnFailed == config.OnFailedRemove && m.checked && m.state == health.Down && !m.panicking && m.order == noOverride
	switch {
	case absent && !m.absent:
		m.absent, m.given = true, 0
		return true, r.rules.DelServer(s.key, m.spec.Addr, m.spec.Port)
	case absent:
		return false, nil
	case m.absent:
		m.absent, m.given = false, given
		return true, r.rules.AddServer(s.key, m.inForce())
	case given != m.given:
		m.given = given
		return false, r.rules.EditServer(s.key, m.inForce())
	}
	return false, nil
}

// asConfigured is the spec that the configuration has.
func (m *member) asConfigured() nat.ServerSpec {
	spec := m.spec
	spec.Weight = m.configured
	return spec
}

// inForce is the spec that the rules are to have.
func (m *member) inForce() nat.ServerSpec {
	spec := m.spec
	spec.Weight = m.given
	return spec
}

// standIn has the sorry server in when no other can take anything, and only then.
// Afterwards it keeps the connections that it has until they are over; but clients
// that persistence would hold there it gives up at once.
func (r *roster) standIn(s *rosterService) (publish bool, err error) {
	sorry := s.checking.Sorry
	if !sorry.IsValid() {
		return false, nil
	}
	needed := len(s.members) > 0
	for _, m := range s.members {
		needed = needed && m.given == 0
	}
	spec := nat.ServerSpec{Addr: sorry.Addr(), Port: sorry.Port(), Weight: 1}
	switch {
	case needed && s.sorry == sorryOut:
		s.sorry = sorryIn
		return true, r.rules.AddServer(s.key, spec)
	case needed && s.sorry == sorryLeaving:
		s.sorry = sorryIn
		return false, r.rules.EditServer(s.key, spec)
	case !needed && s.sorry == sorryIn && s.persistent:
		r.dismiss(s)
		return true, nil
	case !needed && s.sorry == sorryIn:
		s.sorry = sorryLeaving
		spec.Weight = 0
		return false, r.rules.EditServer(s.key, spec)
	}
	return false, nil
}

// dismiss takes the sorry server out.
func (r *roster) dismiss(s *rosterService) {
	if s.sorry == sorryOut {
		return
	}
	s.sorry = sorryOut
	// An error says that somebody has deleted it.
	_ = r.rules.DelServer(s.key, s.checking.Sorry.Addr(), s.checking.Sorry.Port())
}

// tick takes out sorry servers that have no connection left. It reports whether
// there is something to publish.
func (r *roster) tick() (publish bool) {
	for _, s := range r.services {
		if s.sorry != sorryLeaving {
			continue
		}
		for _, info := range r.rules.Services() {
			for _, v := range info.Servers {
				if info.ServiceKey == s.key && netip.AddrPortFrom(v.Addr, v.Port) == s.checking.Sorry && v.Active+v.Inactive == 0 {
					r.dismiss(s)
					publish = true
				}
			}
		}
	}
	return publish
}

// quorum finds out whether the service has enough servers. The first answer runs
// nothing if it is no, since nothing was lost.
func (s *rosterService) quorum() (hook, bool) {
	q := &s.checking.Quorum
	if q.Min == 0 {
		s.quorumKnown = false
		return hook{}, false
	}
	usable, unknown := 0, false
	for _, m := range s.members {
		if m.usable() && m.shown > 0 {
			usable++
		}
		unknown = unknown || m.checked && m.state == health.Unknown && !m.trusted
	}
	was := s.quorate && s.quorumKnown
	is := was
	switch {
	case usable >= q.Min+q.Hysteresis || usable >= q.Min && usable == len(s.members):
		is = true
	case usable < q.Min-q.Hysteresis || usable == 0:
		is = false
	}
	if !s.quorumKnown && !is && unknown {
		return hook{}, false // it is too early to say
	}
	known := s.quorumKnown
	s.quorate, s.quorumKnown = is, true
	switch {
	case is && !was:
		return hook{s.key, q.Up, true}, true
	case !is && known && was:
		return hook{s.key, q.Down, false}, true
	}
	return hook{}, false
}
