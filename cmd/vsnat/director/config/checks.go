// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched/health"
)

// Checking is how the servers of a service are checked, and what follows from it.
type Checking struct {
	Checks    []health.Spec  // of each server that has none of its own; all must be good
	Servers   []ServerChecks // those that have, in the order of the file
	Sorry     netip.AddrPort // the server while no other is usable; invalid: none
	SlowStart time.Duration  // until a server that rose has its whole weight
	Panic     int            // percent of the servers: when fewer are left, checks are not believed; 0: never
	Quorum    Quorum
	OnFailed  string // OnFailedRemove; "" means that a failed server has weight 0
	Start     string // StartUp; "" means that a server gets nothing before its first success
}

// ServerChecks are the checks of one server.
type ServerChecks struct {
	Server netip.AddrPort
	Checks []health.Spec // empty: it is not checked
}

// Quorum runs programs when a service has enough servers, and when no more.
type Quorum struct {
	Min        int    // usable servers that are enough; 0: nobody asks
	Of         string // QuorumOfWeights: so much weight is enough; "": so many servers
	Hysteresis int    // so many more than Min to gain it, so many fewer to lose it
	Up, Down   []string
}

// Words of Checking.
const (
	OnFailedInhibit = "inhibit"
	OnFailedRemove  = "remove" // a failed server is taken out as if it were deleted
	StartUnknown    = "unknown"
	StartUp         = "up" // a server is used until its first failure
	QuorumOfServers = "servers"
	QuorumOfWeights = "weights"
)

// Of returns the checks of a server.
func (c *Checking) Of(server netip.AddrPort) []health.Spec {
	if own := c.own(server); own != nil {
		return own.Checks
	}
	return c.Checks
}

// own returns the checks that a server alone has, or nil.
func (c *Checking) own(server netip.AddrPort) *ServerChecks {
	for i := range c.Servers {
		if c.Servers[i].Server == server {
			return &c.Servers[i]
		}
	}
	return nil
}

// CheckTiming is how often checks are made if they do not say, and how many results
// count.
type CheckTiming struct {
	Interval, Timeout time.Duration
	health.Limits
	Recheck time.Duration // 0: none
}

// DefaultCheckTiming takes a dead server out within 8 s.
func DefaultCheckTiming() CheckTiming {
	return CheckTiming{2 * time.Second, 2 * time.Second, health.Limits{Rise: 2, Fall: 3, HoldDown: 10 * time.Second}, 0}
}

const (
	minInterval, maxInterval = 10 * time.Millisecond, 24 * time.Hour
	maxRise                  = 1000
	spanHint                 = "seconds, or a duration such as 500ms or 2s"
)

// parseSpan reads a time that need not be whole seconds.
func parseSpan(s string, lowest, highest time.Duration) (time.Duration, complaint) {
	d, err := time.ParseDuration(s)
	if err != nil { // without a unit
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil || d < lowest || d > highest {
		return 0, complain(fmt.Sprintf("%s, of %v to %v", spanHint, lowest, highest), "%.40q is not possible here", s)
	}
	return d, complaint{}
}

func (p reader) span(t text, into *time.Duration, lowest, highest time.Duration) {
	if !t.given() {
		return
	}
	if d, bad := parseSpan(t.value, lowest, highest); p.accept(t, bad) {
		*into = d
	}
}

// timing reads what checks have in common, and what stands for them all.
func (p reader) timing(raw *rawTiming, into *CheckTiming) {
	p.span(raw.Interval, &into.Interval, minInterval, maxInterval)
	p.span(raw.Timeout, &into.Timeout, minInterval, maxInterval)
	p.number(raw.Rise, &into.Rise, 1, maxRise)
	p.number(raw.Fall, &into.Fall, 1, maxRise)
	p.span(raw.HoldDown, &into.HoldDown, 0, maxInterval)
	p.span(raw.Recheck, &into.Recheck, 0, maxInterval)
	if raw.Interval.given() && !raw.Timeout.given() {
		into.Timeout = min(into.Timeout, into.Interval)
	}
	if into.Timeout > into.Interval {
		at := raw.Timeout
		if !at.given() {
			at = raw.Interval
		}
		p.add(at.at, "a check is over before the next one begins", "the timeout %v is longer than the interval %v", into.Timeout, into.Interval)
	}
}

// checking reads what a service says of checks. Its servers are known.
func (p reader) checking(raw *rawService, s *located, defaults CheckTiming) {
	c := &s.Checking
	key := s.ServiceKey
	c.Checks = p.checks(raw.Check, raw.Checks, key, defaults)
	for i := range raw.Servers {
		r := &raw.Servers[i]
		if r.Check.At.Line == 0 && !r.Check.Type.given() && !r.Unchecked.given() && r.Checks == nil {
			continue
		}
		off := false
		p.boolean(r.Unchecked, "unchecked", &off)
		own := ServerChecks{Checks: p.checks(r.Check, r.Checks, key, defaults)}
		if off && own.Checks != nil {
			p.add(r.Unchecked.at, "leave one of them out", "a server can't have checks and be unchecked")
		}
		if endpoint, bad := parseEndpoint(r.Address.value, int(s.Address.Port())); bad.ok() && (off || own.Checks != nil) {
			own.Server = endpoint
			c.Servers = append(c.Servers, own)
		}
	}
	for _, v := range s.Servers {
		for _, spec := range c.Of(v.Address) {
			p.faults(checkPortFaults(spec, v), nil, raw.At)
		}
	}
	p.consequences(raw, s)
}

// consequences reads what follows from checks.
func (p reader) consequences(raw *rawService, s *located) {
	c := &s.Checking
	if raw.Sorry.given() {
		endpoint, bad := parseEndpoint(raw.Sorry.value, int(s.Address.Port()))
		if p.accept(raw.Sorry, bad) {
			sorry := control.ServerSpec{Address: endpoint, Weight: 1, Method: control.MethodNAT}
			p.faults(serverFaults(s.ServiceKey, sorry), nil, raw.Sorry.at)
			if slices.ContainsFunc(s.Servers, func(v control.ServerSpec) bool { return v.Address == endpoint }) {
				p.add(raw.Sorry.at, "name another server", "server %s can't stand in for itself", endpoint)
			}
			c.Sorry = endpoint
		}
	}
	p.span(raw.SlowStart, &c.SlowStart, 0, maxInterval)
	if c.SlowStart > 0 && !ramps(s.Scheduler) {
		p.add(raw.SlowStart.at, "use one that shares connections out by weight: "+strings.Join(rampers, ", "),
			"scheduler %s cannot raise a server's share gradually", s.Scheduler)
	}
	if raw.Panic.given() {
		n, bad := parseInt(strings.TrimSuffix(raw.Panic.value, "%"), 0, 100)
		if !bad.ok() {
			bad = complain("a share of the servers such as 30%", "%.20q is no percentage", raw.Panic.value)
		}
		if p.accept(raw.Panic, bad) {
			c.Panic = n
		}
	}
	p.number(raw.Quorum.Min, &c.Quorum.Min, 1, 65535)
	word(p, raw.Quorum.Of, "of", &c.Quorum.Of, QuorumOfServers, QuorumOfWeights)
	if c.Quorum.Of == QuorumOfServers {
		c.Quorum.Of = ""
	}
	p.number(raw.Quorum.Hysteresis, &c.Quorum.Hysteresis, 0, 65535)
	c.Quorum.Up, c.Quorum.Down = p.program(raw.Quorum.Up), p.program(raw.Quorum.Down)
	if raw.Quorum.At.Line != 0 && c.Quorum.Min == 0 && !raw.Quorum.Min.given() {
		p.add(raw.Quorum.At, "add min: the number of servers", "a quorum needs a number")
	}
	word(p, raw.OnCheckFailed, "on-check-failed", &c.OnFailed, OnFailedInhibit, OnFailedRemove)
	word(p, raw.Start, "start", &c.Start, StartUnknown, StartUp)
	if c.OnFailed == OnFailedInhibit {
		c.OnFailed = ""
	}
	if c.Start == StartUnknown {
		c.Start = ""
	}
}

// scriptUser reads who runs scripts. Whether there is such a user shows at the start.
func (p reader) scriptUser(t text, c *Config) {
	if !t.given() || t.refused {
		return
	}
	if t.value == "" || strings.ContainsAny(t.value, ": /") {
		p.add(t.at, "a name or number of a user", "%.40q is no user", t.value)
		return
	}
	c.ScriptUser = t.value
}

// rampers are the schedulers under which a server's share follows its weight and
// nothing else depends on it: with sh and mh clients would move at each step, with
// fo and ovf the weight is an order, and to the others it means yes or no.
var rampers = []string{"wrr", "wlc", "sed", "nq", "twos"}

// ramps reports whether slow start is possible.
func ramps(scheduler string) bool { return slices.Contains(rampers, scheduler) }

// Ramps reports whether a scheduler can raise a server's share gradually.
func Ramps(scheduler string) bool { return ramps(scheduler) }

// program reads a program and its arguments, as a list or as words in one line.
func (p reader) program(list words) []string {
	if len(list) == 0 {
		return nil
	}
	argv := list.values()
	if len(argv) == 1 {
		argv = strings.Fields(argv[0])
	}
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		p.add(list.first().at, "write its absolute path: no shell looks for it", "%.60q is no program", strings.Join(argv, " "))
		return nil
	}
	return argv
}

// checks reads the check of a service or server, or the list of them.
func (p reader) checks(one rawCheck, list []rawCheck, key control.ServiceKey, defaults CheckTiming) []health.Spec {
	if one.At.Line != 0 || one.Type.given() {
		if list != nil {
			p.add(one.At, "put all of them into checks", "check and checks are both given")
		}
		list = []rawCheck{one}
	}
	var out []health.Spec
	for i := range list {
		if spec, ok := p.check(&list[i], key, defaults); ok {
			out = append(out, spec)
		}
	}
	return out
}

// check reads one check. Its type may have a word behind it, which is its main
// argument: "http /health".
func (p reader) check(raw *rawCheck, key control.ServiceKey, defaults CheckTiming) (health.Spec, bool) {
	known := len(p.list)
	if !raw.Type.given() {
		if raw.At.Line != 0 {
			p.add(raw.At, "one of: "+strings.Join(health.Types(), ", "), "a check needs a type")
		}
		return health.Spec{}, false
	}
	kind, argument, _ := strings.Cut(raw.Type.value, " ")
	argument = strings.TrimSpace(argument)
	if raw.Type.refused || !slices.Contains(health.Types(), kind) {
		if !raw.Type.refused {
			p.add(raw.Type.at, oneOf(kind, health.Types()), "unknown check %.40q", kind)
		}
		return health.Spec{}, false
	}
	timing := defaults
	p.timing(&raw.rawTiming, &timing)
	s := health.Spec{Type: kind, Interval: timing.Interval, Timeout: timing.Timeout, Recheck: timing.Recheck, Limits: timing.Limits}
	p.main(raw, &s, argument)
	p.foreign(raw, kind)
	if raw.Address.given() {
		var bad complaint
		if s.Address, bad = parseAddress(raw.Address.value); p.accept(raw.Address, bad) {
			p.faults(addressFaults("address", "a check", s.Address), nil, raw.Address.at)
		}
	}
	port := 0
	p.number(raw.Port, &port, 1, 65535)
	s.Port = uint16(port)
	if len(p.list) > known {
		return s, false
	}
	if bad, err := s.Check(); err != nil {
		at := raw.texts()[bad]
		if !at.given() {
			at = raw.Type
		}
		p.add(at.at, "see reference.yaml, or vsnat config init", "%s: %v", bad, err)
		return s, false
	}
	return s, true
}

// main reads what only some types have.
func (p reader) main(raw *rawCheck, s *health.Spec, argument string) {
	set := func(into *string, t text, standard string) {
		*into = standard
		if t.given() {
			*into = t.value
		}
	}
	switch s.Type {
	case health.HTTP, health.HTTPS:
		s.URLs = raw.URL.values()
		if argument != "" {
			s.URLs = append(strings.Fields(argument), s.URLs...)
		}
		if len(s.URLs) == 0 {
			s.URLs = []string{"/"}
		}
		at := raw.Type
		if len(raw.URL) > 0 {
			at = raw.URL.first()
		}
		for _, u := range s.URLs {
			if err := health.CheckURL(u); err != nil {
				p.add(at.at, "the address is the server's; a name goes into host", "%v", err)
			}
		}
		set(&s.Method, raw.Method, "GET")
		if s.Method == "" || strings.Trim(s.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			p.add(raw.Method.at, "GET, HEAD, …", "%.20q is no method of HTTP", s.Method)
		}
		for _, h := range raw.Headers {
			s.Headers = append(s.Headers, h.value)
		}
		set(&s.Host, raw.Host, "")
		set(&s.ServerName, raw.ServerName, "")
		s.Status = strings.Join(raw.Status.values(), ",")
		if s.Status == "" {
			s.Status = "200-299"
		}
		set(&s.Body, raw.Body, "")
		set(&s.BodyRegexp, raw.BodyRegexp, "")
		set(&s.Digest, raw.Digest, "")
		verify := true
		p.boolean(raw.Verify, "verify", &verify)
		s.NoVerify = !verify
		p.boolean(raw.HTTP2, "http2", &s.HTTP2)
	case health.UDP:
		set(&s.Send, raw.Send, argument)
		set(&s.Expect, raw.Expect, "")
	case health.DNS:
		set(&s.Name, raw.Name, argument)
		if s.Name == "" {
			s.Name = "."
		}
		set(&s.Query, raw.Query, "SOA")
		s.Query = strings.ToUpper(s.Query)
		set(&s.Expect, raw.Expect, "")
	case health.SMTP:
		set(&s.Name, raw.Name, argument)
	case health.Script, health.File:
		if s.Command = p.program(raw.Command); argument != "" && s.Command == nil {
			s.Command = p.program(words{{value: argument, at: raw.Type.at}})
		}
		switch {
		case s.Command == nil && argument == "" && !raw.Command.first().given():
			p.add(raw.Type.at, "for example \"script /usr/local/bin/check\"", "a check of type %s needs a path", s.Type)
		case s.Type == health.File && len(s.Command) > 1:
			p.add(raw.Type.at, "one path", "a file has no arguments")
		}
	}
	if argument != "" && (s.Type == health.TCP || s.Type == health.ICMP) {
		p.add(raw.Type.at, "leave it out", "%.40q says nothing to a check of type %s", argument, s.Type)
	}
}

// belongs lists the keys that only some types have.
var belongs = map[string][]string{
	"url": {health.HTTP, health.HTTPS}, "method": {health.HTTP, health.HTTPS}, "headers": {health.HTTP, health.HTTPS},
	"host": {health.HTTP, health.HTTPS}, "server-name": {health.HTTPS}, "status": {health.HTTP, health.HTTPS},
	"body": {health.HTTP, health.HTTPS}, "body-regexp": {health.HTTP, health.HTTPS}, "digest": {health.HTTP, health.HTTPS},
	"verify": {health.HTTPS}, "http2": {health.HTTP, health.HTTPS}, "send": {health.UDP}, "expect": {health.UDP, health.DNS},
	"name": {health.DNS, health.SMTP}, "query": {health.DNS}, "command": {health.Script, health.File},
}

// foreign refuses what says nothing to a check of this type.
func (p reader) foreign(raw *rawCheck, kind string) {
	for key, t := range raw.texts() {
		if types := belongs[key]; t.given() && !slices.Contains(types, kind) {
			p.add(t.at, "it belongs to "+strings.Join(types, ", "), "a check of type %s has no %s", kind, key)
		}
	}
}

// texts are the keys of belongs.
func (raw *rawCheck) texts() map[string]text {
	return map[string]text{
		"url": raw.URL.first(), "method": raw.Method, "headers": raw.Headers.first(), "host": raw.Host,
		"server-name": raw.ServerName, "status": raw.Status.first(), "body": raw.Body, "body-regexp": raw.BodyRegexp,
		"digest": raw.Digest, "verify": raw.Verify, "http2": raw.HTTP2, "send": raw.Send, "expect": raw.Expect,
		"name": raw.Name, "query": raw.Query, "command": raw.Command.first(),
	}
}

// checkPortFaults tells if a check has no port to go to.
func checkPortFaults(spec health.Spec, server control.ServerSpec) []fault {
	switch spec.Type {
	case health.ICMP, health.Script, health.File:
		return nil
	}
	if spec.Port != 0 || server.Address.Port() != 0 {
		return nil
	}
	return []fault{{"port", fmt.Sprintf("a check of type %s of server %s needs a port", spec.Type, server.Address.Addr()), "add port: to the check"}}
}
