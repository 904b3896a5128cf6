// SPDX-License-Identifier: Apache-2.0

package health

import (
	"strings"
	"testing"
	"time"
)

// TestMachine plays results, one a second: + is a success, - a failure. What comes
// out is the state after each, u, U(p) or D(own).
func TestMachine(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name    string
		limits  Limits
		results string
		want    string
	}{
		{"the first success decides", Limits{Rise: 3, Fall: 3}, "+", "U"},
		{"the first failure decides", Limits{Rise: 3, Fall: 3}, "-", "D"},
		{"fall", Limits{Rise: 2, Fall: 3}, "+---", "UUUD"},
		{"rise", Limits{Rise: 3, Fall: 1}, "+-+++", "UDDDU"},
		{"one bad between good ones", Limits{Rise: 2, Fall: 2}, "+-+-+-+-", "UUUUUUUU"},
		{"one good between bad ones", Limits{Rise: 2, Fall: 2}, "-+-+-+-+", "DDDDDDDD"},
		{"rise and fall of 1", Limits{Rise: 1, Fall: 1}, "+-+-", "UDUD"},
		{"limits of 0 are 1", Limits{}, "+-+-", "UDUD"},
		{"the first fall is not held", Limits{Rise: 1, Fall: 1, HoldDown: 3 * time.Second}, "+-+", "UDU"},
		// The second fall is held for 3 s, the third for 6 s.
		{"flapping is held", Limits{Rise: 1, Fall: 1, HoldDown: 3 * time.Second}, "+-+-++++-++++++++", "UDUDDDUUDDDDDDUUU"},
		{"long up is no flapping", Limits{Rise: 1, Fall: 1, HoldDown: time.Second}, "+-+++++++++++++-+", "UDUUUUUUUUUUUUUDU"},
	} {
		m := machine{Limits: tt.limits}
		var got strings.Builder
		before := Unknown
		for i, r := range tt.results {
			now := start.Add(time.Duration(i) * time.Second)
			changed := false
			if r == '+' {
				changed = m.success(now)
			} else {
				changed = m.failure(now, 1)
			}
			state, since := m.state, m.since
			if changed != (state != before) {
				t.Errorf("%s: result %d: changed is %v, from %v to %v", tt.name, i+1, changed, before, state)
			}
			if changed && !since.Equal(now) {
				t.Errorf("%s: result %d: since %v, want %v", tt.name, i+1, since, now)
			}
			before = state
			got.WriteByte("uUD"[state])
		}
		if got.String() != tt.want {
			t.Errorf("%s: %s gives %s, want %s", tt.name, tt.results, got.String(), tt.want)
		}
	}
}

// Several failures at once count each.
func TestMachineManyFailures(t *testing.T) {
	m := machine{Limits: Limits{Rise: 1, Fall: 3}}
	now := time.Unix(1000, 0)
	m.success(now)
	if m.failure(now, 2) {
		t.Error("down after 2 failures of 3")
	}
	if !m.failure(now, 5) {
		t.Error("not down after 7 failures")
	}
}

// However it flaps, the time it is held has an end.
func TestMachineHoldIsBounded(t *testing.T) {
	m := machine{Limits: Limits{Rise: 1, Fall: 1, HoldDown: time.Second}}
	now := time.Unix(1000, 0)
	m.success(now)
	for range 20 {
		m.failure(now, 1)
		if until := m.held.Sub(now); until > 16*time.Second {
			t.Fatalf("held for %v", until)
		}
		now = m.held
		if !m.success(now) {
			t.Fatal("not up when it is not held any more")
		}
	}
}
