// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// destinationRequest is a connection to the nth of many destinations.
func destinationRequest(n uint32, at time.Duration) *Request {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24+n)
	return &Request{Proto: 6, Virtual: netip.AddrPortFrom(netip.AddrFrom4(a), 80), Now: int64(at)}
}

// A localWorld is a pool with a scheduler by locality and a hand clock.
type localWorld struct {
	*Pool
	servers map[byte]*Server
	now     time.Duration
}

func newLocalWorld(t *testing.T, scheduler string, weights ...int) *localWorld {
	t.Helper()
	p, err := NewPool(scheduler)
	if err != nil {
		t.Fatal(err)
	}
	w := &localWorld{Pool: p, servers: map[byte]*Server{}}
	for i, weight := range weights {
		s := testServer(byte(2+i), weight)
		w.servers[byte(2+i)] = s
		p.Add(s)
	}
	return w
}

// ask returns the server of a connection to a destination, 0 for none.
func (w *localWorld) ask(destination uint32) byte {
	s := w.Schedule(destinationRequest(destination, w.now))
	if s == nil {
		return 0
	}
	return s.Addr.Addr().As4()[3]
}

func (w *localWorld) entries() int {
	switch s := w.Pool.scheduler.(type) {
	case *localLeastConn:
		return s.table.len
	case *localLeastConnReplicated:
		return s.table.len
	}
	return -1
}

// check compares what the table counts with what it holds.
func (w *localWorld) check(t *testing.T) {
	t.Helper()
	refs := map[uint32]int{}
	var held, elements int
	var m *members
	switch s := w.Pool.scheduler.(type) {
	case *localLeastConn:
		m = &s.members
		for _, i := range s.table.row {
			for ; i != 0; i = s.table.entry[i].next {
				refs[s.table.entry[i].value]++
				held++
			}
		}
		for i := s.table.free; i != 0; i = s.table.entry[i].next {
			held++
		}
		if held != int(s.table.touched) {
			t.Errorf("%d entries of %d", held, s.table.touched)
		}
	case *localLeastConnReplicated:
		m = &s.members
		for _, i := range s.table.row {
			for ; i != 0; i = s.table.entry[i].next {
				set, n := s.table.entry[i].value, int32(0)
				for e := set.head; e != 0; e = s.element[e].next {
					refs[s.element[e].member]++
					elements++
					n++
				}
				if n != set.len {
					t.Errorf("a set of %d has %d", set.len, n)
				}
			}
		}
		for i := s.free; i != 0; i = s.element[i].next {
			elements++
		}
		if elements != int(s.touched) {
			t.Errorf("%d elements of %d", elements, s.touched)
		}
	}
	for n := range m.member {
		if got := m.member[n].refs; got != refs[uint32(n)] {
			t.Errorf("member %d is counted %d times, is referred to %d times", n, got, refs[uint32(n)])
		}
	}
}

// A destination nobody asked for is forgotten by the full check, one every half
// hour, after a day; one that is in use stays.
func TestLocalityForgets(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		for _, expiration := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(scheduler, " ", expiration), func(t *testing.T) {
				w := newLocalWorld(t, scheduler, 1, 1)
				w.SetOptions(Options{Expiration: expiration})
				life := 24 * time.Hour
				if expiration > 0 {
					life = expiration
				}
				w.ask(1)
				first := w.ask(2)
				w.servers[first].ConnOpened() // were it forgotten, it would move
				for w.now < life-time.Minute {
					w.now += time.Minute
					w.ask(2)
				}
				if n := w.entries(); n != 2 {
					t.Fatalf("after %v: %d entries, want both", w.now, n)
				}
				for range 31 {
					w.now += time.Minute
					if got := w.ask(2); got != first {
						t.Fatalf("after %v: destination 2 moved from %d to %d", w.now, first, got)
					}
				}
				if n := w.entries(); n != 1 {
					t.Errorf("after %v: %d entries, want the one in use", w.now, n)
				}
				w.now += life + 31*time.Minute // a long silence, then all checks at once
				w.ask(3)
				if n := w.entries(); n != 1 {
					t.Errorf("after %v: %d entries, want the new one", w.now, n)
				}
				w.check(t)
			})
		}
	}
}

// The first full check comes with the 30th minute, and drops what was idle for
// just as long as it may; the next one 30 minutes later.
func TestLocalityFullCheck(t *testing.T) {
	const start = int64(77)
	l, dropped := newLocality[int](), 0
	drop := func(int) { dropped++ }
	l.setExpiration(30 * time.Minute)
	l.tick(start, drop)
	for n, used := range []int64{start, start + 1, start + 30*localityTick} {
		l.insert(destinationRequest(uint32(n), 0).Virtual.Addr(), used)
	}
	for _, step := range []struct {
		at   int64
		want int
	}{{30*localityTick - 1, 0}, {30 * localityTick, 1}, {60*localityTick - 1, 1}, {60 * localityTick, 3}} {
		l.tick(start+step.at, drop)
		if dropped != step.want || l.len != 3-step.want {
			t.Errorf("at %v: dropped %d, %d left; want %d dropped", time.Duration(step.at), dropped, l.len, step.want)
		}
	}
}

// Crowded is more active connections than the weight, while somebody has fewer
// than half of his.
func TestLocalityCrowded(t *testing.T) {
	for _, test := range []struct {
		active, weight, otherActive, otherWeight int
		want                                     bool
	}{
		{3, 2, 0, 1, true},
		{2, 2, 0, 1, false},
		{3, 2, 1, 2, false},
		{3, 2, 1, 3, true},
		{3, 2, 0, 0, false},
	} {
		s, other := testServer(2, test.weight), testServer(3, test.otherWeight)
		for range test.active {
			s.ConnOpened()
			s.ConnActivated()
		}
		for range test.otherActive {
			other.ConnOpened()
			other.ConnActivated()
		}
		if got := crowded(s, []*Server{other, s}); got != test.want {
			t.Errorf("%+v: crowded %v", test, got)
		}
	}
}

// Checks that are made up for after a silence end like checks made in time.
func TestLocalityCatchesUp(t *testing.T) {
	for idle := range 70 {
		prompt, late := newLocality[int](), newLocality[int]()
		drop := func(int) {}
		prompt.tick(5, drop)
		late.tick(5, drop)
		now := int64(5)
		for range idle {
			now += localityTick
			prompt.tick(now, drop)
		}
		late.tick(now, drop)
		if prompt.round != late.round || prompt.next != late.next || prompt.rover != late.rover {
			t.Fatalf("after %d minutes: round %d, next %d; in time round %d, next %d", idle, late.round, late.next, prompt.round, prompt.next)
		}
	}
}

// A scan of addresses: above the limit none is remembered, though everyone is
// served; above the maximum the idle ones go, a part each minute, down to it.
func TestLocalityFull(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		t.Run(scheduler, func(t *testing.T) {
			w := newLocalWorld(t, scheduler, 1, 2, 3)
			for n := range uint32(localityLimit + 1000) {
				if w.ask(n) == 0 {
					t.Fatalf("destination %d is refused", n)
				}
			}
			if n := w.entries(); n != localityLimit {
				t.Fatalf("%d entries, want %d", n, localityLimit)
			}
			w.now = 5 * time.Minute
			w.ask(0)
			if n := w.entries(); n != localityLimit {
				t.Errorf("%d entries: some went that were idle for less than 6 minutes", n)
			}
			for range 20 {
				before := w.entries()
				w.now += time.Minute
				w.ask(0)
				if gone := before - w.entries(); gone > localityMax/2+localityLimit/localityRows*2 {
					t.Errorf("%d entries went at once", gone)
				}
			}
			if n := w.entries(); n > localityMax || n < localityMax/2 {
				t.Errorf("%d entries are left, want %d or somewhat less", n, localityMax)
			}
			w.check(t)
		})
	}
}

// A removed server's destinations move when they are asked for; those that were
// not are there when it comes back, be it as a new Server of the same address.
func TestLocalityServerComesBack(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		t.Run(scheduler, func(t *testing.T) {
			w := newLocalWorld(t, scheduler, 1, 1)
			if got := []byte{w.ask(1), w.ask(2)}; got[0] != 3 || got[1] != 3 { // nobody has connections
				t.Fatalf("chose %v", got)
			}
			w.Remove(w.servers[3])
			if got := w.ask(1); got != 2 {
				t.Errorf("chose %d, want the only one there is", got)
			}
			w.Add(testServer(4, 1))
			again := testServer(3, 1)
			w.Add(again)
			again.ConnOpened() // more load than anybody
			if got := w.ask(2); got != 3 {
				t.Errorf("destination 2 is on %d, want 3 as before", got)
			}
			w.check(t)
		})
	}
}

// Numbers of servers that nobody refers to are used again.
func TestLocalityMembers(t *testing.T) {
	w := newLocalWorld(t, "lblc", 1)
	for i := range 1000 {
		s := NewServer(netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), uint16(i)), 1)
		w.Add(s)
		w.Remove(s)
	}
	if n := len(w.Pool.scheduler.(*localLeastConn).members.member); n > 2 {
		t.Errorf("%d numbers for one server", n)
	}
}

// lblc does not honour the threshold of a destination's own server: it is the
// kernel's way, and documented.
func TestLocalityOverload(t *testing.T) {
	for scheduler, want := range map[string]byte{"lblc": 3, "lblcr": 2} {
		w := newLocalWorld(t, scheduler, 9, 9)
		if got := w.ask(1); got != 3 {
			t.Fatalf("chose %d", got)
		}
		w.servers[3].SetThresholds(1, 0)
		w.servers[3].ConnOpened()
		if got := w.ask(1); got != want {
			t.Errorf("%s: chose %d, want %d", scheduler, got, want)
		}
		if got := w.ask(2); got != 2 {
			t.Errorf("%s: a new destination went to %d", scheduler, got)
		}
	}
}
