// SPDX-License-Identifier: Apache-2.0

package sched

// weightedLeastConn takes the server with the smallest load per weight (Linux
// ip_vs_wlc.c). It is the scheduler of a service that names none.
type weightedLeastConn struct{}

func newWeightedLeastConn() Scheduler { return weightedLeastConn{} }

func (weightedLeastConn) Name() string { return "wlc" }

func (weightedLeastConn) Pick(servers []*Server, _ *Request) *Server {
	return leastPerWeight(servers, load)
}

// leastPerWeight returns the server whose cost is smallest for its weight, of
// equals the first, among those that may be chosen; nil if there are none. It
// compares a/b with c/d as a·d with c·b: exact, and without a division.
func leastPerWeight(servers []*Server, cost func(*Server) int64) *Server {
	var least *Server
	var leastCost, leastWeight int64
	for _, s := range servers {
		if !s.Eligible() {
			continue
		}
		c, w := cost(s), int64(s.Weight())
		if least == nil || leastCost*w > c*leastWeight {
			least, leastCost, leastWeight = s, c, w
		}
	}
	return least
}

func (wlc weightedLeastConn) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := wlc.Pick(servers, r)
	return s, whyLeast(servers, s, "load/weight", load, name)
}
