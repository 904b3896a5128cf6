// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// What a connection weighs in the load that lc and wlc compare. An active one
// costs the server far more than one that only waits for its timer, and the
// kernel chose the ratio so that the sum is a shift and an addition: active·256
// plus the connections of both kinds, that is 257 to 1 (Linux ip_vs.h,
// ip_vs_dest_conn_overhead; kernels before 6.1.192 and 6.12.117 added the
// inactive ones only, 256 to 1, which differs only near ties).
const (
	activeLoad   = 257
	inactiveLoad = 1
)

// load is what the server's connections cost it: below 2⁴⁰, so that a product
// with a weight fits in 64 bits.
func load(s *Server) int64 {
	active, inactive := s.Conns()
	return activeLoad*int64(active) + inactiveLoad*int64(inactive)
}

// leastConn takes the server with the smallest load. Weight counts only as zero
// or not (Linux ip_vs_lc.c).
type leastConn struct{}

func newLeastConn() Scheduler { return leastConn{} }

func (leastConn) Name() string { return "lc" }

func (leastConn) Pick(servers []*Server, _ *Request) *Server {
	var least *Server
	var leastLoad int64
	for _, s := range servers {
		if !s.Eligible() {
			continue
		}
		if l := load(s); least == nil || l < leastLoad {
			least, leastLoad = s, l
		}
	}
	return least
}

func (lc leastConn) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s := lc.Pick(servers, r)
	if s == nil {
		return nil, nobody
	}
	return s, fmt.Sprintf("%s has the smallest load, %s", name(s), whatLoad(s))
}
