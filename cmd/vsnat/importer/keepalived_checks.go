// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/sched/health"
)

// The checks of keepalived.

func isCheck(name string) bool {
	return strings.HasSuffix(name, "_CHECK") || strings.HasSuffix(name, "_GET")
}

// A checkBlock is a block such as HTTP_GET while it is read.
type checkBlock struct {
	spec    health.Spec
	timing  timing
	urls    []*directive
	hosts   []health.Spec // of SMTP_CHECK, which may name several
	dynamic bool          // of MISC_CHECK: its status sets the weight
	replies bool          // of UDP_CHECK: the server has to answer
}

// checks are what a block means: one check, or several of which all must be good.
func (v *virtual) checks(d *directive, t timing, host string) []health.Spec {
	b := checkBlock{timing: t}
	var known bool
	if b.spec, known = startOfCheck(d.name(), host); !known {
		v.left(d, "there is no such check")
		return nil
	}
	for n := range d.block {
		o := &d.block[n]
		switch {
		case o.name() == "host":
			b.hosts = append(b.hosts, v.checks(&directive{file: o.file, line: o.line, words: d.words, block: o.block}, b.timing, host)...)
		case !v.checkWord(&b, o):
			return nil
		}
	}
	return v.checksOf(d, &b)
}

// startOfCheck is what a check has that says nothing more.
func startOfCheck(name, host string) (s health.Spec, known bool) {
	switch name {
	case "TCP_CHECK":
		return health.Spec{Type: health.TCP}, true
	case "PING_CHECK":
		return health.Spec{Type: health.ICMP}, true
	case "HTTP_GET":
		return health.Spec{Type: health.HTTP, Method: "GET", Host: host}, true
	case "SSL_GET": // which looks at no certificate
		return health.Spec{Type: health.HTTPS, Method: "GET", Host: host, NoVerify: true}, true
	case "SMTP_CHECK":
		return health.Spec{Type: health.SMTP}, true
	case "DNS_CHECK":
		return health.Spec{Type: health.DNS, Query: "SOA", Name: "."}, true
	case "MISC_CHECK":
		return health.Spec{Type: health.Script}, true
	case "UDP_CHECK":
		return health.Spec{Type: health.UDP}, true
	case "FILE_CHECK":
		return health.Spec{Type: health.File}, true
	}
	return s, false
}

// checkWord takes up one line of a block. It reports false where nothing can be checked.
func (v *virtual) checkWord(b *checkBlock, o *directive) bool {
	s := &b.spec
	switch o.name() {
	case "connect_ip":
		a, err := netip.ParseAddr(o.arg(1))
		if err != nil {
			v.left(o, "an address is expected")
		}
		s.Address = a
	case "connect_port":
		n, err := strconv.ParseUint(o.arg(1), 10, 16)
		if err != nil {
			v.left(o, "a port is expected")
		}
		s.Port = uint16(n)
	case "url":
		b.urls = append(b.urls, o)
	case "virtualhost":
		s.Host = o.arg(1)
	case "http_protocol":
		v.left(o, "the version of HTTP is agreed on with the server")
	case "enable_sni":
	case "helo_name", "name":
		s.Name = o.arg(1)
	case "type":
		s.Query = o.arg(1)
	case "misc_path":
		s.Command = program(words(o.words[1:]))
	case "misc_timeout":
		b.timing.timeout = v.duration(o)
	case "misc_dynamic":
		b.dynamic = true
	case "user":
		v.left(o, "all scripts run as the user that script-user names")
	case "payload":
		s.Send = "hex: " + v.bytes(o)
	case "require_reply":
		b.replies = true
		if len(o.words) > 1 {
			s.Expect = "hex: " + v.bytes(o) + "*"
		}
	case "track_file":
		if s.Command = []string{v.files[o.arg(1)]}; s.Command[0] == "" {
			v.left(o, "there is no such file")
			return false
		}
	default:
		if !v.timed(o, &b.timing) {
			v.left(o, "it has no counterpart")
		}
	}
	return true
}

// retries is how often a check of a type is tried again if nothing is said, and after
// what time; negative: with the next one.
func retries(kind string) (n int, pause time.Duration) {
	switch kind {
	case health.HTTP, health.HTTPS:
		return 1, 3 * time.Second
	case health.DNS:
		return 3, -1
	case health.Script, health.File:
		return 0, -1
	}
	return 1, time.Second
}

// checksOf are the checks of a block that was read.
func (v *virtual) checksOf(d *directive, b *checkBlock) []health.Spec {
	s := b.spec
	n, pause := retries(s.Type)
	if b.timing.retry < 0 {
		b.timing.retry = n
	}
	if b.timing.pause < 0 {
		b.timing.pause = pause
	}
	v.times(d, &s, b.timing)
	switch s.Type {
	case health.HTTP, health.HTTPS:
		return v.pages(s, b.urls)
	case health.SMTP:
		if len(b.hosts) > 0 {
			for n := range b.hosts {
				if b.hosts[n].Name == "" {
					b.hosts[n].Name = s.Name
				}
			}
			return b.hosts
		}
	case health.Script:
		if !b.dynamic {
			v.left(d, "without misc_dynamic: here a status of 2 to 255 is good as well, and sets the weight")
		}
	case health.UDP:
		if !b.replies {
			v.left(d, "without require_reply: a server that need not answer cannot be checked by UDP, it is pinged")
			s = health.Spec{Type: health.ICMP, Address: s.Address}
			v.times(d, &s, b.timing)
		}
	}
	return []health.Spec{s}
}

// times fills in the times: up after one success, as in keepalived, and never held
// down. Here a check is over before the next one begins.
func (v *virtual) times(d *directive, s *health.Spec, t timing) {
	s.Interval, s.Timeout = t.interval, t.timeout
	switch {
	case t.timeout < 0:
		if s.Timeout = 5 * time.Second; t.interval < s.Timeout {
			v.left(d, fmt.Sprintf("it may take %v, until the next one, instead of %v", t.interval, s.Timeout))
			s.Timeout = t.interval
		}
	case t.timeout > t.interval:
		v.left(d, fmt.Sprintf("it begins every %v, since it may take as long", t.timeout))
		s.Interval = t.timeout
	}
	s.Timeout = max(s.Timeout, 10*time.Millisecond)
	s.Limits = health.Limits{Rise: 1, Fall: t.retry + 1}
	if t.retry > 0 && t.pause >= 0 && t.pause < s.Interval {
		s.Recheck = max(t.pause, time.Millisecond)
	}
}

// bytes are those of a string of digits: pairs in each word, the last digit of an odd
// word by itself, and x for any digit.
func (v *virtual) bytes(d *directive) string {
	var list []string
	for _, w := range d.words[1:] {
		for len(w) > 0 {
			pair := w[:min(2, len(w))]
			w = w[len(pair):]
			if strings.ContainsAny(pair, "xX") {
				pair = "??"
			} else if len(pair) == 1 {
				pair = "0" + pair
			}
			list = append(list, pair)
		}
	}
	return words(list)
}

// pages are the checks of urls. Those that ask for the same are one.
func (v *virtual) pages(s health.Spec, urls []*directive) []health.Spec {
	s.Status = "200-299"
	if len(urls) == 0 {
		s.URLs = []string{"/"}
		return []health.Spec{s}
	}
	var list []health.Spec
	for _, u := range urls {
		one := s
		path := "/"
		options, inverted := "", (*directive)(nil)
		for n := range u.block {
			o := &u.block[n]
			switch o.name() {
			case "path":
				path = o.arg(1)
			case "status_code":
				one.Status = strings.Join(strings.FieldsFunc(strings.Join(o.words[1:], ","), func(r rune) bool { return r == ',' }), ",")
			case "regex":
				one.BodyRegexp = o.arg(1)
				if _, err := regexp.Compile(one.BodyRegexp); err != nil {
					v.left(o, "it is left out: "+err.Error())
					one.BodyRegexp = ""
				}
			case "regex_no_match":
				inverted = o
			case "regex_options":
				for _, w := range o.words[1:] {
					switch w {
					case "caseless":
						options += "i"
					case "multiline":
						options += "m"
					case "dotall":
						options += "s"
					default:
						v.left(o, w+" has no counterpart")
					}
				}
			case "virtualhost":
				one.Host = o.arg(1)
			case "digest":
				one.Digest = strings.ToLower(o.arg(1))
			default:
				v.left(o, "it has no counterpart")
			}
		}
		switch {
		case inverted != nil:
			v.left(inverted, "what the body must not have can't be said: the expression is left out")
			one.BodyRegexp = ""
		case one.BodyRegexp != "" && options != "":
			one.BodyRegexp = "(?" + options + ")" + one.BodyRegexp
		}
		if last := len(list) - 1; last >= 0 {
			same := list[last]
			same.URLs = nil
			if fmt.Sprint(same) == fmt.Sprint(one) {
				list[last].URLs = append(list[last].URLs, path)
				continue
			}
		}
		one.URLs = []string{path}
		list = append(list, one)
	}
	return list
}
