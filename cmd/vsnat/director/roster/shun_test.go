// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/sched/health"
)

// A server that is out for what clients said has no weight, whatever its checks say, and
// has it back when it is readmitted.
func TestShun(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 0}, config.Checking{})
	f.step(allUp)
	s := f.roster.Service(web)
	first, second := s.Members[0], s.Members[1]
	if !s.HasOther(first) || !s.HasOther(second) {
		t.Error("two take connections")
	}
	first.Shun(f.now)
	f.play("out", steps{{nil, "2:0 3:1 4:0"}})
	if s.HasOther(second) || !s.HasOther(first) {
		t.Error("only the second takes connections")
	}
	s.Readmit(first, f.now)
	f.play("back", steps{{nil, "2:1 3:1 4:0"}})
}

// With slow start, a server that is back rises as one that was down does.
func TestReadmittedSlowly(t *testing.T) {
	f := newField(t, "wlc", [3]int{1, 1, 1}, config.Checking{SlowStart: 10 * time.Second})
	f.step(allUp)
	s := f.roster.Service(web)
	s.Members[0].Shun(f.now)
	f.play("out", steps{{nil, "2:0 3:1 4:1"}})
	s.Readmit(s.Members[0], f.now)
	f.now = f.now.Add(5 * time.Second)
	f.play("half of it", steps{{nil, "2:50 3:100 4:100"}})
	s.Members[0].Shun(f.now)
	f.play("out again", steps{{nil, "2:0 3:1 4:1"}})
}

// A pause doubles with each time in vain, up to a minute, and begins anew for a server
// that was back for long.
func TestPauses(t *testing.T) {
	m := &Member{standing: standing{configured: 1, suggested: health.NoWeight}}
	now := time.Unix(1000, 0)
	if p := m.Shun(now); p != time.Second {
		t.Errorf("the first pause is %v", p)
	}
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		now = m.until
		if m.InVain(now); m.Due(now.Add(want*time.Second-1)) || !m.Due(now.Add(want*time.Second)) {
			t.Errorf("a pause of %v, want %d s", m.until.Sub(now), want)
		}
	}
	s := &Service{}
	s.Readmit(m, now)
	if p := m.Shun(now.Add(10 * time.Minute)); p != time.Minute {
		t.Errorf("out again soon: %v", p)
	}
	s.Readmit(m, now)
	if p := m.Shun(now.Add(10*time.Minute + 1)); p != time.Second {
		t.Errorf("out again after a long time: %v", p)
	}
}

// Checks that contradict clients are believed once in half a minute.
func TestSignalled(t *testing.T) {
	m, now := &Member{}, time.Unix(1000, 0)
	for i, s := range []struct {
		after time.Duration
		again bool
	}{{0, false}, {time.Second, true}, {30*time.Second - 1, true}, {30 * time.Second, false}} {
		now = now.Add(s.after)
		if again := m.Signalled(now); again != s.again {
			t.Errorf("time %d: again: %v", i+1, again)
		}
	}
}
