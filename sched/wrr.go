// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// weightedRoundRobin gives each server its weight out of every cycle, spread out
// rather than in a row (Linux ip_vs_wrr.c).
//
// Think of the weights as columns of a bar chart and of a bar that sinks from the
// tallest column's top to the ground, by the greatest common divisor at a time.
// At each height the servers that reach up to the bar are taken in turn. Weights
// 4, 3, 2 of A, B, C:
//
//	4  A
//	3  A B
//	2  A B C
//	1  A B C      gives A AB ABC ABC
//
// A change of the list or of a weight starts the turn at the first server again
// but leaves the bar at about its height. A service that is filled one server at
// a time thus begins at height 1, since its first server could not be taller for
// the bar than its own weight.
type weightedRoundRobin struct {
	last int // index of the server chosen last
	bar  int // a server is taken if its weight is at least this
	top  int // where the bar starts from; 0: no server has a weight
	step int // greatest common divisor of the weights
}

func newWeightedRoundRobin() Scheduler { return &weightedRoundRobin{last: beforeHead} }

func (wrr *weightedRoundRobin) Name() string { return "wrr" }

func (wrr *weightedRoundRobin) Changed(servers []*Server, c Change) {
	wrr.last = beforeHead
	wrr.step, wrr.top = steps(servers)
	switch {
	case c.Kind == Reset, wrr.bar > wrr.top, wrr.bar == 0:
		wrr.bar = wrr.top
	case wrr.step > 1:
		wrr.bar = wrr.bar/wrr.step*wrr.step + 1 // onto a height that top can come down to
	}
}

// Pick ends without a choice when every server was looked at with the bar at its
// lowest: then none has a weight and room.
func (wrr *weightedRoundRobin) Pick(servers []*Server, _ *Request) *Server {
	if wrr.top == 0 {
		return nil
	}
	start, stop := wrr.last, len(servers)
	lowest, wrapped := false, false
	for i := start + 1; ; i = 0 {
		for ; i < len(servers); i++ {
			if s := servers[i]; !s.Overloaded() && s.Weight() >= wrr.bar {
				wrr.last = i
				return s
			}
			if i == stop {
				wrr.last = i
				return nil
			}
		}
		wrr.sink(servers)
		if wrr.bar <= 0 {
			wrr.bar = wrr.top
			if lowest || start == beforeHead {
				wrr.last = beforeHead
				return nil
			}
			wrapped = true
		}
		lowest = wrr.bar <= wrr.step
		if lowest && wrapped && start != beforeHead {
			// The walk began in the middle of the lowest row: only what
			// stands up to its start is left to look at.
			stop = start
		}
	}
}

// sink lowers the bar to the next row that somebody stands in, or to the lowest
// one; from there it sinks into the ground. Rows in between would be walked for
// nothing, and weights may be tens of thousands high.
func (wrr *weightedRoundRobin) sink(servers []*Server) {
	wrr.bar -= wrr.step
	if wrr.bar <= 0 {
		return
	}
	reach := 0
	for _, s := range servers {
		if !s.Overloaded() {
			reach = max(reach, s.Weight())
		}
	}
	wrr.bar = min(wrr.bar, max(reach-(wrr.step-1), 1))
}

// steps returns the greatest common divisor of the weights above 0 (1 if there
// are none), and the tallest height on its grid that the largest weight reaches.
// Heights are 1 above a multiple of the divisor, so that the lowest is 1.
func steps(servers []*Server) (step, top int) {
	largest := 0
	for _, s := range servers {
		if w := s.Weight(); w > 0 {
			step = gcd(w, step)
			largest = max(largest, w)
		}
	}
	step = max(step, 1)
	return step, largest - (step - 1)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (wrr *weightedRoundRobin) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	before, bar := wrr.last, wrr.bar
	s := wrr.Pick(servers, r)
	if s == nil {
		return nil, nobody
	}
	walk := "cursor " + place(servers, before, name)
	switch {
	case wrr.bar < bar:
		walk += fmt.Sprintf(", at the end the bar sinks from %d to %d", bar, wrr.bar)
	case wrr.bar > bar:
		walk += fmt.Sprintf(", at the end the bar goes up from %d to %d", bar, wrr.bar)
	case wrr.last <= before:
		walk += fmt.Sprintf(", at the end the bar stays at %d", bar)
	default:
		walk += fmt.Sprintf(", bar at %d", bar)
	}
	return s, fmt.Sprintf("%s → next of weight %d or more: %s", walk, wrr.bar, name(s))
}
