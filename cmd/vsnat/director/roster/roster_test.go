// SPDX-License-Identifier: Apache-2.0

package roster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

var web = nat.ServiceKey{Proto: nat.ProtoTCP, Addr: netip.MustParseAddr("192.168.88.23"), Port: 80}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A field is a roster with one service of three servers, .2 to .4, and results of
// checks that the test sets.
type field struct {
	t      *testing.T
	roster *Roster
	now    time.Time
	states map[string]health.State // by the last byte of the address
	ask    map[string]int          // weights that checks ask for
	hooks  []string

	percent bool // what they ask for is a share
}

func newField(t *testing.T, scheduler string, weights [3]int, c config.Checking) *field {
	t.Helper()
	f := &field{
		t: t, roster: New(nat.NewRules()), now: time.Unix(1000, 0),
		states: make(map[string]health.State), ask: make(map[string]int),
	}
	if c.Checks == nil {
		c.Checks = []health.Spec{{Type: health.TCP}}
	}
	must(t, f.roster.AddService(nat.ServiceSpec{ServiceKey: web, Scheduler: scheduler}))
	must(t, f.roster.SetChecking(web, c))
	for i, w := range weights {
		must(t, f.roster.AddServer(web, f.spec(i, w)))
	}
	return f
}

func (f *field) spec(i, weight int) nat.ServerSpec {
	return nat.ServerSpec{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), Port: 80, Weight: weight}
}

// status finds a check by its key, which begins with the server's address.
func (f *field) status(key string) (health.Status, bool) {
	_, rest, _ := strings.Cut(key, `"Server":"10.0.0.`)
	server, _, _ := strings.Cut(rest, ":")
	s := health.Status{State: f.states[server], Weight: health.NoWeight}
	if w, ok := f.ask[server]; ok {
		s.Weight, s.Percent = w, f.percent
	}
	return s, true
}

// step takes up results, and settles. It returns the servers of the rules with
// their weights, oldest first: "2:1 3:0 4:1".
func (f *field) step(states map[string]health.State) string {
	f.t.Helper()
	for server, state := range states {
		f.states[server] = state
	}
	f.roster.Learn(f.now, f.status)
	done, err := f.roster.Settle(f.now)
	must(f.t, err)
	for _, h := range done.Hooks {
		f.hooks = append(f.hooks, fmt.Sprint(h.Argv))
	}
	list := ""
	servers := f.roster.rules.Services()[0].Servers
	for i := len(servers) - 1; i >= 0; i-- {
		list = strings.TrimSpace(fmt.Sprintf("%s %d:%d", list, servers[i].Addr.As4()[3], servers[i].Weight))
	}
	return list
}

const up, down, unknown = health.Up, health.Down, health.Unknown

// steps are results and what the rules have then.
type steps []struct {
	states map[string]health.State
	want   string
}

func (f *field) play(name string, list steps) {
	f.t.Helper()
	for i, s := range list {
		if got := f.step(s.states); got != s.want {
			f.t.Errorf("%s, step %d: %q, want %q", name, i+1, got, s.want)
		}
	}
}

var allUp = map[string]health.State{"2": up, "3": up, "4": up}

type states = map[string]health.State

func TestInhibit(t *testing.T) {
	f := newField(t, "wrr", [3]int{1, 5, 0}, config.Checking{})
	f.play("inhibit", steps{
		{nil, "2:0 3:0 4:0"},
		{states{"2": up, "4": up}, "2:1 3:0 4:0"},
		{states{"3": up}, "2:1 3:5 4:0"},
		{states{"3": down}, "2:1 3:0 4:0"},
		{states{"2": down}, "2:0 3:0 4:0"},
		{allUp, "2:1 3:5 4:0"},
	})
	// What an operator configures counts when the server is back.
	f.step(states{"3": down})
	must(t, f.roster.EditServer(web, f.spec(1, 9)))
	f.play("edited while down", steps{{nil, "2:1 3:0 4:0"}, {states{"3": up}, "2:1 3:9 4:0"}})
	must(t, f.roster.Order(web, netip.MustParseAddrPort("10.0.0.3:80"), Drained))
	f.play("drained", steps{{nil, "2:1 3:0 4:0"}, {states{"3": down}, "2:1 3:0 4:0"}, {states{"3": up}, "2:1 3:0 4:0"}})
	must(t, f.roster.Order(web, netip.MustParseAddrPort("10.0.0.3:80"), NoOverride))
	f.play("drained no more", steps{{nil, "2:1 3:9 4:0"}})
}

// A server of a service that is not checked is used at once; checks that come later
// do not take it out before they have found something out, nor do changed ones.
func TestChecksComeLater(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 1}, config.Checking{Checks: []health.Spec{}})
	f.play("no checks", steps{{nil, "2:1 3:1 4:1"}})
	must(t, f.roster.SetChecking(web, config.Checking{Checks: []health.Spec{{Type: health.TCP}}}))
	f.play("checks come", steps{{nil, "2:1 3:1 4:1"}, {states{"2": up, "3": down}, "2:1 3:0 4:1"}})
	f.states = make(map[string]health.State)
	must(t, f.roster.SetChecking(web, config.Checking{Checks: []health.Spec{{Type: health.ICMP}}}))
	f.play("other checks", steps{{nil, "2:1 3:0 4:1"}, {states{"2": up, "3": up, "4": down}, "2:1 3:1 4:0"}})
	must(t, f.roster.AddServer(web, f.spec(3, 1)))
	f.play("a new server waits", steps{{nil, "2:1 3:1 4:0 5:0"}, {states{"5": up}, "2:1 3:1 4:0 5:1"}})
	must(t, f.roster.SetChecking(web, config.Checking{}))
	f.play("checks go", steps{{nil, "2:1 3:1 4:1 5:1"}})
}

func TestStartUp(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 1}, config.Checking{Start: config.StartUp})
	f.play("start: up", steps{{nil, "2:1 3:1 4:1"}, {states{"3": down}, "2:1 3:0 4:1"}})

	// Who served from the beginning does not rise slowly at the first success.
	f = newField(t, "wlc", [3]int{1, 1, 1}, config.Checking{Start: config.StartUp, SlowStart: time.Minute})
	f.play("start: up, slow start", steps{{nil, "2:1 3:1 4:1"}, {allUp, "2:1 3:1 4:1"}})
	f = newField(t, "wlc", [3]int{1, 1, 1}, config.Checking{Checks: []health.Spec{}})
	f.step(nil)
	must(t, f.roster.SetChecking(web, config.Checking{Checks: []health.Spec{{Type: health.TCP}}, SlowStart: time.Minute}))
	f.play("checks come, slow start", steps{{nil, "2:1 3:1 4:1"}, {allUp, "2:1 3:1 4:1"}})
}

// A failed server is taken out, stays configured, and comes back.
func TestRemove(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 1}, config.Checking{OnFailed: config.OnFailedRemove})
	f.play("remove", steps{{allUp, "2:1 3:1 4:1"}, {states{"3": down}, "2:1 4:1"}})
	if n := len(f.roster.services[web].Members); n != 3 {
		t.Errorf("%d servers are configured", n)
	}
	if err := f.roster.AddServer(web, f.spec(1, 1)); err != nat.ErrServerExists {
		t.Errorf("adding what is taken out: %v", err)
	}
	must(t, f.roster.EditServer(web, f.spec(1, 4)))
	f.play("edited while out", steps{{nil, "2:1 4:1"}, {states{"3": up}, "2:1 4:1 3:4"}, {states{"3": down}, "2:1 4:1"}})
	must(t, f.roster.DelServer(web, f.spec(1, 1).Addr, 80))
	f.play("deleted while out", steps{{states{"3": up}, "2:1 4:1"}})
}

// FAULTS 92: the sorry server serves while no other does, and no longer.
func TestSorry(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 0}, config.Checking{Sorry: netip.MustParseAddrPort("10.0.0.9:80"), Panic: 50})
	f.play("sorry", steps{
		{nil, "2:0 3:0 4:0 9:1"}, // nobody is known to be up yet
		{allUp, "2:1 3:1 4:0 9:0"},
		{states{"2": down}, "2:0 3:1 4:0 9:0"},
		{states{"3": down}, "2:0 3:0 4:0 9:1"},
		{states{"3": up}, "2:0 3:1 4:0 9:0"},
	})
	if !f.roster.Tick() {
		t.Error("a sorry server without connections stays")
	}
	f.play("it has left", steps{{nil, "2:0 3:1 4:0"}, {states{"3": down}, "2:0 3:0 4:0 9:1"}})
	must(t, f.roster.SetChecking(web, config.Checking{Checks: []health.Spec{{Type: health.TCP}}}))
	f.play("it is not configured any more", steps{{nil, "2:0 3:0 4:0"}})
}

func TestPanic(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 2, 3}, config.Checking{Panic: 50})
	f.play("panic", steps{
		{nil, "2:0 3:0 4:0"}, // not checked is not down
		{allUp, "2:1 3:2 4:3"},
		{states{"2": down}, "2:0 3:2 4:3"},
		{states{"3": down}, "2:1 3:2 4:3"}, // a third is left
		{states{"4": down}, "2:1 3:2 4:3"},
		{states{"3": up, "4": up}, "2:0 3:2 4:3"},
	})
}

// FAULTS 93: each hook runs once for each change.
func TestQuorum(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 1}, config.Checking{Quorum: config.Quorum{Min: 2, Up: []string{"up"}, Down: []string{"down"}}})
	for i, s := range []struct {
		states states
		want   string
	}{
		{nil, ""}, {states{"2": up}, ""}, {states{"3": up}, "[up]"}, {states{"4": up}, "[up]"}, {states{"2": down}, "[up]"},
		{states{"3": down}, "[up] [down]"}, {states{"4": down}, "[up] [down]"}, {allUp, "[up] [down] [up]"}, {nil, "[up] [down] [up]"},
	} {
		f.step(s.states)
		if got := strings.Join(f.hooks, " "); got != s.want {
			t.Errorf("step %d: %s, want %s", i+1, got, s.want)
		}
	}
	// A reload that leaves the quorum leaves it quiet.
	must(t, f.roster.SetChecking(web, config.Checking{Checks: []health.Spec{{Type: health.TCP}}, Panic: 1, Quorum: f.roster.services[web].Checking.Quorum}))
	f.step(nil)
	if len(f.hooks) != 3 {
		t.Errorf("after a reload: %v", f.hooks)
	}
}

// The weights of servers, as keepalived counts.
func TestQuorumOfWeights(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 2, 5}, config.Checking{Quorum: config.Quorum{Min: 4, Of: config.QuorumOfWeights, Up: []string{"up"}, Down: []string{"down"}}})
	for i, s := range []struct {
		states states
		want   string
	}{
		{states{"2": up, "3": up}, ""}, {states{"4": up}, "[up]"}, {states{"2": down, "3": down}, "[up]"},
		{states{"4": down, "3": up}, "[up] [down]"},
	} {
		f.step(s.states)
		if got := strings.Join(f.hooks, " "); got != s.want {
			t.Errorf("step %d: %s, want %s", i+1, got, s.want)
		}
	}
}

// A service that never had enough servers has lost nothing.
func TestQuorumNeverHad(t *testing.T) {
	f := newField(t, "rr", [3]int{1, 1, 1}, config.Checking{Quorum: config.Quorum{Min: 1, Hysteresis: 1, Up: []string{"up"}, Down: []string{"down"}}})
	f.step(states{"2": down, "3": down, "4": down})
	f.step(states{"2": up})
	if len(f.hooks) != 0 {
		t.Errorf("one of two that hysteresis asks for: %v", f.hooks)
	}
	f.step(states{"3": up})
	f.step(states{"3": down})
	if fmt.Sprint(f.hooks) != "[[up]]" {
		t.Errorf("two, then one: %v", f.hooks)
	}
	f.step(states{"2": down})
	if fmt.Sprint(f.hooks) != "[[up] [down]]" {
		t.Errorf("none: %v", f.hooks)
	}
}

// TestSlowStart: the share of a server that is back grows from next to nothing to
// its whole, also where all weights are 1.
func TestSlowStart(t *testing.T) {
	f := newField(t, "wlc", [3]int{1, 1, 2}, config.Checking{SlowStart: 10 * time.Second})
	f.play("at the start nobody rises slowly", steps{{allUp, "2:1 3:1 4:2"}})
	f.step(states{"3": down})
	for _, s := range []struct {
		after time.Duration
		want  string
	}{
		{0, "2:50 3:1 4:100"}, {time.Second, "2:50 3:5 4:100"}, {4 * time.Second, "2:50 3:25 4:100"}, {5 * time.Second, "2:1 3:1 4:2"},
	} {
		f.now = f.now.Add(s.after)
		if got := f.step(states{"3": up}); got != s.want {
			t.Errorf("%v later: %s, want %s", s.after, got, s.want)
		}
		if m := f.roster.services[web].Members[1]; m.shown != 1 {
			t.Errorf("%v later: the weight is shown as %d", s.after, m.shown)
		}
	}
	// A new server rises slowly too, and falling ends it.
	must(t, f.roster.AddServer(web, f.spec(3, 1)))
	f.play("new", steps{{states{"5": up}, "2:50 3:50 4:100 5:1"}, {states{"5": down}, "2:1 3:1 4:2 5:0"}})
	// A scheduler that cannot: at once.
	must(t, f.roster.EditService(nat.ServiceSpec{ServiceKey: web, Scheduler: "rr"}))
	f.play("rr", steps{{states{"5": up}, "2:1 3:1 4:2 5:1"}})
}

func TestWeightByCheck(t *testing.T) {
	f := newField(t, "wrr", [3]int{1, 1, 1}, config.Checking{})
	f.step(allUp)
	f.ask["3"] = 40
	f.play("asked for", steps{{nil, "2:1 3:40 4:1"}})
	f.ask["3"] = 0
	f.play("none", steps{{nil, "2:1 3:0 4:1"}})
	must(t, f.roster.EditServer(web, f.spec(1, 10)))
	f.ask["3"], f.percent = 25, true
	f.play("a share", steps{{nil, "2:1 3:3 4:1"}})
}
