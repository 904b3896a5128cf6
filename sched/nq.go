// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// neverQueue takes the first server without an active connection, however small
// its weight: nobody waits while a server is idle. If there is none it chooses as
// sed does (Linux ip_vs_nq.c).
type neverQueue struct{}

func newNeverQueue() Scheduler { return neverQueue{} }

func (neverQueue) Name() string { return "nq" }

func (neverQueue) Pick(servers []*Server, _ *Request) *Server {
	for _, s := range servers {
		if s.Eligible() && s.Active() == 0 {
			return s
		}
	}
	return leastPerWeight(servers, delay)
}

func (nq neverQueue) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := nq.Pick(servers, r)
	if s != nil && s.Active() == 0 {
		return s, fmt.Sprintf("%s is the first in the list without an active connection", name(s))
	}
	if s == nil {
		return nil, nobody
	}
	return s, "nobody is idle; " + whyLeast(servers, s, "(active+1)/weight", delay, name)
}
