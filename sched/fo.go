// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// failover takes the server with the highest weight, always: the others are its
// replacements, in the order of their weights (Linux ip_vs_fo.c).
type failover struct{}

func newFailover() Scheduler { return failover{} }

func (failover) Name() string { return "fo" }

func (failover) Pick(servers []*Server, _ *Request) *Server {
	return heaviest(servers, (*Server).Eligible)
}

// heaviest returns the server with the highest weight among those that may be
// taken; of equals the first.
func heaviest(servers []*Server, may func(*Server) bool) *Server {
	var best *Server
	for _, s := range servers {
		if may(s) && (best == nil || s.Weight() > best.Weight()) {
			best = s
		}
	}
	return best
}

func (fo failover) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := fo.Pick(servers, r)
	if s == nil {
		return nil, nobody
	}
	return s, fmt.Sprintf("%s has the highest weight, %d", name(s), s.Weight())
}
