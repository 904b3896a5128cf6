// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// accountOf feeds an account; each entry is asked, answered, refused of a step.
func accountOf(list ...[3]uint64) *account {
	a := &account{}
	for _, s := range list {
		sum := a.last
		sum.Asked += s[0]
		sum.Answered += s[1]
		sum.Refused += s[2]
		a.add(&sum)
	}
	return a
}

func repeat(n int, s [3]uint64) (list [][3]uint64) {
	for range n {
		list = append(list, s)
	}
	return list
}

func TestSuspicion(t *testing.T) {
	healthy := repeat(20, [3]uint64{30, 30, 0})
	for _, tt := range []struct {
		name            string
		steps           [][3]uint64
		refuses, silent bool
	}{
		{"nobody asks", repeat(50, [3]uint64{}), false, false},
		{"healthy", healthy, false, false},
		{"slow, but steady", append(repeat(3, [3]uint64{30, 0, 0}), repeat(20, [3]uint64{30, 30, 0})...), false, false},
		{"the web server stops", slices.Concat(healthy, [][3]uint64{{30, 0, 30}}), true, false},
		{"one client of many is refused", slices.Concat(healthy, [][3]uint64{{30, 25, 5}}), false, false},
		{"four refusals are few", append(repeat(5, [3]uint64{}), [3]uint64{4, 0, 4}), false, false},
		{"five, one a second", repeat(50, [3]uint64{}), false, false},
		{"the host is off", slices.Concat(healthy, repeat(4, [3]uint64{30, 0, 0})), false, true},
		{"off, for too short a time to say", slices.Concat(healthy, repeat(2, [3]uint64{30, 0, 0})), false, false},
		{"a flood is answered", repeat(20, [3]uint64{1000, 1000, 0}), false, false},
		{"half is lost", repeat(20, [3]uint64{30, 15, 0}), false, false},
		{"few clients, none of them answered", append(repeat(5, [3]uint64{1, 0, 0}), repeat(3, [3]uint64{})...), false, true},
		{"few clients, long ago", append(repeat(5, [3]uint64{1, 0, 0}), repeat(signalSteps, [3]uint64{})...), false, false},
	} {
		a := accountOf(tt.steps...)
		if _, got := a.refusing(); got != tt.refuses {
			t.Errorf("%s: refuses: %v", tt.name, got)
		}
		if _, got := a.silent(leastSignals); got != tt.silent {
			t.Errorf("%s: silent: %v", tt.name, got)
		}
	}
}

// A server whose way back was wrong is believed to be right when it has said so three
// times in a row.
func TestWayBackAgain(t *testing.T) {
	d, _ := startDirector(t, small)
	server := netip.MustParseAddr("10.0.0.2")
	must(t, d.call(t.Context(), func() error {
		now := time.Now()
		q := &inquiry{service: web, server: netip.AddrPortFrom(server, 80), recheck: true}
		d.wayBackWrong(server, now)
		for i, answer := range []nat.ProbeAnswer{
			nat.ProbeAccepted, nat.ProbeRefused, nat.ProbeSilent, nat.ProbeAccepted, nat.ProbeAccepted, nat.ProbeAccepted,
		} {
			if d.clientele.wrong[server] == nil {
				t.Errorf("over before answer %d", i)
			}
			d.heedInquiry(q, answer, nat.ProbeSilent, now)
		}
		if len(d.wayBackProblems()) != 0 {
			t.Errorf("still wrong: %q", d.wayBackProblems())
		}
		return nil
	}))
}

// The last server of a service stays, whatever is said of it; one that is out comes back
// when the others go; and each time in vain doubles the pause.
func TestShunning(t *testing.T) {
	d, _ := startDirector(t, "services:\n  - tcp: 192.168.88.23:80\n    servers: [\"10.0.0.2:80\", \"10.0.0.3:80\"]\n")
	must(t, d.call(t.Context(), func() error {
		now := time.Now()
		s := d.roster.Service(web)
		first, second := s.Members[0], s.Members[1]
		q := func(m *roster.Member) *inquiry {
			return &inquiry{service: web, server: m.Server(), kind: health.Silent, n: 5, suspected: true}
		}
		inForce := func(m *roster.Member) int { w, _ := m.InForce(); return w }
		pauses := func(from time.Time, want time.Duration) {
			if first.Due(from.Add(want-1)) || !first.Due(from.Add(want)) {
				t.Errorf("it is not out for %v", want)
			}
		}
		d.heedInquiry(q(first), nat.ProbeAccepted, nat.ProbeAccepted, now)
		if first.Shunned() {
			t.Error("out although it accepts connections")
		}
		d.heedInquiry(q(first), nat.ProbeSilent, nat.ProbeSilent, now)
		d.heedInquiry(q(second), nat.ProbeSilent, nat.ProbeSilent, now)
		if !first.Shunned() || second.Shunned() || inForce(first) != 0 || inForce(second) == 0 {
			t.Errorf("first %+v, second %+v", first, second)
		}
		trial := q(first)
		trial.trial = true
		for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			d.heedInquiry(trial, nat.ProbeSilent, nat.ProbeSilent, now)
			pauses(now, want*time.Second)
		}
		d.heedInquiry(trial, nat.ProbeAccepted, nat.ProbeSilent, now)
		if first.Shunned() || inForce(first) == 0 {
			t.Error("still out")
		}
		d.heedInquiry(q(first), nat.ProbeRefused, nat.ProbeSilent, now.Add(time.Minute))
		pauses(now.Add(time.Minute), time.Minute) // out again soon
		must(t, d.roster.Order(web, second.Server(), roster.Maintenance))
		d.retry(now.Add(time.Minute))
		if first.Shunned() {
			t.Error("out, with no other left")
		}
		return nil
	}))
}

// A server of all ports can't be asked: it is tried again when its pause is over.
func TestShunnedWithoutAPort(t *testing.T) {
	d, _ := startDirector(t, "services:\n  - tcp: 192.168.88.23:0\n    persistence: {timeout: 60s}\n    servers: [\"10.0.0.2:0\", \"10.0.0.3:0\"]\n")
	must(t, d.call(t.Context(), func() error {
		now := time.Now()
		key := nat.ServiceKey{Proto: nat.ProtoTCP, Addr: vip}
		m := d.roster.Service(key).Members[0]
		d.inquire(inquiry{service: key, server: m.Server(), kind: health.Silent, n: 5, suspected: true}, &account{}, now)
		if !m.Shunned() {
			t.Fatal("it is not out")
		}
		d.retry(now)
		if !m.Shunned() {
			t.Error("tried again at once")
		}
		d.retry(now.Add(time.Second))
		if m.Shunned() {
			t.Error("still out after its pause")
		}
		return nil
	}))
}
