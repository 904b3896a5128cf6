// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// puppet is a Dialer whose servers are up or down as it is told.
type puppet struct {
	mu   sync.Mutex
	down map[string]bool
	hang bool
}

func (p *puppet) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	hang, down := p.hang, p.down[address]
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if down {
		return nil, unix.ECONNREFUSED
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

// set takes a server down, or up again.
func (p *puppet) set(address string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[address] = down
}

func (p *puppet) tools() Tools {
	return Tools{Dialer: func(netip.Addr) (Dialer, error) { return p, nil }}
}

func target(n int, change func(*Spec)) Target {
	s := Spec{Type: TCP, Interval: time.Second, Timeout: time.Second, Limits: Limits{Rise: 2, Fall: 3}}
	if change != nil {
		change(&s)
	}
	return Target{Server: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80), Proto: 6, Spec: s}
}

// TestMonitor: the first round comes fast, a dead server is out in fall x interval
// and a timeout, and news comes once for each change.
func TestMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{down: map[string]bool{}}
		m := NewMonitor(p.tools())
		defer m.Close()
		one, two := target(1, nil), target(2, nil)
		m.Set([]Target{one, two})
		time.Sleep(firsts)
		synctest.Wait()
		for _, c := range m.List() {
			if c.State != Up || c.Good != 1 {
				t.Errorf("after the first round: %+v", c)
			}
		}
		<-m.News()

		p.set("10.0.0.2:80", true)
		begin := time.Now()
		<-m.News()
		if took := time.Since(begin); took > 3*time.Second+time.Second {
			t.Errorf("down after %v", took)
		}
		got, _ := m.Status(two.Key())
		if got.State != Down || got.Bad != 3 || got.Last.Text != "connect: connection refused" {
			t.Errorf("%+v", got)
		}
		if n := len(got.History); n != 3 || got.History[1].N != 2 || got.History[2].State != Down {
			t.Errorf("history: %+v", got.History)
		}
		if c, _ := m.Status(one.Key()); c.State != Up || c.Bad != 0 {
			t.Errorf("the other one: %+v", c)
		}

		p.set("10.0.0.2:80", false)
		begin = time.Now()
		<-m.News()
		if took := time.Since(begin); took > 2*time.Second || took < time.Second/2 {
			t.Errorf("up after %v", took)
		}
	})
}

// TestRecheck: what contradicts the state is made sure of sooner than the next interval,
// both ways, and no check is made more often once it is certain.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{down: map[string]bool{}}
		m := NewMonitor(p.tools())
		defer m.Close()
		one := target(1, func(s *Spec) { s.Interval, s.Recheck = time.Minute, time.Second })
		m.Set([]Target{one})
		<-m.News()
		for _, down := range []bool{true, false} {
			p.set("10.0.0.1:80", down)
			begin := time.Now()
			<-m.News()
			if took := time.Since(begin); took > time.Minute+2*time.Second {
				t.Errorf("down %v: certain after %v", down, took)
			}
			before, _ := m.Status(one.Key())
			time.Sleep(50 * time.Second)
			if after, _ := m.Status(one.Key()); after.Good+after.Bad != before.Good+before.Bad {
				t.Errorf("down %v: checks go on in a hurry: %d good, %d bad", down, after.Good, after.Bad)
			}
		}
	})
}

// A check that hangs ends at its time-out, and with its monitor.
func TestMonitorEndsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{hang: true}
		m := NewMonitor(p.tools())
		c := target(1, func(s *Spec) { s.Timeout = 500 * time.Millisecond })
		m.Set([]Target{c})
		time.Sleep(firsts + 600*time.Millisecond)
		synctest.Wait()
		if got, _ := m.Status(c.Key()); got.State != Down || got.Last.Text != "connect: timed out" {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Second) // in the middle of another one
		m.Close()
	})
}

// TestSignals: what clients see counts, and has the check made at once.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{down: map[string]bool{}}
		m := NewMonitor(p.tools())
		defer m.Close()
		c := target(1, func(s *Spec) { s.Interval = time.Hour })
		m.Set([]Target{c})
		<-m.News()
		synctest.Wait()

		m.Signal(Signal{Server: c.Server, Proto: 17, Kind: Silent, N: 9})
		m.Signal(Signal{Server: c.Server, Proto: 6, Kind: Answered, N: 9})
		synctest.Wait()
		if got, _ := m.Status(c.Key()); got.State != Up || got.Signals != 0 || got.Good != 1 {
			t.Errorf("of another protocol, and good ones: %+v", got)
		}
		m.Signal(Signal{Server: c.Server, Proto: 6, Kind: Silent, N: 2})
		synctest.Wait()
		if got, _ := m.Status(c.Key()); got.State != Up || got.Signals != 2 || got.Good != 2 {
			t.Errorf("two of three: %+v", got)
		}
		m.Signal(Signal{Server: c.Server, Proto: 6, Kind: Refused, N: 3, Detail: "3 RST in 1s"})
		<-m.News()
		synctest.Wait()
		got, _ := m.Status(c.Key())
		if got.State != Down || got.Signals != 5 || got.Trouble() != "clients: 3 RST in 1s" {
			t.Errorf("three: %q, %+v", got.Trouble(), got)
		}
		if i := slices.IndexFunc(got.History, func(e Event) bool { return e.Text == "clients: 3 RST in 1s" }); i < 0 {
			t.Errorf("history: %+v", got.History)
		}
	})
}

// TestReloadKeepsChecks: whatever else a reload changes, a check whose content stays
// keeps its state, counts and history, and is not made anew.
func TestReloadKeepsChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{down: map[string]bool{"10.0.0.3:80": true}}
		m := NewMonitor(p.tools())
		defer m.Close()
		random := rand.New(rand.NewPCG(1, 2))
		pool := make([]Target, 0, 12)
		for n := range 6 {
			pool = append(pool, target(n, nil), target(n, func(s *Spec) { s.Fall = 1 }))
		}
		for round := range 50 {
			var now []Target
			for _, c := range pool {
				if random.IntN(3) > 0 {
					now = append(now, c, c) // twice: two services
				}
			}
			random.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
			before := make(map[string]Status)
			for _, s := range m.List() {
				before[s.Key] = s
			}
			m.Set(now)
			after := make(map[string]Status)
			for _, s := range m.List() {
				after[s.Key] = s
			}
			for _, c := range now {
				key := c.Key()
				was, had := before[key]
				is, has := after[key]
				if !has {
					t.Fatalf("round %d: a check is missing", round)
				}
				if had && fmt.Sprint(was) != fmt.Sprint(is) {
					t.Fatalf("round %d: a check that stays is not the same:\n%+v\n%+v", round, was, is)
				}
			}
			if len(after) > len(now)/2 {
				t.Fatalf("round %d: %d checks for %d", round, len(after), len(now)/2)
			}
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
			synctest.Wait()
		}
	})
}

// TestRecall: what one monitor knows the next goes on with, through JSON, at once and
// without a check; of what is stale, with the history alone.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{down: map[string]bool{"10.0.0.2:80": true}}
		before := NewMonitor(p.tools())
		one, two := target(1, nil), target(2, nil)
		before.Set([]Target{one, two})
		time.Sleep(firsts)
		synctest.Wait()
		before.Close()
		text, err := json.Marshal(before.Memories())
		if err != nil {
			t.Fatal(err)
		}
		var kept []Memory
		if err := json.Unmarshal(text, &kept); err != nil || len(kept) != 2 {
			t.Fatalf("%d memories, %v", len(kept), err)
		}

		p.set("10.0.0.1:80", true)
		m := NewMonitor(p.tools())
		defer m.Close()
		m.Recall(kept)
		m.Set([]Target{one, two, target(3, nil)})
		for key, want := range map[string]State{one.Key(): Up, two.Key(): Down} {
			was, _ := before.Status(key)
			is, _ := m.Status(key)
			if is.State != want || !is.Since.Equal(was.Since) || is.Good != was.Good || is.Bad != was.Bad || is.Last != was.Last ||
				is.Weight != was.Weight || len(is.History) != 1 || is.History[0].Result != was.History[0].Result {
				t.Errorf("it was %+v\nand is %+v", was, is)
			}
		}
		time.Sleep(firsts)
		synctest.Wait()
		if c, _ := m.Status(one.Key()); c.State != Up || c.Bad != 1 || len(c.History) != 2 {
			t.Errorf("one failure later: %+v", c)
		}
		if c, _ := m.Status(two.Key()); c.State != Down {
			t.Errorf("a second failure later: %+v", c)
		}

		old := NewMonitor(p.tools())
		defer old.Close()
		old.Recall([]Memory{kept[0].Stale(), {Key: two.Key(), State: 9}})
		old.Set([]Target{one, two})
		if c, _ := old.Status(one.Key()); c.State != Unknown || len(c.History) != 1 || c.Good+c.Bad != 1 {
			t.Errorf("what is stale: %+v", c)
		}
		if c, _ := old.Status(two.Key()); c.State != Unknown || len(c.History) != 0 {
			t.Errorf("what can't be: %+v", c)
		}
	})
}
