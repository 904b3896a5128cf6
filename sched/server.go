// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"net/netip"
	"sync/atomic"
)

// A Server is what a scheduler sees of a real server. All methods may be called
// by any goroutine at any time; none of them locks or allocates. A Server must
// not be copied.
type Server struct {
	// Addr is where the real server listens. It never changes.
	Addr netip.AddrPort
	// Slot is the owner's number for the server, set before the server is put
	// into a Pool; schedulers do not look at it.
	Slot uint32

	weight     atomic.Int32
	lastWeight atomic.Int32  // written by the Pool
	thresholds atomic.Uint64 // upper<<32 | lower
	conns      atomic.Uint64 // a load word, below
	templates  atomic.Int32
}

// The load word: one word, so that the flag is always decided on the very counts
// it is stored with. Were they apart, an opening and a closing shard could store
// their flags in the wrong order and leave a server overloaded that has no
// connection left to clear it.
//
//	63        62 … 32   31 … 0
//	overload  active    inactive
const (
	overloadFlag = 1 << 63
	oneActive    = 1 << 32
	oneInactive  = 1
	activeMask   = 1<<31 - 1
)

// NewServer returns a server without connections and without thresholds.
// Weight is at least 0; 0 means that no scheduler chooses it (quiesced).
func NewServer(addr netip.AddrPort, weight int) *Server {
	s := &Server{Addr: addr}
	s.SetWeight(weight)
	return s
}

// Weight returns the server's share, at least 0; 0 means quiesced.
func (s *Server) Weight() int { return int(s.weight.Load()) }

// LastWeight returns the weight with which the server was added to its pool or,
// later, the last one above 0: what it had before it was quiesced.
func (s *Server) LastWeight() int { return int(s.lastWeight.Load()) }

// Active returns the number of connections in an active state.
func (s *Server) Active() int { return activeIn(s.conns.Load()) }

// Inactive returns the number of connections in any other state.
func (s *Server) Inactive() int { return inactiveIn(s.conns.Load()) }

// Conns returns both counts as they were at one instant.
func (s *Server) Conns() (active, inactive int) {
	w := s.conns.Load()
	return activeIn(w), inactiveIn(w)
}

// Overloaded reports whether the server reached its upper threshold and has not
// yet fallen below its lower one. No scheduler chooses an overloaded server.
func (s *Server) Overloaded() bool { return s.conns.Load()&overloadFlag != 0 }

// Eligible reports whether a scheduler may choose the server at all: it has a
// weight and is not overloaded.
func (s *Server) Eligible() bool { return !s.Overloaded() && s.Weight() > 0 }

// SetWeight changes the weight; below 0 counts as 0. For a server in a pool use
// [Pool.SetWeight], which tells the scheduler too.
func (s *Server) SetWeight(w int) { s.weight.Store(int32(min(max(w, 0), 1<<31-1))) }

// SetThresholds limits the server's connections, active and inactive together.
// The connection that reaches upper is accepted and sets the overload flag; it is
// cleared when the number falls below lower or, if lower is 0, below three
// quarters of upper. An upper of 0 means no limit. The caller sees to it that
// lower is not above upper.
//
// A change of either decides the flag anew, by the connections that there are:
// at upper or above it is set, and below what clears it it is cleared (Linux
// ip_vs_ctl.c, __ip_vs_update_dest, as of 6.1.187; older kernels leave that to the
// next connection).
func (s *Server) SetThresholds(upper, lower int) {
	u, l := uint64(uint32(max(upper, 0))), uint64(uint32(max(lower, 0)))
	t := u<<32 | l
	if s.thresholds.Swap(t) == t {
		return
	}
	for {
		old := s.conns.Load()
		w := old
		switch n := total(w); {
		case u != 0 && n >= u:
			w |= overloadFlag
		case u == 0 || relieved(n, t):
			w &^= overloadFlag
		}
		if s.conns.CompareAndSwap(old, w) {
			return
		}
	}
}

// Thresholds returns what SetThresholds set.
func (s *Server) Thresholds() (upper, lower int) {
	t := s.thresholds.Load()
	return int(t >> 32), int(uint32(t))
}

// ConnOpened counts a new connection, as inactive.
func (s *Server) ConnOpened() {
	for {
		old := s.conns.Load()
		w := old + oneInactive
		if upper := s.thresholds.Load() >> 32; upper != 0 && total(w) >= upper {
			w |= overloadFlag
		}
		if s.conns.CompareAndSwap(old, w) {
			return
		}
	}
}

// ConnActivated moves one connection from inactive to active.
func (s *Server) ConnActivated() { s.conns.Add(oneActive - oneInactive) }

// ConnDeactivated moves one connection from active to inactive.
func (s *Server) ConnDeactivated() { s.conns.Add(^uint64(oneActive-oneInactive) + 1) }

// ConnClosedActive forgets a connection that was counted active.
func (s *Server) ConnClosedActive() { s.closed(oneActive) }

// ConnClosedInactive forgets a connection that was counted inactive.
func (s *Server) ConnClosedInactive() { s.closed(oneInactive) }

func (s *Server) closed(one uint64) {
	for {
		old := s.conns.Load()
		w := old - one
		if w&overloadFlag != 0 && relieved(total(w), s.thresholds.Load()) {
			w &^= overloadFlag
		}
		if s.conns.CompareAndSwap(old, w) {
			return
		}
	}
}

// TemplateOpened counts a new persistence template, which is no connection and no
// load.
func (s *Server) TemplateOpened() { s.templates.Add(1) }

// TemplateClosed forgets a template.
func (s *Server) TemplateClosed() { s.templates.Add(-1) }

// Templates returns the number of persistence templates.
func (s *Server) Templates() int { return int(s.templates.Load()) }

// relieved reports whether n connections clear the flag (Linux ip_vs_conn.c,
// ip_vs_unbind_dest).
func relieved(n, thresholds uint64) bool {
	upper, lower := thresholds>>32, uint64(uint32(thresholds))
	switch {
	case lower != 0:
		return n < lower
	case upper != 0:
		return 4*n < 3*upper
	default:
		return true
	}
}

func activeIn(w uint64) int   { return int(w >> 32 & activeMask) }
func inactiveIn(w uint64) int { return int(uint32(w)) }
func total(w uint64) uint64   { return w>>32&activeMask + uint64(uint32(w)) }
