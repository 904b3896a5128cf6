// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"testing"

	"github.com/vsnat/vsnat/sched/health"
)

// Orders come before checks, checks before the configuration.
func TestWeight(t *testing.T) {
	plain := standing{configured: 10, suggested: -1}
	up, down, unknown := plain, plain, plain
	up.checked, up.state = true, health.Up
	down.checked, down.state = true, health.Down
	unknown.checked = true
	with := func(s standing, change func(*standing)) standing { change(&s); return s }

	for _, tt := range []struct {
		name string
		s    standing
		want int
		why  string
	}{
		{"nobody has a say", plain, 10, ""},
		{"weight 0 stays 0", with(up, func(s *standing) { s.configured = 0 }), 0, ""},
		{"up", up, 10, ""},
		{"down", down, 0, "down"},
		{"not checked yet", unknown, 0, "not checked yet"},
		{"not checked yet, trusted", with(unknown, func(s *standing) { s.trusted = true }), 10, ""},
		{"panic", with(down, func(s *standing) { s.panicking = true }), 10, "down, used in panic"},
		{"panic does not touch the good ones", with(up, func(s *standing) { s.panicking = true }), 10, ""},

		{"drained", with(up, func(s *standing) { s.order = Drained }), 0, "drained"},
		{"drained, without checks", with(plain, func(s *standing) { s.order = Drained }), 0, "drained"},
		{"drained and down", with(down, func(s *standing) { s.order = Drained }), 0, "drained"},
		{"drained in panic", with(down, func(s *standing) { s.order, s.panicking = Drained, true }), 0, "drained"},
		{"maintenance", with(up, func(s *standing) { s.order = Maintenance }), 0, "maintenance"},
		{"maintenance in panic", with(down, func(s *standing) { s.order, s.panicking = Maintenance, true }), 0, "maintenance"},

		{"suggested", with(up, func(s *standing) { s.suggested = 3 }), 3, "weight 3 by its check"},
		{"suggested 0", with(up, func(s *standing) { s.suggested = 0 }), 0, "weight 0 by its check"},
		{"suggested for a quiesced one", with(up, func(s *standing) { s.configured, s.suggested = 0, 3 }), 0, ""},
		{"suggested and down", with(down, func(s *standing) { s.suggested = 3 }), 0, "down"},
		{"suggested and drained", with(up, func(s *standing) { s.suggested, s.order = 3, Drained }), 0, "drained"},

		{"slow start", with(up, func(s *standing) { s.permille = 500 }), 5, "slow start, 50 %"},
		{"slow start begins", with(up, func(s *standing) { s.permille = 1 }), 1, "slow start, 0 %"},
		{"slow start is over", with(up, func(s *standing) { s.permille = 1000 }), 10, ""},
		{"slow start of weight 1", with(up, func(s *standing) { s.configured, s.permille = 1, 500 }), 1, ""},
		{"slow start of a suggested weight", with(up, func(s *standing) { s.suggested, s.permille = 4, 500 }), 2, "slow start, 50 %"},
		{"slow start and down", with(down, func(s *standing) { s.permille = 500 }), 0, "down"},
	} {
		if w, why := tt.s.weight(); w != tt.want || why != tt.why {
			t.Errorf("%s: %d %q, want %d %q", tt.name, w, why, tt.want, tt.why)
		}
	}
}
