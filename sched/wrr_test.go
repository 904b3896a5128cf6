// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"math/rand/v2"
	"testing"
)

// Over a whole cycle, from wherever it begins, each server gets its weight.
func FuzzWRRCycle(f *testing.F) {
	f.Add(uint16(4), uint16(3), uint16(2), uint16(0))
	f.Add(uint16(1), uint16(2), uint16(3), uint16(5))
	f.Add(uint16(2), uint16(4), uint16(6), uint16(1)) // a common divisor
	f.Add(uint16(5), uint16(0), uint16(1), uint16(2)) // one quiesced
	f.Add(uint16(0), uint16(0), uint16(0), uint16(0)) // all
	f.Add(uint16(300), uint16(1), uint16(77), uint16(9))
	f.Fuzz(func(t *testing.T, a, b, c, begin uint16) {
		weights := []int{int(a) % 500, int(b) % 500, int(c) % 500}
		p, _ := NewPool("wrr")
		sum, divisor := 0, 0
		for i, w := range weights {
			p.Add(testServer(byte(i), w))
			sum, divisor = sum+w, gcd(w, divisor)
		}
		for range begin % 1000 {
			p.Schedule(&Request{})
		}
		if sum == 0 {
			if s := p.Schedule(&Request{}); s != nil {
				t.Fatalf("chose %v of none", s.Addr)
			}
			return
		}
		counts := make([]int, len(weights))
		for range sum / divisor {
			counts[p.Schedule(&Request{}).Addr.Addr().As4()[3]]++
		}
		for i := range weights {
			if counts[i]*divisor != weights[i] {
				t.Fatalf("weights %v got %v of a cycle", weights, counts)
			}
		}
	})
}

// The bar may skip rows in which nobody stands; a bar that takes every step must
// choose the same.
func TestWRRSkippedRows(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		skipping := NewPoolWith(newWeightedRoundRobin())
		stepping := NewPoolWith(&steppingBar{bar: beforeHead})
		var servers []*Server
		for i := range 2 + random.IntN(4) {
			s := testServer(byte(i), random.IntN(6)*random.IntN(6))
			s.SetThresholds(1, 0)
			servers = append(servers, s)
			skipping.Add(s)
			stepping.Add(s)
		}
		for step := range 200 {
			s := servers[random.IntN(len(servers))]
			switch random.IntN(4) {
			case 0:
				if s.Overloaded() {
					s.ConnClosedInactive()
				} else {
					s.ConnOpened()
				}
			case 1:
				if random.IntN(4) == 0 {
					w := random.IntN(6) * random.IntN(6)
					skipping.SetWeight(s, w)
					stepping.SetWeight(s, w)
				}
			}
			if got, want := skipping.Schedule(&Request{}), stepping.Schedule(&Request{}); got != want {
				t.Fatalf("seed %d, step %d: skipping rows chose %v, taking every one %v", seed, step, got, want)
			}
		}
	}
}

// steppingBar is wrr written out slowly: place and height as one walk of cells.
type steppingBar struct {
	index, bar int
	step, top  int
}

func (sb *steppingBar) Name() string { return "stepping" }

func (sb *steppingBar) Changed(servers []*Server, c Change) {
	sb.index, sb.step = beforeHead, 0
	largest := 0
	for _, s := range servers {
		sb.step, largest = gcd(s.Weight(), sb.step), max(largest, s.Weight())
	}
	sb.step = max(sb.step, 1)
	sb.top = largest - sb.step + 1
	if c.Kind == Reset || sb.bar == 0 || sb.bar > sb.top {
		sb.bar = sb.top
	} else if sb.step > 1 {
		sb.bar += 1 - sb.bar%sb.step
	}
}

func (sb *steppingBar) Pick(servers []*Server, _ *Request) *Server {
	if sb.top == 0 {
		return nil
	}
	start := sb.index
	wholeLowest, wrapped := false, false // the lowest row was walked from its first cell
	for {
		sb.index++
		if sb.index == len(servers) {
			sb.index = beforeHead
			sb.bar -= sb.step
			if sb.bar <= 0 {
				sb.bar = sb.top
				if wholeLowest || start == beforeHead {
					return nil
				}
				wrapped = true
			}
			wholeLowest = sb.bar <= sb.step
			continue
		}
		if s := servers[sb.index]; !s.Overloaded() && s.Weight() >= sb.bar {
			return s
		}
		if wholeLowest && wrapped && sb.index == start {
			return nil
		}
	}
}

// All servers of a heavy service full: the choice of none must not walk tens of
// thousands of rows under the pool's lock. Counted in looks, not in time.
func TestWRRFullIsCheap(t *testing.T) {
	wrr := &weightedRoundRobin{last: beforeHead}
	heavy, light := testServer(2, 65535), testServer(3, 1)
	servers := []*Server{light, heavy}
	wrr.Changed(servers, Change{Kind: Reset})
	heavy.SetThresholds(1, 0)
	heavy.ConnOpened()
	if s := wrr.Pick(servers, nil); s != light {
		t.Fatalf("chose %v", s)
	}
	wrr.bar, wrr.last = wrr.top, 0
	wrr.sink(servers)
	if wrr.bar != 1 {
		t.Errorf("bar sank to %d, not to the only row with room", wrr.bar)
	}
}
