// SPDX-License-Identifier: Apache-2.0

package director

import (
	"time"

	"github.com/vsnat/vsnat/nat"
)

// What the packets of clients have said of one server of late, in steps.

const (
	signalSteps = 100 // that are remembered
	// answerSteps is how old a SYN is, in steps, when its answer is missed.
	answerSteps = 3

	leastSignals = 5  // that tell anything
	badShare     = 80 // of a hundred
)

// A signalStep is what a step has brought of a server.
type signalStep struct{ asked, answered, refused uint32 }

// An account is what was seen of a server.
type account struct {
	last     nat.ServerSignals
	ring     [signalSteps]signalStep
	at       int // of the newest
	met      bool
	inquired time.Time // when it was asked about last, or zero
	busy     bool      // it is asked about now
}

// add takes the sums of now.
func (a *account) add(s *nat.ServerSignals) {
	step := signalStep{uint32(s.Asked - a.last.Asked), uint32(s.Answered - a.last.Answered), uint32(s.Refused - a.last.Refused)}
	a.last = *s
	a.at = (a.at + 1) % signalSteps
	a.ring[a.at] = step
}

// step is that of i steps ago.
func (a *account) step(i int) *signalStep { return &a.ring[(a.at-i+2*signalSteps)%signalSteps] }

// forget begins anew.
func (a *account) forget() { clear(a.ring[:]) }

// refusing reports whether the server refuses, and how many it has.
func (a *account) refusing() (n int, yes bool) {
	answered, refused := 0, 0
	for i := range signalSteps {
		s := a.step(i)
		answered += int(s.answered)
		refused += int(s.refused)
		if answered+refused >= leastSignals {
			return refused, refused*100 >= badShare*(answered+refused)
		}
	}
	return refused, false
}

// silent reports whether the server does not answer, and how many wait. Answers count that
// came after the first of them, to whomever.
func (a *account) silent(least int) (n int, yes bool) {
	asked, answered := 0, 0
	for i := range answerSteps {
		s := a.step(i)
		answered += int(s.answered + s.refused)
	}
	for i := answerSteps; i < signalSteps; i++ {
		s := a.step(i)
		asked += int(s.asked)
		answered += int(s.answered + s.refused)
		if asked >= least {
			missing := max(0, asked-answered)
			return missing, missing*100 >= badShare*asked
		}
	}
	return 0, false
}
