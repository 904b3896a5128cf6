// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"errors"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// From standings to rules: weights, who is in, who stands in, and the quorum.

// A Hook is a program that a quorum runs.
type Hook struct {
	Service nat.ServiceKey
	Argv    []string
	Gained  bool
}

// Settled is what Settle has done.
type Settled struct {
	Publish bool // a server came or went: the packet loop is to hear of it
	Ramping bool // a slow start is under way, which Settle is to be called for again
	Hooks   []Hook
}

// Settle has the rules follow the standings. It goes on where something fails, which
// can only be what somebody else has put there.
func (r *Roster) Settle(now time.Time) (done Settled, err error) {
	for _, s := range r.services {
		s.panic()
		scale := s.ramp(now)
		for _, m := range s.Members {
			m.scale = scale
			publish, failed := r.follow(s, m)
			done.Publish = done.Publish || publish
			done.Ramping = done.Ramping || m.permille > 0
			err = errors.Join(err, failed)
		}
		publish, failed := r.standIn(s)
		done.Publish = done.Publish || publish
		err = errors.Join(err, failed)
		if h, ok := s.quorum(); ok {
			done.Hooks = append(done.Hooks, h)
		}
	}
	return done, err
}

// panic finds out whether too few servers are left to believe checks. Servers
// that nobody wants used, or that nobody has checked, say nothing. When none is
// left at all, one that stands in is better than ones that are all dead.
func (s *Service) panic() {
	all, left := 0, 0
	for _, m := range s.Members {
		if m.order != NoOverride || m.configured == 0 {
			continue
		}
		all++
		if !m.Failed() {
			left++
		}
	}
	on := left*100 < all*s.Checking.Panic && !(left == 0 && s.Checking.Sorry.IsValid())
	for _, m := range s.Members {
		m.panicking = on && m.Failed()
	}
}

// rise begins a slow start, if the service has one.
func (s *Service) rise(m *Member, now time.Time) {
	if s.Checking.SlowStart > 0 && config.Ramps(s.scheduler) {
		m.rose = now
	}
}

// rampWeight is what the largest weight of a service is multiplied to at least
// while a server of it is rising: a share that grows needs steps to grow by.
const rampWeight = 100

// ramp says how far each slow start has come, and by what all weights of the
// service are multiplied meanwhile.
func (s *Service) ramp(now time.Time) (scale int) {
	largest, ramping := 1, false
	for _, m := range s.Members {
		m.permille = 0
		largest = max(largest, m.configured, m.suggested)
		if m.rose.IsZero() {
			continue
		}
		if length := s.Checking.SlowStart; length > 0 && config.Ramps(s.scheduler) {
			m.permille = int(1000 * now.Sub(m.rose) / length)
		}
		if m.permille = max(m.permille, 1); m.permille >= 1000 || s.Checking.SlowStart == 0 {
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
func (r *Roster) follow(s *Service, m *Member) (publish bool, err error) {
	given, why := m.weight()
	m.why, m.shown = why, (given+m.scale-1)/m.scale
	absent := s.Checking.OnFailed == config.OnFailedRemove && m.checked && m.state == health.Down && !m.panicking && m.order == NoOverride
	switch {
	case absent && !m.absent:
		m.absent, m.given = true, 0
		return true, r.rules.DelServer(s.Key, m.spec.Addr, m.spec.Port)
	case absent:
		return false, nil
	case m.absent:
		m.absent, m.given = false, given
		return true, r.rules.AddServer(s.Key, m.inForce())
	case given != m.given:
		m.given = given
		return false, r.rules.EditServer(s.Key, m.inForce())
	}
	return false, nil
}

// inForce is the spec that the rules are to have.
func (m *Member) inForce() nat.ServerSpec {
	spec := m.spec
	spec.Weight = m.given
	return spec
}

// standIn has the sorry server in when no other can take anything, and only then.
// Afterwards it keeps the connections that it has until they are over; but clients
// that persistence would hold there it gives up at once.
func (r *Roster) standIn(s *Service) (publish bool, err error) {
	sorry := s.Checking.Sorry
	if !sorry.IsValid() {
		return false, nil
	}
	needed := len(s.Members) > 0
	for _, m := range s.Members {
		needed = needed && m.given == 0
	}
	spec := nat.ServerSpec{Addr: sorry.Addr(), Port: sorry.Port(), Weight: 1}
	switch {
	case needed && s.sorry == sorryOut:
		s.sorry = sorryIn
		return true, r.rules.AddServer(s.Key, spec)
	case needed && s.sorry == sorryLeaving:
		s.sorry = sorryIn
		return false, r.rules.EditServer(s.Key, spec)
	case !needed && s.sorry == sorryIn && s.persistent:
		r.dismiss(s)
		return true, nil
	case !needed && s.sorry == sorryIn:
		s.sorry = sorryLeaving
		spec.Weight = 0
		return false, r.rules.EditServer(s.Key, spec)
	}
	return false, nil
}

// dismiss takes the sorry server out.
func (r *Roster) dismiss(s *Service) {
	if s.sorry == sorryOut {
		return
	}
	s.sorry = sorryOut
	// An error says that somebody has deleted it.
	_ = r.rules.DelServer(s.Key, s.Checking.Sorry.Addr(), s.Checking.Sorry.Port())
}

// Tick takes out sorry servers that have no connection left. It reports whether
// there is something to publish.
func (r *Roster) Tick() (publish bool) {
	for _, s := range r.services {
		if s.sorry != sorryLeaving {
			continue
		}
		for _, info := range r.rules.Services() {
			for _, v := range info.Servers {
				if info.ServiceKey == s.Key && addressOf(&v.ServerSpec) == s.Checking.Sorry && v.Active+v.Inactive == 0 {
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
func (s *Service) quorum() (Hook, bool) {
	q := &s.Checking.Quorum
	if q.Min == 0 {
		s.quorumKnown = false
		return Hook{}, false
	}
	usable, all, unknown := 0, true, false
	for _, m := range s.Members {
		switch {
		case !m.usable() || m.shown == 0:
			all = false
		case q.Of == config.QuorumOfWeights:
			usable += m.shown
		default:
			usable++
		}
		unknown = unknown || m.checked && m.state == health.Unknown && !m.trusted
	}
	was := s.quorate && s.quorumKnown
	is := was
	switch {
	case usable >= q.Min+q.Hysteresis || usable >= q.Min && all:
		is = true
	case usable < q.Min-q.Hysteresis || usable == 0:
		is = false
	}
	if !s.quorumKnown && !is && unknown {
		return Hook{}, false // it is too early to say
	}
	known := s.quorumKnown
	s.quorate, s.quorumKnown = is, true
	switch {
	case is && !was:
		return Hook{s.Key, q.Up, true}, true
	case !is && known && was:
		return Hook{s.Key, q.Down, false}, true
	}
	return Hook{}, false
}
