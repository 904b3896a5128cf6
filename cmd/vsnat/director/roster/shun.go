// SPDX-License-Identifier: Apache-2.0

package roster

import "time"

// Servers that are out for what the packets of clients said. One comes back after a pause,
// and each time in vain doubles the pause. Who finds that out is not the roster's business.

const (
	firstPause = time.Second
	maxPause   = time.Minute
	// believeAgain is for how long checks that say otherwise than clients are not believed
	// once more.
	believeAgain = 30 * time.Second
	// forgiveAfter is in how many of its pauses a server that is back begins anew.
	forgiveAfter = 10
)

// A shunning is a server that is out, or was; standing.shunned says which.
type shunning struct {
	pause     time.Duration // the last one
	until     time.Time     // when it is tried again
	back      time.Time     // when it came back last, or zero
	signalled time.Time     // when its checks were told last
}

// Shunned reports whether a server is out for what clients' packets said.
func (m *Member) Shunned() bool { return m.shunned }

// Signalled notes that the checks of a server are told what clients see, and reports
// whether they were a short while ago: what they say to it then is not believed again.
func (m *Member) Signalled(now time.Time) (again bool) {
	again = now.Sub(m.signalled) < believeAgain
	m.signalled = now
	return again
}

// HasOther reports whether a service has another server than m that takes connections.
func (s *Service) HasOther(m *Member) bool {
	for _, o := range s.Members {
		if w, _ := o.weight(); o != m && w > 0 {
			return true
		}
	}
	return false
}

// Shun takes a server out, from the next Settle on, and says for how long. The last server
// of a service is not to be: its clients would gain nothing.
func (m *Member) Shun(now time.Time) (pause time.Duration) {
	if m.pause == 0 || now.Sub(m.back) > forgiveAfter*m.pause {
		m.pause = firstPause
	} else {
		m.pause = min(2*m.pause, maxPause)
	}
	m.shunned, m.until = true, now.Add(m.pause)
	m.rose = time.Time{}
	return m.pause
}

// Due reports whether a server that is out is to be tried.
func (m *Member) Due(now time.Time) bool { return !now.Before(m.until) }

// InVain notes that it was, and does not serve.
func (m *Member) InVain(now time.Time) {
	m.pause = min(2*m.pause, maxPause)
	m.until = now.Add(m.pause)
}

// Readmit has a server that was out take connections again, from the next Settle on.
func (s *Service) Readmit(m *Member, now time.Time) {
	m.shunned, m.back = false, now
	s.rise(m, now)
}
