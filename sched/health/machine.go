// SPDX-License-Identifier: Apache-2.0

package health

import "time"

// State is what is known of a server, or of one check of it.
type State uint8

// The states.
const (
	Unknown State = iota // not checked yet, or it cannot be checked
	Up
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Limits are how many results in a row it takes to believe them, and how long a
// server that flaps is kept out.
type Limits struct {
	Rise int // successes until it is up, at least 1; the first of all needs one alone
	Fall int // failures until it is down, at least 1
	// HoldDown is how long a server stays down that fell again soon after it rose:
	// that long at the second fall, twice as long at the third, at most 16 times.
	// Soon is within ten times as long. 0: no longer than Rise takes.
	HoldDown time.Duration
}

// maxHold is how often the time of a hold-down is doubled.
const maxHold = 4

// A machine is where one check stands. Time is a parameter, on any clock that
// does not jump. The zero machine with Limits is Unknown; it needs no lock, and
// has none.
type machine struct {
	Limits
	state     State
	since     time.Time // of the state; zero if it never changed
	successes int       // in a row, at most Rise
	failures  int       // in a row, at most Fall
	flaps     int       // falls in a row that came soon after a rise
	held      time.Time // not up before; zero, or past, if it does not stay down for having flapped
}

// contradicted reports whether the last results say otherwise than the state, and are
// not yet enough to change it.
func (m *machine) contradicted() bool {
	return m.state == Up && m.failures > 0 || m.state == Down && m.successes > 0 && m.successes < m.Rise
}

// success takes a good result. It reports whether the state changed.
//
// The first result that a machine ever has decides at once: a start with a hundred
// servers takes one round and not Rise or Fall of them.
func (m *machine) success(now time.Time) (changed bool) {
	m.failures = 0
	m.successes = min(m.successes+1, max(m.Rise, 1))
	switch {
	case m.state == Up:
		return false
	case m.state == Down && (m.successes < m.Rise || now.Before(m.held)):
		return false
	}
	m.state, m.since = Up, now
	return true
}

// failure takes n bad results at once, at least 1. It reports whether the state
// changed.
func (m *machine) failure(now time.Time, n int) (changed bool) {
	m.successes = 0
	m.failures = min(m.failures+max(n, 1), max(m.Fall, 1))
	switch {
	case m.state == Down:
		return false
	case m.state == Up && m.failures < m.Fall:
		return false
	case m.state == Up:
		m.hold(now)
	}
	m.state, m.since = Down, now
	return true
}

// hold is called at a fall, with since the time of the rise.
func (m *machine) hold(now time.Time) {
	if m.HoldDown <= 0 || m.flaps == 0 && m.held.IsZero() || now.Sub(m.since) > 10*m.HoldDown {
		m.flaps = 0
		m.held = now // the first fall is none of a row
		return
	}
	m.held = now.Add(m.HoldDown << min(m.flaps, maxHold))
	m.flaps++
}
