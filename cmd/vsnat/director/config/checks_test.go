// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/sched/health"
)

const checkedService = "services:\n  - tcp: 192.0.2.1:80\n    servers: [10.0.0.2, 10.0.0.3]\n"

// What a check may be short for.
func TestChecksShort(t *testing.T) {
	timing := DefaultCheckTiming()
	spec := func(kind string, change func(*health.Spec)) health.Spec {
		s := health.Spec{Type: kind, Interval: timing.Interval, Timeout: timing.Timeout, Limits: timing.Limits}
		if change != nil {
			change(&s)
		}
		return s
	}
	page := func(kind string, urls ...string) health.Spec {
		return spec(kind, func(s *health.Spec) { s.URLs, s.Method, s.Status = urls, "GET", "200-299" })
	}
	for _, tt := range []struct {
		text string
		want []health.Spec
	}{
		{"check: tcp", []health.Spec{spec("tcp", nil)}},
		{"checks: [tcp, icmp]", []health.Spec{spec("tcp", nil), spec("icmp", nil)}},
		{"check: http", []health.Spec{page("http", "/")}},
		{"check: http /health", []health.Spec{page("http", "/health")}},
		{"check: https /a /b", []health.Spec{page("https", "/a", "/b")}},
		{"check: dns example.com", []health.Spec{spec("dns", func(s *health.Spec) { s.Name, s.Query = "example.com", "SOA" })}},
		{"check: dns", []health.Spec{spec("dns", func(s *health.Spec) { s.Name, s.Query = ".", "SOA" })}},
		{"check: udp ping", []health.Spec{spec("udp", func(s *health.Spec) { s.Send = "ping" })}},
		{"check: smtp", []health.Spec{spec("smtp", nil)}},
		{"check: script /bin/check --fast", []health.Spec{spec("script", func(s *health.Spec) { s.Command = []string{"/bin/check", "--fast"} })}},
		{"check: file /run/weight", []health.Spec{spec("file", func(s *health.Spec) { s.Command = []string{"/run/weight"} })}},
		{"check: {type: tcp, interval: 100ms}", []health.Spec{spec("tcp", func(s *health.Spec) { s.Interval, s.Timeout = 100*time.Millisecond, 100*time.Millisecond })}},
		{"check: {type: tcp, interval: 5}", []health.Spec{spec("tcp", func(s *health.Spec) { s.Interval = 5 * time.Second })}},
	} {
		c, err := Parse("f", []byte(checkedService+"    "+tt.text+"\n"))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got := c.Services[0].Checking.Checks; !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v\n%+v", tt.text, got, tt.want)
		}
		again, err := Parse("f", Marshal(c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s comes back as\n%s%v", tt.text, Marshal(c), err)
		}
	}
}

// A server's own checks replace those of its service.
func TestChecksOfServers(t *testing.T) {
	c, err := Parse("f", []byte(`services:
  - tcp: 192.0.2.1:80
    check: tcp
    servers:
      - 10.0.0.2
      - {address: 10.0.0.3, check: icmp}
      - {address: 10.0.0.4, unchecked: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{"10.0.0.2:80": "tcp", "10.0.0.3:80": "icmp", "10.0.0.4:80": ""} {
		got := ""
		for _, s := range c.Services[0].Checking.Of(netip.MustParseAddrPort(server)) {
			got += s.Type
		}
		if got != want {
			t.Errorf("%s: %q, want %q", server, got, want)
		}
	}
	if again, err := Parse("f", Marshal(c)); err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("it comes back as\n%s%v", Marshal(c), err)
	}
}

// The defaults stand for what a check does not say, and the file says them once.
func TestCheckDefaults(t *testing.T) {
	c, err := Parse("f", []byte("check-defaults: {interval: 500ms, fall: 1}\nscript-user: check\n"+checkedService+"    check: {type: tcp, rise: 7}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Services[0].Checking.Checks[0]
	if s.Interval != time.Second/2 || s.Timeout != time.Second/2 || s.Fall != 1 || s.Rise != 7 {
		t.Errorf("%+v", s)
	}
	text := string(Marshal(c))
	if again, err := Parse("f", []byte(text)); err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("it comes back as\n%s%v", text, err)
	}
	if strings.Count(text, "interval") != 1 {
		t.Errorf("the interval is said more than once:\n%s", text)
	}
}

func TestCheckMistakes(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"check: htp /", "f:4:12: unknown check \"htp\""},
		{"checks: tcp", "f:4:13: checks is a single value, not a list"},
		{"check: tcp\n    checks: [tcp]", "f:4:12: check and checks are both given"},
		{"check: {interval: 2s}", "f:4:12: a check needs a type"},
		{"check: {type: tcp, url: /}", "f:4:29: a check of type tcp has no url"},
		{"check: {type: http, verify: false}", "f:4:33: a check of type http has no verify"},
		{"check: tcp /health", "f:4:12: \"/health\" says nothing to a check of type tcp"},
		{"check: http health", "f:4:12: \"health\" is no path"},
		{"check: {type: http, status: 99}", "f:4:33: status: \"99\" is no status"},
		{"check: {type: http, method: get}", "f:4:33: \"get\" is no method of HTTP"},
		{"check: {type: http, headers: [Accept]}", "f:4:35: headers: \"Accept\" is no header"},
		{"check: {type: http, body-regexp: \"(\"}", "f:4:38: body-regexp: error parsing regexp: missing closing ): `(`"},
		{"check: {type: http, digest: abc}", "f:4:33: digest: a digest is 64 hexadecimal digits, as sha256sum prints them, or the 32 of md5sum and genhash"},
		{"check: {type: udp, send: \"hex: 0\"}", "f:4:30: send: \"0\" is half a byte"},
		{"check: {type: dns, query: B}", "f:4:31: query: \"B\" is no type of record; write A, AAAA, SOA, …"},
		{"check: script", "f:4:12: a check of type script needs a path"},
		{"check: script check", "f:4:12: \"check\" is no program"},
		{"check: file /a b", "f:4:12: a file has no arguments"},
		{"check: {type: tcp, interval: 1ms}", "f:4:34: \"1ms\" is not possible here"},
		{"check: {type: tcp, interval: soon}", "f:4:34: \"soon\" is not possible here"},
		{"check: {type: tcp, interval: 1s, timeout: 2s}", "f:4:47: the timeout 2s is longer than the interval 1s"},
		{"check: {type: tcp, rise: 0}", "f:4:30: \"0\" is not possible here"},
		{"check: {type: tcp, port: 0}", "f:4:30: \"0\" is not possible here"},
		{"check: {type: tcp, address: 224.0.0.1}", "f:4:33: a check can't have 224.0.0.1: it is a multicast address"},
		{"sorry: 10.0.0.2:80", "f:4:12: server 10.0.0.2:80 can't stand in for itself"},
		{"sorry: 192.0.2.1:81", "f:4:12: server 192.0.2.1 is the address of the service itself"},
		{"scheduler: rr\n    slow-start: 30s", "f:5:17: scheduler rr cannot raise a server's share gradually"},
		{"panic: 130%", "f:4:12: \"130%\" is no percentage"},
		{"quorum: {up: /bin/true}", "f:4:13: a quorum needs a number"},
		{"quorum: {min: 1, up: true}", "f:4:26: \"true\" is no program"},
		{"on-check-failed: delete", "f:4:22: on-check-failed can't be \"delete\""},
		{"start: down", "f:4:12: start can't be \"down\""},
	} {
		_, err := Parse("f", []byte(checkedService+"    "+tt.text+"\n"))
		got := ""
		if err != nil {
			got, _, _ = strings.Cut(err.Error(), "\n")
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

// Checks that change are a step of their own; those that stay are none.
func TestDiffOfChecks(t *testing.T) {
	parse := func(more string) *Config {
		c, err := Parse("f", []byte(checkedService+more))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	with := parse("    check: tcp\n    sorry: 10.0.0.9\n")
	if list := Diff(with, parse("    sorry: 10.0.0.9:80\n    checks: [tcp]\n")); len(list) != 0 {
		t.Errorf("the same in other words: %v", list)
	}
	list := Diff(parse(""), with)
	if len(list) != 1 || list[0].String() != "edit checks of tcp 192.0.2.1:80: checks 0 to 1, sorry" || list[0].Restart() {
		t.Errorf("%v", list)
	}
	// A new service knows its checks before its servers come.
	list = Diff(Default(), with)
	if len(list) != 4 || list[1].Object != ObjectChecks {
		t.Errorf("%v", list)
	}
}

// TestSpans: seconds without a unit, and minutes are not milliseconds.
func TestSpans(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "5": 5 * time.Second, "0.5": time.Second / 2, "20ms": 20 * time.Millisecond, "1m": time.Minute, "2m": 2 * time.Minute, "1h": time.Hour,
	} {
		got, bad := parseSpan(text, 0, maxInterval)
		if !bad.ok() || got != want {
			t.Errorf("%s is %v (%v), want %v", text, got, bad, want)
		}
		if again, _ := parseSpan(span(got), 0, maxInterval); again != want {
			t.Errorf("%s is written as %s", text, span(got))
		}
	}
}
