// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// What is checked, and from results of checks to standings.

// Changed reports whether what Targets lists has changed since it was called last.
func (r *Roster) Changed() bool {
	was := r.changed
	r.changed = false
	return was
}

// check fills in what is checked of a member.
func (s *Service) check(m *Member) {
	m.targets, m.keys = nil, nil
	for _, spec := range s.Checking.Of(m.Server()) {
		t := health.Target{Server: m.Server(), Proto: s.Key.Proto, Spec: spec}
		m.targets, m.keys = append(m.targets, t), append(m.keys, t.Key())
	}
	m.checked = len(m.targets) > 0
	m.trusted = s.Checking.Start == config.StartUp
	if !m.checked {
		m.state, m.suggested = health.Unknown, health.NoWeight
	}
}

// Targets lists all checks.
func (r *Roster) Targets() []health.Target {
	var list []health.Target
	for _, s := range r.services {
		for _, m := range s.Members {
			list = append(list, m.targets...)
		}
	}
	return list
}

// A Turn is a server whose state has changed.
type Turn struct {
	Service nat.ServiceKey
	Server  netip.AddrPort
	State   health.State
	Text    string // of the result that turned it
}

// Learn takes up where checks stand. status finds one by its key.
func (r *Roster) Learn(now time.Time, status func(key string) (health.Status, bool)) (turns []Turn) {
	for _, s := range r.services {
		for _, m := range s.Members {
			if !m.checked {
				continue
			}
			state, text := m.judge(status)
			if state == health.Unknown || state == m.state {
				continue // a new check of a server that is known already
			}
			if state == health.Up && (m.state == health.Down || m.late) {
				s.rise(m, now)
			}
			if state == health.Down {
				m.rose = time.Time{}
			}
			m.state, m.late = state, false
			turns = append(turns, Turn{s.Key, m.Server(), state, text})
		}
	}
	return turns
}

// judge is the state of all checks of a member together: down if one is, and up if
// all are. Weights count that checks ask for, the least one.
func (m *Member) judge(status func(key string) (health.Status, bool)) (state health.State, text string) {
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
			text = c.Type + ": " + c.Trouble()
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
