// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// localLeastConn sends a destination to the server that has it already, so that
// its cache is warm, and chooses as wlc does for one that nobody has (Linux
// ip_vs_lblc.c). It is made for proxies in front of many destinations; a service
// with one address has one destination.
//
// A destination moves when its server is gone or quiesced, or crowded: more active
// connections than its weight while another has fewer than half. The overload flag
// of its server does not count, in the kernel either: a threshold is the one thing
// that lblc does not honour for a destination it knows.
type localLeastConn struct {
	members members
	table   locality[uint32]
	drop    func(uint32)
}

func newLocalLeastConn() Scheduler {
	l := &localLeastConn{table: newLocality[uint32]()}
	l.drop = l.members.release
	return l
}

func (l *localLeastConn) Name() string { return "lblc" }

func (l *localLeastConn) SetOptions(o Options) { l.table.setExpiration(o.Expiration) }

func (l *localLeastConn) Changed(servers []*Server, c Change) { l.members.update(servers, c) }

func (l *localLeastConn) Pick(servers []*Server, r *Request) *Server {
	l.table.tick(r.Now, l.drop)
	e := l.table.find(r.Virtual.Addr())
	if e != nil {
		e.used = r.Now
		if s := l.keeps(e, servers); s != nil {
			return s
		}
	}
	s := leastPerWeight(servers, load)
	switch {
	case s == nil:
		return nil
	case e != nil:
		l.members.release(e.value)
	default:
		if e = l.table.insert(r.Virtual.Addr(), r.Now); e == nil {
			return s
		}
	}
	e.value = l.members.hold(s)
	return s
}

// keeps returns the server that has the destination, unless it must move.
func (l *localLeastConn) keeps(e *localEntry[uint32], servers []*Server) *Server {
	s, listed := l.members.get(e.value)
	if listed && s.Weight() > 0 && !crowded(s, servers) {
		return s
	}
	return nil
}

func (l *localLeastConn) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	why := fmt.Sprintf("destination %s is new", r.Virtual.Addr())
	l.table.tick(r.Now, l.drop)
	if e := l.table.find(r.Virtual.Addr()); e != nil {
		s, listed := l.members.get(e.value)
		why = fmt.Sprintf("destination %s is %s's", r.Virtual.Addr(), name(s))
		switch {
		case l.keeps(e, servers) != nil:
			return l.Pick(servers, r), why
		case !listed:
			why += ", which is gone"
		case s.Weight() == 0:
			why += ", " + whyNot(s)
		default:
			why += ", " + whyCrowded(s, servers, name)
		}
	}
	s := l.Pick(servers, r)
	return s, why + "; " + whyLeast(servers, s, "load/weight", load, name)
}

func whyCrowded(s *Server, servers []*Server, name Namer) string {
	other := roomy(servers)
	return fmt.Sprintf("crowded: %d active of weight %d, while %s has %d of %d",
		s.Active(), s.Weight(), name(other), other.Active(), other.Weight())
}
