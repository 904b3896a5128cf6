// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// localLeastConnReplicated is lblc with more than one server for a destination in
// demand: where lblc moves a destination off a crowded server, lblcr adds a server
// to the destination's set, and chooses as wlc does within the set (Linux
// ip_vs_lblcr.c). A set that has not changed for a day loses its most loaded
// server.
//
// All sets together hold at most four times as many servers as there can be
// destinations; beyond that a choice is not remembered.
type localLeastConnReplicated struct {
	members members
	table   locality[localSet]
	drop    func(localSet)

	element []setElement // number 0 is not used
	touched uint32       // elements ever used
	free    uint32       // first of those given back, or 0
}

// localSet is the servers of a destination, the newest first.
type localSet struct {
	head    uint32 // first element, or 0
	len     int32
	changed int64 // when a server came or went
}

type setElement struct {
	member uint32
	next   uint32 // in the set or among the free, or 0
}

func newLocalLeastConnReplicated() Scheduler {
	l := &localLeastConnReplicated{
		table:   newLocality[localSet](),
		element: make([]setElement, 4*localityLimit+1),
	}
	l.drop = l.dropSet
	return l
}

func (l *localLeastConnReplicated) Name() string { return "lblcr" }

func (l *localLeastConnReplicated) SetOptions(o Options) { l.table.setExpiration(o.Expiration) }

func (l *localLeastConnReplicated) Changed(servers []*Server, c Change) {
	l.members.update(servers, c)
}

func (l *localLeastConnReplicated) Pick(servers []*Server, r *Request) *Server {
	l.table.tick(r.Now, l.drop)
	e := l.table.find(r.Virtual.Addr())
	if e != nil {
		e.used = r.Now
		s := l.least(&e.value)
		if e.value.len > 1 && r.Now-e.value.changed > l.table.expires {
			l.shrink(&e.value, r.Now)
		}
		if s != nil && !crowded(s, servers) {
			return s
		}
	}
	s := leastPerWeight(servers, load)
	if s == nil {
		return nil
	}
	if e == nil {
		if e = l.table.insert(r.Virtual.Addr(), r.Now); e == nil {
			return s
		}
	}
	l.extend(&e.value, s, r.Now)
	return s
}

// least chooses within a set as wlc does.
func (l *localLeastConnReplicated) least(set *localSet) *Server {
	var least *Server
	var leastLoad int64
	for i := set.head; i != 0; i = l.element[i].next {
		s, listed := l.members.get(l.element[i].member)
		if !listed || !s.Eligible() {
			continue
		}
		if c := load(s); least == nil || leastLoad*int64(s.Weight()) > c*int64(least.Weight()) {
			least, leastLoad = s, c
		}
	}
	return least
}

// extend puts a server at the head of a set that does not have it.
func (l *localLeastConnReplicated) extend(set *localSet, s *Server, now int64) {
	for i := set.head; i != 0; i = l.element[i].next {
		if have, _ := l.members.get(l.element[i].member); have == s {
			return
		}
	}
	i := l.free
	switch {
	case i != 0:
		l.free = l.element[i].next
	case int(l.touched) < len(l.element)-1:
		l.touched++
		i = l.touched
	default:
		return
	}
	l.element[i] = setElement{member: l.members.hold(s), next: set.head}
	set.head, set.changed = i, now
	set.len++
}

// shrink takes the server with the highest load per weight out of a set, a removed
// one too; of equals the first. Quiesced ones stay.
func (l *localLeastConnReplicated) shrink(set *localSet, now int64) {
	var most *Server
	var mostLoad int64
	var link *uint32
	for at := &set.head; *at != 0; at = &l.element[*at].next {
		s, _ := l.members.get(l.element[*at].member)
		if s.Weight() == 0 {
			continue
		}
		if c := load(s); most == nil || mostLoad*int64(s.Weight()) < c*int64(most.Weight()) {
			most, mostLoad, link = s, c, at
		}
	}
	if most != nil {
		l.unlink(link)
		set.len--
		set.changed = now
	}
}

func (l *localLeastConnReplicated) dropSet(set localSet) {
	for set.head != 0 {
		l.unlink(&set.head)
	}
}

// unlink takes the element that a link points to out of its set.
func (l *localLeastConnReplicated) unlink(link *uint32) {
	i := *link
	l.members.release(l.element[i].member)
	*link = l.element[i].next
	l.element[i].next, l.free = l.free, i
}

func (l *localLeastConnReplicated) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	why := fmt.Sprintf("destination %s is new", r.Virtual.Addr())
	l.table.tick(r.Now, l.drop)
	if e := l.table.find(r.Virtual.Addr()); e != nil {
		of := l.listed(&e.value)
		why = fmt.Sprintf("destination %s has a set of %d", r.Virtual.Addr(), len(of))
		switch s := l.least(&e.value); {
		case s == nil:
			why += ", none of which may be chosen"
		case crowded(s, servers):
			why += ", of which the least loaded, " + name(s) + ", is " + whyCrowded(s, servers, name)
		default:
			return l.Pick(servers, r), why + ": " + whyLeast(of, s, "load/weight", load, name)
		}
	}
	s := l.Pick(servers, r)
	return s, why + "; " + whyLeast(servers, s, "load/weight", load, name)
}

// listed is the servers of a set that are in the list.
func (l *localLeastConnReplicated) listed(set *localSet) []*Server {
	var servers []*Server
	for i := set.head; i != 0; i = l.element[i].next {
		if s, ok := l.members.get(l.element[i].member); ok {
			servers = append(servers, s)
		}
	}
	return servers
}
