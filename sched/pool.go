// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"slices"
	"sync"
)

// A Pool holds the servers of one virtual service and its scheduler. All methods
// may be called by any goroutine.
type Pool struct {
	mu        sync.Mutex
	scheduler Scheduler
	servers   []*Server // newest first
	options   Options
}

// NewPool returns an empty pool with a fresh scheduler of that name. The error
// is ErrUnknown, with the known names.
func NewPool(scheduler string) (*Pool, error) {
	s, err := New(scheduler)
	if err != nil {
		return nil, err
	}
	return NewPoolWith(s), nil
}

// NewPoolWith returns an empty pool that asks s, which belongs to the pool from
// here on.
func NewPoolWith(s Scheduler) *Pool {
	p := &Pool{scheduler: s}
	p.tell(Change{Kind: Reset})
	return p
}

// Scheduler returns the scheduler's name.
func (p *Pool) Scheduler() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.scheduler.Name()
}

// SetScheduler changes the scheduler. The name it already has changes nothing,
// so that the scheduler keeps its place; another starts anew (Linux ip_vs_ctl.c,
// ip_vs_edit_service). The error is ErrUnknown, and nothing is changed then.
func (p *Pool) SetScheduler(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.scheduler.Name() == name {
		return nil
	}
	s, err := New(name)
	if err != nil {
		return err
	}
	p.scheduler = s
	p.configure()
	p.tell(Change{Kind: Reset})
	return nil
}

// SetOptions replaces the options of the service, which stay when the scheduler
// changes. A scheduler that goes on keeps its place and its tables (Linux
// ip_vs_ctl.c, ip_vs_edit_service).
func (p *Pool) SetOptions(o Options) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.options = o
	p.configure()
}

func (p *Pool) configure() {
	if c, ok := p.scheduler.(Configurable); ok {
		c.SetOptions(p.options)
	}
}

// Add puts s at the head of the list. A server that is in the list stays where
// it is. The same server may come back after Remove, with the counts it has.
func (p *Pool) Add(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.servers, s) {
		return
	}
	s.lastWeight.Store(int32(s.Weight()))
	p.servers = slices.Insert(p.servers, 0, s)
	p.tell(Change{Kind: Added})
}

// Remove takes s off the list; it is not chosen any more. Its counters live on.
func (p *Pool) Remove(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.servers, s)
	if i < 0 {
		return
	}
	p.servers = slices.Delete(p.servers, i, i+1)
	p.tell(Change{Kind: Removed, Index: i})
}

// Arrange puts the servers of the list, all of which order names, into that order,
// newest first. If it is another one than before the scheduler starts over.
func (p *Pool) Arrange(order []*Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(order) == len(p.servers) && !slices.Equal(order, p.servers) {
		p.servers = slices.Clone(order)
		p.tell(Change{Kind: Reset})
	}
}

// SetWeight sets the weight of s and tells the scheduler, also if it is the same
// weight: wrr starts its walk again at each edit, as IPVS's does.
func (p *Pool) SetWeight(s *Server, w int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.SetWeight(w)
	if w = s.Weight(); w > 0 {
		s.lastWeight.Store(int32(w))
	}
	if i := slices.Index(p.servers, s); i >= 0 {
		p.tell(Change{Kind: Edited, Index: i})
	}
}

// Servers returns a copy of the list, newest first.
func (p *Pool) Servers() []*Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.servers)
}

// Schedule returns the server for a new connection, or nil if there is none. It
// does not count the connection: the caller does, with [Server.ConnOpened], once
// it exists. Schedule keeps nothing of r and does not allocate.
func (p *Pool) Schedule(r *Request) *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.scheduler.Pick(p.servers, r)
}

// Explain is Schedule with the reason, for people: it takes time and memory. The
// scheduler moves on as it does with Schedule. A nil name calls servers by their
// address and port.
func (p *Pool) Explain(r *Request, name Namer) (s *Server, why string) {
	if name == nil {
		name = func(s *Server) string { return s.Addr.String() }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.scheduler.(Explainer); ok {
		return e.Explain(p.servers, r, name)
	}
	return p.scheduler.Pick(p.servers, r), p.scheduler.Name() + " gives no reason"
}

func (p *Pool) tell(c Change) {
	if w, ok := p.scheduler.(Watcher); ok {
		w.Changed(p.servers, c)
	}
}
