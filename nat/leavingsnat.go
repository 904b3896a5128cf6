// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// SNAT rules that are deleted while ports are mapped by them. Their connections go
// on until they end, for which the address must stay ours, and its ports must not
// become the host's. No connection begins by such a rule.
//
// Forwarders count the ports that they have mapped of an address; Rules look at the
// sums. A rule is let go when nothing has been mapped for two calls of Tick: a
// Forwarder that had not heard of the deletion may have mapped one more.

// leavingSNAT is a deleted rule.
type leavingSNAT struct {
	SNATSpec
	held  bool // its address stays ours
	quiet int  // calls of Tick without a mapping
}

// leavingTicks is how many calls of Tick a deleted rule is watched without a mapping.
const leavingTicks = 2

// mappedPorts returns the number of ports mapped of an address.
func (r *Rules) mappedPorts(a netip.Addr) *atomic.Int64 {
	n := r.mapped[a]
	if n == nil {
		n = new(atomic.Int64)
		r.mapped[a] = n
	}
	return n
}

// leave keeps a deleted rule as long as there is something to keep it for.
func (r *Rules) leave(s SNATSpec) {
	r.leaving = append(r.leaving, leavingSNAT{SNATSpec: s, held: r.mappedPorts(s.To).Load() > 0})
}

// tickSNAT lets go of rules that have nothing mapped any more, and of the numbers of
// addresses that are ours no longer.
func (r *Rules) tickSNAT() (changed bool) {
	r.leaving = slices.DeleteFunc(r.leaving, func(l leavingSNAT) bool {
		return l.quiet >= leavingTicks
	})
	for i := range r.leaving {
		l := &r.leaving[i]
		was := l.held
		if l.held = r.mappedPorts(l.To).Load() > 0; l.held {
			l.quiet = 0
		} else {
			l.quiet++
		}
		changed = changed || l.held != was
	}
	if changed {
		return true
	}
	ours := r.Ours()
	for a, n := range r.mapped {
		if n.Load() <= 0 && !slices.ContainsFunc(ours, func(o OwnAddress) bool { return o.Addr == a }) {
			delete(r.mapped, a)
		}
	}
	return false
}

// LeavingSNATs lists the deleted rules that still have connections: what comes from
// their networks must still be read, and belongs to the host if it is of none.
func (r *Rules) LeavingSNATs() []SNATSpec {
	var list []SNATSpec
	for _, l := range r.leaving {
		if l.held {
			list = append(list, l.SNATSpec)
		}
	}
	return list
}

// heldSNATs are the rules whose addresses and ports are ours.
func (r *Rules) heldSNATs() []SNATSpec {
	return slices.Concat(r.snats, r.LeavingSNATs())
}
