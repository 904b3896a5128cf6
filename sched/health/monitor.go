// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A Monitor runs checks, each in a goroutine of its own, and keeps what they found
// out. Its methods may be called by any goroutine, and wait for no check; Close
// alone does.
type Monitor struct {
	tools Tools
	ctx   context.Context
	stop  context.CancelFunc
	news  chan struct{}
	group sync.WaitGroup

	mu       sync.Mutex
	checks   map[string]*check
	memories map[string]Memory // of checks that are not run yet
}

// A Status is where one check stands.
type Status struct {
	Target
	Key   string
	State State
	Since time.Time // of State; zero if it is unknown from the start
	Held  time.Time // it is down until then at least, for having flapped; or has passed

	Why     string // of State: the result that led to it, which may have been of clients
	Last    Result
	Weight  int           // the last one that it asked for; NoWeight: none
	Percent bool          // of the configured weight
	At      time.Time     // of Last; zero: there is none yet
	Latency time.Duration // of Last
	Good    uint64        // results since the start of the director
	Bad     uint64
	Failed  uint64  // Impossible ones
	Signals uint64  // failures that packets of clients told of
	History []Event // the newest last, at most MaxHistory
}

// Trouble is what is wrong where State is Down: what the last check found, or if that was
// good, what led there.
func (s *Status) Trouble() string {
	if s.Last.Outcome == Good {
		return s.Why
	}
	return s.Last.Text
}

// An Event is one result, or several that were the same, the first and the last.
type Event struct {
	From, At time.Time
	N        int
	Result
	State   State         // after it
	Latency time.Duration // of the last
}

// MaxHistory is how many events are kept of each check.
const MaxHistory = 16

// check is a target at work.
type check struct {
	Status
	machine machine
	checker checker
	cancel  context.CancelFunc
	kick    chan struct{} // asks for a check at once
}

// NewMonitor makes a monitor without checks.
func NewMonitor(tools Tools) *Monitor {
	ctx, stop := context.WithCancel(context.Background())
	return &Monitor{tools: tools, ctx: ctx, stop: stop, news: make(chan struct{}, 1), checks: make(map[string]*check)}
}

// News has a value when a state or a weight has changed since it was received from
// last.
func (m *Monitor) News() <-chan struct{} { return m.news }

// Set has the monitor run these checks and no others. One that it runs already goes
// on undisturbed, with its state and its history.
func (m *Monitor) Set(targets []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[string]bool, len(targets))
	for _, t := range targets {
		key := t.Key()
		wanted[key] = true
		if m.checks[key] != nil || m.ctx.Err() != nil {
			continue
		}
		c := &check{Status: Status{Target: t, Key: key, Weight: NoWeight}, machine: machine{Limits: t.Limits}, kick: make(chan struct{}, 1)}
		if memory, ok := m.memories[key]; ok {
			c.recall(memory)
			delete(m.memories, key)
		}
		var err error
		if c.checker, err = newChecker(t, m.tools); err != nil {
			c.checker = never{err} // who writes specs has asked Spec.Check
		}
		var ctx context.Context
		ctx, c.cancel = context.WithCancel(m.ctx)
		m.checks[key] = c
		m.group.Go(func() { m.run(ctx, c) })
	}
	for key, c := range m.checks {
		if !wanted[key] {
			c.cancel()
			delete(m.checks, key)
		}
	}
}

// never is a checker that cannot check.
type never struct{ err error }

func (n never) Check(context.Context) Result { return impossible("%v", n.err) }

// Close ends all checks and waits for them, which is never longer than their
// time-outs: what they wait for is closed.
func (m *Monitor) Close() {
	m.stop()
	m.group.Wait()
}

// Firsts is within what time the first check of each server is made: at once, but
// not all in the same instant.
const firsts = 250 * time.Millisecond

// run makes one check again and again, the begin of one an interval after that of
// the one before, a little more or less so that checks drift apart. What contradicts
// the state is looked at again sooner, if the check says so.
func (m *Monitor) run(ctx context.Context, c *check) {
	timer := time.NewTimer(rand.N(min(firsts, c.Interval)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.kick:
		}
		begin := time.Now()
		once, cancel := context.WithTimeout(ctx, c.Timeout)
		result := c.checker.Check(once)
		cancel()
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		pause := c.Interval - now.Sub(begin) - rand.N(c.Interval/20+1)
		if contradicted := m.report(c, result, now, now.Sub(begin)); contradicted && c.Recheck > 0 {
			pause = min(pause, c.Recheck)
		}
		timer.Reset(pause)
	}
}

// report takes a result. It reports whether it contradicts the state.
func (m *Monitor) report(c *check, r Result, now time.Time, latency time.Duration) (contradicted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	switch r.Outcome {
	case Good:
		c.Good++
		changed = c.machine.success(now)
		if r.Weight != NoWeight && (r.Weight != c.Weight || r.Percent != c.Percent) {
			c.Weight, c.Percent, changed = r.Weight, r.Percent, true
		}
	case Bad:
		c.Bad++
		changed = c.machine.failure(now, 1)
	case Impossible:
		c.Failed++
	}
	c.State, c.Since = c.machine.state, c.machine.since
	c.Held = c.machine.held
	c.Last, c.At, c.Latency = r, now, latency
	c.remember(r, now, latency)
	if changed {
		c.Why = r.Text
		m.tell()
	}
	return r.Outcome != Impossible && c.machine.contradicted()
}

// remember adds to the history.
func (c *check) remember(r Result, now time.Time, latency time.Duration) {
	if n := len(c.History); n > 0 {
		if last := &c.History[n-1]; last.Result == r && last.State == c.State {
			last.At, last.Latency = now, latency
			last.N++
			return
		}
	}
	if len(c.History) == MaxHistory {
		c.History = slices.Delete(c.History, 0, 1)
	}
	c.History = append(c.History, Event{From: now, At: now, N: 1, Result: r, State: c.State, Latency: latency})
}

func (m *Monitor) tell() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// Signal implements Listener. A failure counts for each check of the server, and
// has it made at once. That clients were answered is no success of a check, which
// may ask for more than an answer.
func (m *Monitor) Signal(s Signal) {
	if s.Kind == Answered {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, c := range m.checks {
		if c.Server != s.Server || c.Proto != 0 && c.Proto != s.Proto {
			continue
		}
		c.Signals += uint64(max(s.N, 1))
		changed := c.machine.failure(now, s.N)
		c.State, c.Since = c.machine.state, c.machine.since
		c.Held = c.machine.held
		seen := bad("clients: %s", cmp.Or(s.Detail, s.Kind.String()))
		c.remember(seen, now, 0)
		if changed {
			c.Why = seen.Text
			m.tell()
		}
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// Status returns where a check stands; false if there is none of that key.
func (m *Monitor) Status(key string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.checks[key]
	if c == nil {
		return Status{}, false
	}
	return c.copy(), true
}

// List returns all checks, by server and type.
func (m *Monitor) List() []Status {
	m.mu.Lock()
	list := make([]Status, 0, len(m.checks))
	for _, c := range m.checks {
		list = append(list, c.copy())
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(a.Server.Compare(b.Server), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Key, b.Key))
	})
	return list
}

func (c *check) copy() Status {
	s := c.Status
	s.History = slices.Clone(s.History)
	return s
}

// Brief is Status without the history.
func (m *Monitor) Brief(key string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.checks[key]
	if c == nil {
		return Status{}, false
	}
	s := c.Status
	s.History = nil
	return s, true
}
