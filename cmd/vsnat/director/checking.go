// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// Checks of servers: their results come from goroutines of a health.Monitor, which
// keeps them; decide asks it where they stand when it says that something changed,
// and before each publish.

// rampEvery is how often weights are raised while a slow start is under way.
const rampEvery = 100 * time.Millisecond

// openMonitor makes ready for checks, which the first publish begins. What runs scripts
// has to be started before capabilities are given up: it is there for those that come with
// a reload as well. Only a configuration that has some by now needs it.
func (d *director) openMonitor() error {
	d.noScripts = "this program cannot be started a second time"
	if len(d.options.Scripts) > 0 {
		var err error
		if d.scripts, err = health.StartRunner(d.options.Scripts, d.cfg.ScriptUser); err != nil {
			if runsScripts(d.cfg) {
				return err
			}
			d.noScripts = err.Error() + ", when the director started"
		}
	}
	tools := health.Tools{Dialer: d.checkDialer, NoRun: d.noScripts}
	if d.scripts != nil {
		tools.Run = d.scripts.Run
		if note := d.scripts.Note(); note != "" && runsScripts(d.cfg) {
			d.log.Info(note)
		}
	}
	d.monitor = health.NewMonitor(tools)
	d.monitor.Recall(d.keeping.checks)
	return nil
}

// runsScripts reports whether a configuration has a program to be run.
func runsScripts(cfg *config.Config) bool {
	script := func(list []health.Spec) bool {
		return slices.ContainsFunc(list, func(s health.Spec) bool { return s.Type == health.Script })
	}
	return slices.ContainsFunc(cfg.Services, func(s config.Service) bool {
		c := &s.Checking
		return len(c.Quorum.Up)+len(c.Quorum.Down) > 0 || script(c.Checks) ||
			slices.ContainsFunc(c.Servers, func(s config.ServerChecks) bool { return script(s.Checks) })
	})
}

// hookTime is how long a program of a quorum may take.
const hookTime = time.Minute

// runHook has a program of a quorum run, and does not wait for it.
func (d *director) runHook(argv, env []string) {
	if d.scripts == nil {
		d.log.Warn("a program of a quorum cannot be run", "program", argv[0], "why", d.noScripts)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), hookTime)
		defer cancel()
		ran, err := d.scripts.Run(ctx, health.Program{Argv: argv, Env: env})
		if err == nil && ran.Status == 0 && ran.Signal == 0 {
			return
		}
		d.log.Warn("a program of a quorum failed", "program", argv[0], "status", ran.Status, "signal", ran.Signal, "error", err)
	}()
}

// heed brings the rules in line with what is known of the servers, and reports
// whether there is something to publish.
func (d *director) heed() (publish bool) {
	if d.monitor == nil {
		return false
	}
	// What lacked an address to be checked from may have one by now.
	if paths := d.paths.Load(); paths != nil && len(paths.missing) > 0 {
		d.aimChecks()
	}
	if d.roster.Changed() {
		d.aimChecks()
		publish = true
		d.monitor.Set(d.roster.Targets())
	}
	now := time.Now()
	for _, t := range d.roster.Learn(now, d.monitor.Brief) {
		d.turned(t)
	}
	done, err := d.roster.Settle(now)
	if err != nil {
		d.warn("settle", "what checks ask for could not be done", err.Error())
	}
	for _, h := range done.Hooks {
		d.quorumChanged(h)
	}
	if d.rampTimer == nil && done.Ramping {
		d.rampTimer = time.NewTimer(rampEvery)
	}
	return done.Publish || publish
}

// heard takes up what checks have found out.
func (d *director) heard() {
	if d.heed() {
		d.publish()
	}
}

// ramp is the channel of the timer of slow starts; nil if there is none.
func (d *director) ramp() <-chan time.Time {
	if d.rampTimer == nil {
		return nil
	}
	return d.rampTimer.C
}

// turned tells of a server that is up or down now.
func (d *director) turned(t roster.Turn) {
	key := controlKey(t.Service)
	e := control.Event{Kind: control.EventServerUp, Service: key, Server: t.Server}
	e.Text = fmt.Sprintf("server %s of %s is up: %s", t.Server, key, t.Text)
	if t.State == health.Down {
		e.Kind = control.EventServerDown
		e.Text = fmt.Sprintf("server %s of %s is down: %s", t.Server, key, t.Text)
	}
	if t.State == health.Down {
		d.log.Warn("server down", "server", t.Server, "service", key.String(), "why", t.Text)
	} else {
		d.log.Info("server up", "server", t.Server, "service", key.String(), "why", t.Text)
	}
	d.event(e)
}

// quorumChanged tells of a quorum, and runs what is to be run then. It does not wait
// for it.
func (d *director) quorumChanged(h roster.Hook) {
	key := controlKey(h.Service)
	word := "lost"
	if h.Gained {
		word = "gained"
	}
	d.changed(control.Event{By: byChecks, Service: key, Text: "quorum of " + key.String() + " " + word})
	if len(h.Argv) == 0 {
		return
	}
	d.runHook(h.Argv, []string{"VSNAT_SERVICE=" + key.String(), "VSNAT_QUORUM=" + word})
}

// Checks implements control.Director.
func (d *director) Checks(ctx context.Context) (list []control.Check, err error) {
	err = d.call(ctx, func() error {
		users := make(map[string][]control.ServiceKey)
		for _, s := range d.rules.Services() {
			for _, m := range d.roster.Service(s.ServiceKey).Members {
				for _, key := range m.Keys() {
					users[key] = append(users[key], controlKey(s.ServiceKey))
				}
			}
		}
		for _, s := range d.monitor.List() {
			c := controlCheck(&s)
			c.Services = users[s.Key]
			list = append(list, c)
		}
		return nil
	})
	return list, err
}

func controlCheck(s *health.Status) control.Check {
	c := control.Check{
		Server: s.Server, Type: s.Type, Target: targetText(s),
		State: s.State.String(), Since: s.Since, Text: s.Last.Text, At: s.At, Latency: control.Duration(s.Latency),
		Interval: control.Duration(s.Interval), Timeout: control.Duration(s.Timeout), Rise: s.Rise, Fall: s.Fall,
		Good: s.Good, Bad: s.Bad, Impossible: s.Failed, Signals: s.Signals, History: []control.CheckEvent{},
	}
	if !s.At.IsZero() {
		c.Outcome = s.Last.Outcome.String()
	}
	if s.Held.After(time.Now()) {
		c.Held = s.Held
	}
	if s.Weight != health.NoWeight {
		c.Weight, c.Percent = &s.Weight, s.Percent
	}
	for _, e := range slices.Backward(s.History) {
		c.History = append(c.History, control.CheckEvent{
			From: e.From, At: e.At, Times: e.N, Outcome: e.Outcome.String(), State: e.State.String(), Text: e.Text, Latency: control.Duration(e.Latency),
		})
	}
	return c
}

// targetText says what is checked.
func targetText(s *health.Status) string {
	to := s.Endpoint()
	switch s.Type {
	case health.HTTP, health.HTTPS:
		return s.Type + "://" + to.String() + strings.Join(s.URLs, " ")
	case health.ICMP:
		return to.Addr().String()
	case health.Script, health.File:
		return strings.Join(s.Command, " ")
	case health.DNS:
		return to.String() + " " + s.Name + " " + s.Query
	}
	return to.String()
}

// checkProblems tells of servers that cannot be checked, and of services without a
// server for having none that is up.
func (d *director) checkProblems() (list []string) {
	for _, s := range d.monitor.List() {
		if s.Last.Outcome == health.Impossible && !s.At.IsZero() {
			list = append(list, fmt.Sprintf("server %s: its check (%s) is not possible: %s", s.Server, s.Type, s.Last.Text))
		}
	}
	for _, info := range d.rules.Services() {
		s := d.roster.Service(info.ServiceKey)
		down := 0
		for _, m := range s.Members {
			ordered := d.drains[drainKey{s.Key, m.Server()}] != nil // whose checks may say what they like
			if m.Checked() && m.State() == health.Down && !ordered {
				down++
			}
		}
		if down == 0 {
			continue
		}
		key := controlKey(s.Key)
		switch {
		case s.StandsIn():
			list = append(list, fmt.Sprintf("service %s: no server is usable, %s stands in", key, s.Checking.Sorry))
		case down == len(s.Members):
			list = append(list, fmt.Sprintf("service %s: all servers are down", key))
		case down == 1:
			list = append(list, fmt.Sprintf("service %s: 1 of %d servers is down", key, len(s.Members)))
		default:
			list = append(list, fmt.Sprintf("service %s: %d of %d servers are down", key, down, len(s.Members)))
		}
	}
	return list
}

// showStanding fills in what is configured of a server of the rules, and why it
// has another weight, or what is wrong with it otherwise.
func (d *director) showStanding(k nat.ServiceKey, server *control.Server) {
	m := d.roster.Member(k, server.Address)
	if m == nil {
		server.Why = "stands in"
		return
	}
	server.Weight = m.Spec().Weight
	inForce, why := m.InForce()
	if inForce != server.Weight {
		server.InForce = &inForce
	}
	if m.Checked() {
		server.State = m.State().String()
	}
	server.Why = why
	switch {
	case why == roster.WhyDown:
		server.Why = d.whyDown(m)
	case why == "" && d.clientele.wrong[server.Address.Addr()] != nil && !server.FullNAT:
		server.Why = "answers elsewhere"
	}
	if j := d.drains[drainKey{k, server.Address}]; j != nil {
		drain := j.shown()
		server.Drain, server.Why = &drain, drain.State
	}
}

// whyDown is which check says that a server is down, and what it has found.
func (d *director) whyDown(m *roster.Member) string {
	for _, key := range m.Keys() {
		if c, ok := d.monitor.Brief(key); ok && c.State == health.Down {
			return fmt.Sprintf("down: %s: %s", c.Type, c.Trouble())
		}
	}
	return roster.WhyDown
}
