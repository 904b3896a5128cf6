// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"fmt"

	"github.com/vsnat/vsnat/sched/health"
)

// The weight of a server: in one place, from all that has a say in it. What an
// operator orders comes before what checks say, and that before the configuration.

// An Override is what an operator has ordered of a server.
type Override uint8

const (
	NoOverride  Override = iota
	Drained              // no new connections; the present ones stay
	Maintenance          // the same, and checks and panic have nothing to say either
)

// A standing is all that counts for the weight of one server. Who changes a field
// of it calls the roster, which has the scheduler hear of what follows.
type standing struct {
	configured int // of the configuration, or of `server edit` since
	order      Override
	state      health.State // of all its checks together
	checked    bool         // it has a check that may take it out
	trusted    bool         // while its state is Unknown it is used
	panicking  bool         // too few servers of the service are left: checks are not believed
	suggested  int          // by a check that reads a weight; -1: none does
	shunned    bool         // what clients' packets say has taken it out; see shun.go
	permille   int          // of slow start: 0 is none, 1 to 1000 how far it has come
	// scale is what all weights of the service are multiplied by while one of its
	// servers rises slowly; 0 is 1.
	scale int
}

// usable reports whether checks and orders leave a server its connections.
func (s *standing) usable() bool { return s.order == NoOverride && s.healthy() }

// healthy reports whether checks, and what clients see, alone do.
func (s *standing) healthy() bool {
	if s.shunned {
		return false
	}
	if !s.checked {
		return true
	}
	return s.state == health.Up || s.state == health.Unknown && s.trusted
}

// WhyDown is why a server that its checks say is down has no weight.
const WhyDown = "down"

// weight returns the weight that the scheduler is to see, 0 to control.MaxWeight
// times scale, and why it is not the configured one, if it is not: a word or two
// for people.
func (s *standing) weight() (w int, why string) {
	scale := max(s.scale, 1)
	switch {
	case s.order == Maintenance:
		return 0, "maintenance"
	case s.order == Drained:
		return 0, "drained"
	case s.shunned && !s.panicking && s.state != health.Down:
		return 0, "clients got no answer"
	case !s.healthy() && !s.panicking && s.state == health.Unknown:
		return 0, "not checked yet"
	case !s.healthy() && !s.panicking:
		return 0, WhyDown
	case !s.healthy():
		return s.configured * scale, "down, used in panic"
	}
	w = s.configured
	if s.suggested >= 0 && w > 0 && s.suggested != w {
		w, why = s.suggested, fmt.Sprintf("weight %d by its check", s.suggested)
	}
	w *= scale
	if s.permille > 0 && s.permille < 1000 && w > 1 {
		w, why = max(w*s.permille/1000, 1), fmt.Sprintf("slow start, %d %%", s.permille/10)
	}
	return w, why
}

// Failed reports whether checks, or what clients see, say that it does not serve.
func (s *standing) Failed() bool { return s.shunned || s.checked && s.state == health.Down }
