// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
)

// powerOfTwo draws two servers at random, each by its weight, and takes the one
// with the smaller load per weight (Mitzenmacher, "The power of two choices in
// randomized load balancing", 2001; Linux ip_vs_twos.c). Two suffice to keep the
// longest queue short, and directors that cannot see each other's connections do
// not all run to the same idle server.
type powerOfTwo struct{ random rand.Source }

// NewPowerOfTwo returns the scheduler twos, which takes its random numbers from a
// source: two of them for each choice. The same source, list and loads give the
// same choices. The source belongs to the scheduler and is used under the pool's
// lock.
func NewPowerOfTwo(random rand.Source) Scheduler { return &powerOfTwo{random} }

func newPowerOfTwo() Scheduler { return NewPowerOfTwo(runtimeRandom{}) }

// runtimeRandom is the runtime's generator, which nobody can predict.
type runtimeRandom struct{}

func (runtimeRandom) Uint64() uint64 { return rand.Uint64() }

func (p *powerOfTwo) Name() string { return "twos" }

func (p *powerOfTwo) Pick(servers []*Server, _ *Request) *Server {
	first, second := p.draw(servers)
	return lighter(first, second)
}

// lighter returns the server with the smaller load per weight, first if they are
// equal.
func lighter(first, second *Server) *Server {
	if first != nil && second != nil && load(first)*int64(second.Weight()) > load(second)*int64(first.Weight()) {
		return second
	}
	return first
}

// draw returns two servers, which may be the same one, or nothing.
func (p *powerOfTwo) draw(servers []*Server) (first, second *Server) {
	var total uint64
	for _, s := range servers {
		if s.Eligible() {
			total += uint64(s.Weight())
		}
	}
	if total == 0 {
		return nil, nil
	}
	at, other := p.upTo(total), p.upTo(total)
	return standing(servers, at), standing(servers, other)
}

// upTo returns a number from 0 to n, both included: the kernel's way, by which
// the first server of the list has one chance more than its weight.
func (p *powerOfTwo) upTo(n uint64) uint64 {
	hi, _ := bits.Mul64(p.random.Uint64(), n+1)
	return hi
}

// standing returns the server at a place of a row in which each takes up as much
// room as its weight. Weights may change meanwhile; then the last one has the
// rest of the row.
func standing(servers []*Server, at uint64) *Server {
	var last *Server
	for _, s := range servers {
		w := s.Weight()
		if w == 0 || s.Overloaded() {
			continue
		}
		if last = s; at <= uint64(w) {
			break
		}
		at -= uint64(w)
	}
	return last
}

func (p *powerOfTwo) Explain(servers []*Server, _ *Request, name Namer) (*Server, string) {
	first, second := p.draw(servers)
	s := lighter(first, second)
	switch {
	case s == nil:
		return nil, nobody
	case first == second:
		return s, fmt.Sprintf("drew %s twice", name(s))
	default:
		return s, fmt.Sprintf("drew %s and %s; %s is the lighter, load/weight %s to %s", name(first), name(second), name(s),
			ratio(s, load), ratio(theOther(s, first, second), load))
	}
}

func theOther(s, first, second *Server) *Server {
	if s == first {
		return second
	}
	return first
}
