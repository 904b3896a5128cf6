// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/sched/health"
)

// The checks of keepalived.

func isCheck(name string) bool {
	return strings.HasSuffix(name, "_CHECK") || strings.HasSuffix(name, "_GET")
}

// checks are what a block such as HTTP_GET means: one check, or several of which all
// must be good.
func (v *virtual) checks(d *directive, t timing, host string) []health.Spec {
	s := health.Spec{}
	var list []health.Spec
	switch d.name() {
	case "TCP_CHECK":
		s.Type = health.TCP
	case "PING_CHECK":
		s.Type = health.ICMP
	case "HTTP_GET", "SSL_GET":
		s.Type, s.Method, s.Host = health.HTTP, "GET", host
		if d.name() == "SSL_GET" {
			s.Type, s.NoVerify = health.HTTPS, true // there no certificate is looked at
		}
	case "SMTP_CHECK":
		s.Type = health.SMTP
	case "DNS_CHECK":
		s.Type, s.Query, s.Name = health.DNS, "SOA", "."
	case "MISC_CHECK":
		s.Type = health.Script
	case "UDP_CHECK":
		s.Type = health.UDP
	case "FILE_CHECK":
		s.Type = health.File
	default:
		v.left(d, "there is no such check")
		return nil
	}
	dynamic, replies := false, false
	var urls []*directive
	for n := range d.block {
		o := &d.block[n]
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
			urls = append(urls, o)
		case "virtualhost":
			s.Host = o.arg(1)
		case "http_protocol":
			v.left(o, "the version of HTTP is agreed on with the server")
		case "enable_sni":
		case "helo_name":
			s.Name = o.arg(1)
		case "host": // of SMTP_CHECK
			list = append(list, v.checks(&directive{file: o.file, line: o.line, words: d.words, block: o.block}, t, host)...)
		case "type":
			s.Query = o.arg(1)
		case "name":
			s.Name = o.arg(1)
		case "misc_path":
			s.Command = strings.Fields(strings.Join(o.words[1:], " "))
		case "misc_timeout":
			t.timeout = v.number(o)
		case "misc_dynamic":
			dynamic = true
		case "user":
			v.left(o, "all scripts run as the user that script-user names")
		case "payload":
			s.Send = "hex: " + strings.Join(o.words[1:], " ")
		case "require_reply":
			replies = true
			if len(o.words) > 1 {
				s.Expect = "hex: " + strings.Join(o.words[1:], " ")
			}
		case "track_file":
			if s.Command = []string{v.files[o.arg(1)]}; s.Command[0] == "" {
				v.left(o, "there is no such file")
				return nil
			}
		default:
			if !v.timed(o, &t) {
				v.left(o, "it has no counterpart")
			}
		}
	}
	v.times(&s, t)
	switch s.Type {
	case health.HTTP, health.HTTPS:
		return v.pages(s, urls)
	case health.SMTP:
		if len(list) > 0 {
			for n := range list {
				if list[n].Name == "" {
					list[n].Name = s.Name
				}
			}
			return list
		}
	case health.Script:
		if !dynamic {
			v.left(d, "without misc_dynamic: here a status of 2 to 255 is good as well, and sets the weight")
		}
	case health.UDP:
		if !replies {
			v.left(d, "without require_reply: a server that need not answer cannot be checked by UDP, it is pinged")
			s = health.Spec{Type: health.ICMP, Address: s.Address}
			v.times(&s, t)
		}
	}
	return []health.Spec{s}
}

// times fills in the times: up after one success, as in keepalived, and never held
// down.
func (v *virtual) times(s *health.Spec, t timing) {
	second := func(n int) time.Duration { return time.Duration(max(n, 1)) * time.Second }
	s.Interval, s.Timeout = second(t.interval), second(t.timeout)
	s.Limits = health.Limits{Rise: 1, Fall: t.retry + 1}
	if d := config.DefaultCheckTiming(); s.Timeout == 0 {
		s.Timeout = d.Timeout
	}
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
		for n := range u.block {
			o := &u.block[n]
			switch o.name() {
			case "path":
				path = o.arg(1)
			case "status_code":
				one.Status = strings.Join(strings.FieldsFunc(strings.Join(o.words[1:], ","), func(r rune) bool { return r == ',' }), ",")
			case "regex":
				one.BodyRegexp = o.arg(1)
			case "virtualhost":
				one.Host = o.arg(1)
			case "digest":
				v.left(o, "it is an MD5; here it is a SHA-256: curl -s URL | sha256sum")
			default:
				v.left(o, "it has no counterpart")
			}
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
