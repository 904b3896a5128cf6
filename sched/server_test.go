// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

func testServer(last byte, weight int) *Server {
	return NewServer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 80), weight)
}

func TestThresholds(t *testing.T) {
	// o opens, a activates the oldest inactive, c closes an inactive one.
	for _, test := range []struct {
		upper, lower int
		steps        string
		want         bool
	}{
		{0, 0, "ooooooooo", false},
		{3, 0, "oo", false},
		{3, 0, "ooo", true},
		{3, 0, "oao", false},
		{3, 0, "oaoo", true},  // active and inactive together
		{3, 0, "oooc", false}, // 2 < 9/4
		{4, 0, "ooooc", true}, // 3 is not below 3
		{4, 0, "oooocc", false},
		{5, 0, "oooooc", true}, // 4 is not below 3.75
		{5, 0, "ooooocc", false},
		{4, 3, "ooooc", true},
		{4, 3, "oooocc", false},
		{4, 1, "ooooccc", true},
		{4, 1, "oooocccc", false},
		{1, 0, "o", true},
		{1, 0, "oc", false},
		{0, 2, "ooc", false},
	} {
		t.Run(fmt.Sprintf("%d %d %s", test.upper, test.lower, test.steps), func(t *testing.T) {
			s := testServer(2, 1)
			s.SetThresholds(test.upper, test.lower)
			for _, step := range test.steps {
				switch step {
				case 'o':
					s.ConnOpened()
				case 'a':
					s.ConnActivated()
				case 'c':
					s.ConnClosedInactive()
				}
			}
			if s.Overloaded() != test.want {
				t.Errorf("overloaded %v, want %v", s.Overloaded(), test.want)
			}
		})
	}
}

func TestThresholdsChanged(t *testing.T) {
	s := testServer(2, 1)
	s.SetThresholds(2, 0)
	s.ConnOpened()
	s.ConnOpened()
	s.SetThresholds(1, 0)
	if !s.Overloaded() {
		t.Error("a lower limit cleared the flag")
	}
	s.SetThresholds(5, 0)
	if s.Overloaded() {
		t.Error("a higher limit left the flag")
	}
	s.SetThresholds(3, 0)
	s.ConnOpened()
	if !s.Overloaded() {
		t.Error("the third of 3 did not set the flag")
	}
	s.SetThresholds(0, 0)
	if s.Overloaded() {
		t.Error("no limit left the flag")
	}
	if u, l := s.Thresholds(); u != 0 || l != 0 {
		t.Errorf("thresholds %d %d", u, l)
	}
}

func TestCounts(t *testing.T) {
	s := testServer(2, 1)
	check := func(active, inactive int) {
		t.Helper()
		if s.Active() != active || s.Inactive() != inactive {
			t.Errorf("active %d, inactive %d; want %d, %d", s.Active(), s.Inactive(), active, inactive)
		}
	}
	s.ConnOpened()
	s.ConnOpened()
	check(0, 2)
	s.ConnActivated()
	check(1, 1)
	s.ConnActivated()
	s.ConnDeactivated()
	check(1, 1)
	s.ConnClosedActive()
	check(0, 1)
	s.ConnClosedInactive()
	check(0, 0)
}

// TestTemplates: they are counted for themselves and weigh nothing.
func TestTemplates(t *testing.T) {
	s := testServer(2, 1)
	s.SetThresholds(3, 0)
	for range 5 {
		s.TemplateOpened()
	}
	s.TemplateClosed()
	if active, inactive := s.Conns(); s.Templates() != 4 || active+inactive != 0 || s.Overloaded() {
		t.Errorf("%d templates, %d active, %d inactive, overloaded %v", s.Templates(), active, inactive, s.Overloaded())
	}
}

// TestThresholdsDecideAnew: a change of the thresholds is as if all connections
// had come after it, but for what lies between the two, which stays as it was. The
// numbers are those of a kernel 6.1.187.
func TestThresholdsDecideAnew(t *testing.T) {
	for _, test := range []struct {
		conns                  int
		upper, lower           int
		thenUpper, thenLower   int
		overloaded, thereafter bool
	}{
		{6, 0, 0, 5, 2, false, true}, // lowered to below the connections
		{5, 0, 0, 5, 0, false, true}, // to just as many
		{4, 0, 0, 5, 0, false, false},
		{1, 1, 0, 8, 1, true, true}, // raised, but not below the lower one
		{1, 1, 0, 8, 2, true, false},
		{1, 1, 0, 8, 0, true, false}, // below three quarters
		{3, 3, 0, 4, 0, true, true},  // just three quarters
		{3, 3, 0, 0, 0, true, false}, // none at all
		{3, 3, 2, 3, 2, true, true},  // the same
	} {
		s := testServer(2, 1)
		s.SetThresholds(test.upper, test.lower)
		for range test.conns {
			s.ConnOpened()
		}
		if s.Overloaded() != test.overloaded {
			t.Fatalf("%+v: overloaded %v before", test, s.Overloaded())
		}
		s.SetThresholds(test.thenUpper, test.thenLower)
		if s.Overloaded() != test.thereafter {
			t.Errorf("%+v: overloaded %v", test, s.Overloaded())
		}
	}
}

func TestWeightBelowZero(t *testing.T) {
	s := testServer(2, -1)
	if s.Weight() != 0 || s.Eligible() {
		t.Errorf("weight %d, eligible %v", s.Weight(), s.Eligible())
	}
}

// Shards that overtake each other must leave neither a count nor the flag behind.
func TestConcurrentCounts(t *testing.T) {
	s := testServer(2, 1)
	s.SetThresholds(1, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10000 {
				s.ConnOpened()
				s.ConnActivated()
				s.ConnDeactivated()
				s.ConnClosedInactive()
				s.ConnOpened()
				s.ConnActivated()
				s.ConnClosedActive()
			}
		})
	}
	wg.Wait()
	if s.Active() != 0 || s.Inactive() != 0 || s.Overloaded() {
		t.Errorf("active %d, inactive %d, overloaded %v; want none", s.Active(), s.Inactive(), s.Overloaded())
	}
}
