// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	if !slices.IsSorted(Names()) {
		t.Errorf("not sorted: %v", Names())
	}
	for _, name := range Names() {
		s, err := New(name)
		if err != nil || s.Name() != name {
			t.Errorf("New(%q) is %v, %v", name, s, err)
		}
	}
}

func TestUnknownScheduler(t *testing.T) {
	_, err := NewPool("nonesuch")
	if !errors.Is(err, ErrUnknown) {
		t.Fatalf("error %v", err)
	}
	for _, name := range Names() {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
	p, _ := NewPool("rr")
	if err := p.SetScheduler("nonesuch"); !errors.Is(err, ErrUnknown) || p.Scheduler() != "rr" {
		t.Errorf("error %v, scheduler %s", err, p.Scheduler())
	}
}

func TestPoolOrder(t *testing.T) {
	p, _ := NewPool("rr")
	a, b, c := testServer(2, 1), testServer(3, 1), testServer(4, 1)
	p.Add(a)
	p.Add(b)
	p.Add(c)
	p.Add(a) // there already
	if got := p.Servers(); !slices.Equal(got, []*Server{c, b, a}) {
		t.Errorf("list %v", got)
	}
	p.Remove(b)
	p.Remove(b)
	if got := p.Servers(); !slices.Equal(got, []*Server{c, a}) {
		t.Errorf("list %v", got)
	}
	p.Servers()[0] = nil
	if p.Servers()[0] != c {
		t.Error("Servers is no copy")
	}
}

// Schedulers by hash map a client, or a destination, to one server: they refuse
// it when that server may not be chosen.
var refuses = map[string]bool{"dh": true, "sh": true, "mh": true}

// No scheduler may choose a server that is quiesced or overloaded, nor fail
// while there is one left, unless it does so by design.
func TestOnlyEligible(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			p, _ := NewPool(name)
			if s := p.Schedule(&Request{}); s != nil {
				t.Fatalf("chose %v of none", s.Addr)
			}
			quiesced, full, good := testServer(2, 0), testServer(3, 9), testServer(4, 1)
			full.SetThresholds(1, 0)
			full.ConnOpened()
			p.Add(quiesced)
			p.Add(good)
			p.Add(full)
			for range 20 {
				if s := p.Schedule(&Request{}); s != good && (s != nil || !refuses[name]) {
					t.Fatalf("chose %v", s)
				}
			}
			p.SetWeight(good, 0)
			for range 20 {
				if s := p.Schedule(&Request{}); s != nil {
					t.Fatalf("chose %v, which is not eligible", s.Addr)
				}
			}
		})
	}
}

func TestScheduleDoesNotAllocate(t *testing.T) {
	for _, name := range Names() {
		p, _ := NewPool(name)
		p.SetOptions(Options{Flags: Fallback | UsePort, Expiration: time.Hour})
		for i := range byte(5) {
			p.Add(testServer(i+1, int(i)))
		}
		r := &Request{Proto: 6, Virtual: netip.MustParseAddrPort("10.1.0.0:80")}
		if n := testing.AllocsPerRun(1000, func() {
			r.Virtual = netip.AddrPortFrom(r.Virtual.Addr().Next(), 80)
			r.Now += int64(time.Minute) // lblc and lblcr: new destinations, and old ones dropped
			if s := p.Schedule(r); s != nil {
				s.ConnOpened()
				s.ConnActivated()
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Servers come and go while shards schedule.
func TestConcurrentPool(t *testing.T) {
	for _, name := range Names() {
		p, _ := NewPool(name)
		stay := testServer(2, 1)
		p.Add(stay)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 2000 {
					if p.Schedule(&Request{}) == nil && !refuses[name] {
						t.Errorf("%s: no server, though one always stays", name)
						return
					}
				}
			})
		}
		guest := testServer(3, 3)
		for i := range 200 {
			p.Add(guest)
			p.SetWeight(guest, i%4)
			p.Remove(guest)
		}
		wg.Wait()
	}
}

// Removing the very server that was chosen last leaves nobody out (ip_vs_rr.c,
// ip_vs_rr_del_dest: the cursor goes to the one before).
func TestRoundRobinRemoveLastChosen(t *testing.T) {
	for picks, want := range []string{"4 3 2", "3 2", "2 4", "4 3"} {
		r := newReplay(t, "rr")
		r.weights("1,1,1", "2,3,4")
		last := 0
		for range picks {
			r.open()
			last = r.conns[len(r.conns)-1].on
		}
		if last != 0 {
			r.remove(last)
		}
		compare(t, "after removal", r.script(t, strings.Repeat("- ", len(strings.Fields(want)))), want)
	}
}
