// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// overflow fills the server with the highest weight and goes on to the next one
// when it is full. The weight is a capacity here: a server is full when it has
// more active connections than that, so each takes one more than its weight
// (Linux ip_vs_ovf.c). When all are full there is no choice.
type overflow struct{}

func newOverflow() Scheduler { return overflow{} }

func (overflow) Name() string { return "ovf" }

func (overflow) Pick(servers []*Server, _ *Request) *Server {
	return heaviest(servers, hasRoom)
}

func hasRoom(s *Server) bool { return s.Eligible() && s.Active() <= s.Weight() }

func (ovf overflow) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := ovf.Pick(servers, r)
	if s == nil {
		return nil, "every server has more active connections than its weight, or may not be chosen"
	}
	return s, fmt.Sprintf("%s has the highest weight, %d, of those not full (%d active)", name(s), s.Weight(), s.Active())
}
