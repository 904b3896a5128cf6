// SPDX-License-Identifier: Apache-2.0

package sched

// weightedLeastConn takes the server with the smallest load per weight (Linux
// ip_vs_wlc.c). It is the scheduler of a service that names none.
type weightedLeastConn struct{}

func newWeightedLeastConn() Scheduler { return weightedLeastConn{} }

func (weightedLeastConn) Name() string { return "wlc" }

// Pick compares a/b with c/d as a·d with c·b: exact, and without a division.
func (weightedLeastConn) Pick(servers []*Server, _ *Request) *Server {
	var least *Server
	var leastLoad, leastWeight int64
	for _, s := range servers {
		if !s.Eligible() {
			continue
		}
		l, w := load(s), int64(s.Weight())
		if least == nil || leastLoad*w > l*leastWeight {
			least, leastLoad, leastWeight = s, l, w
		}
	}
	return least
}
