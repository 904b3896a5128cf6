// SPDX-License-Identifier: Apache-2.0

package sched

// shortestDelay takes the server on which the new connection would wait least:
// the smallest number of active connections, this one counted in, per weight
// (Linux ip_vs_sed.c). Unlike wlc it lets a strong idle server go before a weak
// idle one; and it does not see inactive connections at all, so that short ones
// in a row, and all of UDP, go to one server.
type shortestDelay struct{}

func newShortestDelay() Scheduler { return shortestDelay{} }

func (shortestDelay) Name() string { return "sed" }

func (shortestDelay) Pick(servers []*Server, _ *Request) *Server {
	return leastPerWeight(servers, delay)
}

// delay is the number of active connections as it would be with one more.
func delay(s *Server) int64 { return int64(s.Active()) + 1 }

func (sed shortestDelay) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := sed.Pick(servers, r)
	return s, whyLeast(servers, s, "(active+1)/weight", delay, name)
}
