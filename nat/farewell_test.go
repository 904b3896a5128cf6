// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// crowd is a service with n established connections to one server.
func crowd(t *testing.T, n int, settings ...string) *script {
	t.Helper()
	s := newScript(t, "crowd")
	s.max = n + 400
	for _, name := range settings {
		s.set(name, 1)
	}
	s.step("service", "tcp 192.168.88.23:80 sched rr on-server-down reset")
	s.step("server", "10.0.0.2:80")
	f := s.forwarder()
	f.Begin(s.now)
	for i := range n {
		client := fmt.Sprintf("10%d.%d.%d.%d:40000", 1+i>>24, i>>16&255, i>>8&255, i&255)
		for _, text := range []string{
			"tcp " + client + " > 192.168.88.23:80 S seq=5000", "tcp 10.0.0.2:80 > " + client + " SA seq=7000 ack=5001",
			"tcp " + client + " > 192.168.88.23:80 A seq=5001 ack=7001",
		} {
			b, _ := encodePacket(text)
			p := Packet{Data: b}
			if b[12] == 10 {
				p.In = 1
			}
			if v := f.Forward(&p); v.Action != Forward {
				t.Fatal(text, v)
			}
		}
	}
	return s
}

// TestExpiryIsBounded: thousands of connections whose time is over together leave
// the table at once, in the portions that Sweep is told. Of what is over the rate
// nobody is told, and that is counted: nothing is told twice or later.
func TestExpiryIsBounded(t *testing.T) {
	const n, budget = 4000, 500
	s := crowd(t, n, "reset_on_expiry")
	defer s.f.Close()
	s.now = s.now.Add(901 * time.Second)
	sweeps, told := 0, 0
	for ; s.f.table.Len() > 0; sweeps++ {
		before := s.f.table.Len()
		s.f.Begin(s.now)
		s.f.Sweep(budget)
		if gone := before - s.f.table.Len(); gone > budget {
			t.Fatalf("%d entries with a budget of %d", gone, budget)
		}
		made := s.f.Outbox()
		told += len(made)
		for _, g := range made {
			if len(g.Packet.Data) != resetLen-20 || g.Verdict.Action != Forward {
				t.Fatalf("%s, %+v", decodePacket(g.Packet.Data, g.Packet.Offload), g.Verdict)
			}
		}
	}
	stats := s.f.Stats()
	if want := farewells / burstDivisor; told != want || stats.Farewells != uint64(want) {
		t.Errorf("%d told, %d counted; want %d at once", told, stats.Farewells, want)
	}
	if untold := stats.Suppressed[ReasonRateLimit]; int(untold)+told != 2*n {
		t.Errorf("%d told and %d not, of %d", told, untold, 2*n)
	}
	if stats.ExpiredOpen != n || sweeps > 2*n/budget {
		t.Errorf("%d expired open, in %d sweeps", stats.ExpiredOpen, sweeps)
	}
	recount(t, s.rules, s.f)
}

// TestServerDownTellsAll: however many connections a deleted server has, both ends
// of each are told once: what is over the rate waits.
func TestServerDownTellsAll(t *testing.T) {
	const n = 5000
	s := crowd(t, n)
	defer s.f.Close()
	s.step("delete-server", "10.0.0.2:80")
	s.rules.SetPorts(s.ports)
	s.rules.Publish()
	told, start := map[string]int{}, s.now
	for range 100 {
		s.now = s.now.Add(10 * time.Millisecond)
		s.f.Begin(s.now)
		s.f.Sweep(64)
		made := s.f.Outbox()
		if len(made) > farewells/burstDivisor {
			t.Fatalf("%d at once", len(made))
		}
		for _, g := range made {
			h, _, _ := splitFields(decodePacket(g.Packet.Data, g.Packet.Offload))
			told[h[1]+" "+h[3]]++
		}
	}
	if s.f.table.Len() != 0 || len(told) != 2*n {
		t.Errorf("%d entries left, %d ends told of %d, in %v", s.f.table.Len(), len(told), 2*n, time.Duration(s.now-start))
	}
	for end, times := range told {
		if times != 1 {
			t.Errorf("%s was told %d times", end, times)
		}
	}
	if s.f.gone.left != 0 {
		t.Errorf("%d slots to visit when all is done", s.f.gone.left)
	}
	recount(t, s.rules, s.f)
}

// TestVisitInPortions: a visit goes on where it stopped, also when more servers
// are deleted meanwhile, and looks at no more than it may.
func TestVisitInPortions(t *testing.T) {
	s := crowd(t, 1000)
	defer s.f.Close()
	s.step("server", "10.0.0.3:80")
	s.step("delete-server", "10.0.0.2:80")
	s.forwarder()
	for left := 1000; left > 0; {
		s.f.Begin(s.now)
		s.f.Sweep(2)
		was := left
		left = s.f.table.Len()
		if was-left > 2*slotsPerBudget {
			t.Fatalf("%d entries in one portion", was-left)
		}
		if was == left && s.f.gone.left == 0 {
			t.Fatalf("%d entries were not visited", left)
		}
		s.now = s.now.Add(time.Millisecond)
		if left < 500 && s.f.departed == 1 {
			s.step("delete-server", "10.0.0.3:80")
			s.forwarder()
		}
	}
	if s.f.departed != 2 {
		t.Errorf("%d servers deleted", s.f.departed)
	}
}

// TestNoAllocsFarewell: telling costs no memory.
func TestNoAllocsFarewell(t *testing.T) {
	s := crowd(t, 500, "reset_on_expiry")
	defer s.f.Close()
	s.f.farewells.setRate(1 << 20)
	for i := range s.f.table.Extent() {
		s.f.table.SetDeadline(s.f.table.At(i), s.now+conntrack.Time(i)*conntrack.Time(time.Second))
	}
	if n := testing.AllocsPerRun(100, func() {
		s.now = s.now.Add(time.Second)
		s.f.Begin(s.now)
		s.f.Sweep(64)
	}); n != 0 {
		t.Errorf("%v allocations for what expires", n)
	}
	s.step("delete-server", "10.0.0.2:80")
	s.forwarder()
	s.f.Begin(s.now) // takes up the snapshot
	before := s.f.Stats().Farewells
	if n := testing.AllocsPerRun(20, func() {
		s.f.Begin(s.now)
		s.f.Sweep(2)
	}); n != 0 {
		t.Errorf("%v allocations for a deleted server", n)
	}
	if s.f.Stats().Farewells == before {
		t.Error("nobody was told")
	}
}

// TestOutboxForFarewells: an outbox that is full of answers tells nobody, and the
// visit waits.
func TestOutboxForFarewells(t *testing.T) {
	s := crowd(t, 10)
	defer s.f.Close()
	s.step("delete-server", "10.0.0.2:80")
	s.forwarder()
	s.f.Begin(s.now)
	for s.f.outbox.room(resetLen) != nil {
		s.f.outbox.put(resetLen, Packet{}, Verdict{})
	}
	s.f.Sweep(64)
	if s.f.table.Len() != 10 {
		t.Errorf("%d of 10 entries left", s.f.table.Len())
	}
	s.f.Begin(s.now)
	s.f.Sweep(64)
	if s.f.table.Len() != 0 || len(s.f.Outbox()) != 20 {
		t.Errorf("%d entries left", s.f.table.Len())
	}
}
