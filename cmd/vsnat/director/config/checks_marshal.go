// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/sched/health"
)

// span is a time as the file has it: 2s, 500ms, 1m.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// timing writes what differs from what holds without it. prefix is the indent.
func (w *writer) timing(prefix string, t, standard CheckTiming) {
	w.set(prefix+"interval", span(t.Interval), span(standard.Interval))
	timeout := standard.Timeout
	if t.Interval != standard.Interval {
		timeout = min(timeout, t.Interval)
	}
	w.set(prefix+"timeout", span(t.Timeout), span(timeout))
	w.set(prefix+"rise", strconv.Itoa(t.Rise), strconv.Itoa(standard.Rise))
	w.set(prefix+"fall", strconv.Itoa(t.Fall), strconv.Itoa(standard.Fall))
	w.set(prefix+"hold-down", span(t.HoldDown), span(standard.HoldDown))
	w.set(prefix+"recheck", span(t.Recheck), span(standard.Recheck))
}

// checking writes what a service says of checks but for those of single servers.
func (w *writer) checking(c *Checking, defaults CheckTiming) {
	w.checks("    ", c.Checks, defaults)
	if c.Sorry.IsValid() {
		w.line("    sorry: %s", quote(c.Sorry.String()))
	}
	w.set("    slow-start", span(c.SlowStart), "0s")
	w.set("    panic", strconv.Itoa(c.Panic)+"%", "0%")
	if q := c.Quorum; q.Min != 0 {
		w.line("    quorum:")
		w.line("      min: %d", q.Min)
		w.set("      of", q.Of, "")
		w.set("      hysteresis", strconv.Itoa(q.Hysteresis), "0")
		w.list("      up", q.Up)
		w.list("      down", q.Down)
	}
	w.set("    on-check-failed", c.OnFailed, "")
	w.set("    start", c.Start, "")
}

func (w *writer) checks(indent string, list []health.Spec, defaults CheckTiming) {
	if len(list) == 0 {
		return
	}
	w.line("%schecks:", indent)
	for i := range list {
		w.check(indent+"  ", &list[i], defaults)
	}
}

func (w *writer) check(indent string, s *health.Spec, defaults CheckTiming) {
	w.line("%s- type: %s", indent, s.Type)
	indent += "  "
	if s.Type == health.HTTP || s.Type == health.HTTPS {
		w.list(indent+"url", s.URLs)
		w.set(indent+"method", s.Method, "GET")
		w.list(indent+"headers", s.Headers)
		w.set(indent+"status", s.Status, "200-299")
	}
	for _, k := range []struct{ key, value string }{
		{"host", s.Host}, {"server-name", s.ServerName}, {"body", s.Body}, {"body-regexp", s.BodyRegexp}, {"digest", s.Digest},
		{"send", s.Send}, {"expect", s.Expect}, {"name", s.Name}, {"query", s.Query},
	} {
		w.set(indent+k.key, k.value, "")
	}
	w.set(indent+"verify", strconv.FormatBool(!s.NoVerify), "true")
	w.set(indent+"http2", strconv.FormatBool(s.HTTP2), "false")
	switch {
	case len(s.Command) == 1:
		// A single text is cut at blanks, and a path may have some.
		w.list(indent+"command", s.Command)
	case len(s.Command) > 1:
		w.list(indent+"command", s.Command)
	}
	if s.Address.IsValid() {
		w.line("%saddress: %s", indent, quote(s.Address.String()))
	}
	w.set(indent+"port", strconv.Itoa(int(s.Port)), "0")
	w.timing(indent, CheckTiming{s.Interval, s.Timeout, s.Limits, s.Recheck}, defaults)
}

// checkingDifferences says in a few words what differs.
func checkingDifferences(a, b *Checking) string {
	var list []string
	if len(a.Checks) != len(b.Checks) {
		list = append(list, "checks "+strconv.Itoa(len(a.Checks))+" to "+strconv.Itoa(len(b.Checks)))
	}
	if a.Sorry != b.Sorry {
		list = append(list, "sorry")
	}
	if a.SlowStart != b.SlowStart {
		list = append(list, "slow-start "+span(a.SlowStart)+" to "+span(b.SlowStart))
	}
	if a.Panic != b.Panic {
		list = append(list, "panic "+strconv.Itoa(a.Panic)+"% to "+strconv.Itoa(b.Panic)+"%")
	}
	return strings.Join(list, ", ")
}
