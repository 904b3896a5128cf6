// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// beforeHead is the place of a cursor that has not chosen anybody.
const beforeHead = -1

// roundRobin takes the servers in turn. Weight counts only as zero or not (Linux
// ip_vs_rr.c).
//
// Its place is that of the server it chose last. New servers come in before it
// and wait until the walk has gone around; if the very server it stands on is
// removed it steps back, so that nobody is left out.
type roundRobin struct {
	last int // index of the server chosen last
}

func newRoundRobin() Scheduler { return &roundRobin{last: beforeHead} }

func (rr *roundRobin) Name() string { return "rr" }

func (rr *roundRobin) Changed(_ []*Server, c Change) {
	switch c.Kind {
	case Reset:
		rr.last = beforeHead
	case Added:
		if rr.last != beforeHead {
			rr.last++
		}
	case Removed:
		if c.Index <= rr.last {
			rr.last--
		}
	}
}

// Pick walks once around, beginning after the last choice and ending with it.
// When there is none to choose the place stays as it is.
func (rr *roundRobin) Pick(servers []*Server, _ *Request) *Server {
	i := rr.last
	for range servers {
		if i++; i >= len(servers) {
			i = 0
		}
		if servers[i].Eligible() {
			rr.last = i
			return servers[i]
		}
	}
	return nil
}

func (rr *roundRobin) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	before := rr.last
	s := rr.Pick(servers, r)
	if s == nil {
		return nil, nobody
	}
	return s, fmt.Sprintf("cursor %s → next %s", place(servers, before, name), name(s)) +
		skipped(servers, before, rr.last, name)
}
