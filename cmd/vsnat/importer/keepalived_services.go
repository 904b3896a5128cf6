// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched/health"
)

func seconds(n int) control.Duration { return control.Duration(time.Duration(n) * time.Second) }

// elsewhere says of blocks of keepalived.conf why they are not carried over.
func elsewhere(name string) string {
	switch {
	case strings.HasPrefix(name, "vrrp_"):
		return "there is no hot standby yet"
	case strings.HasPrefix(name, "static_"):
		return "addresses, routes and rules of the host are left to the host"
	}
	return "it has no counterpart"
}

// keepalived takes the directives of the outermost level up.
func (i *Importer) keepalived(list []directive) {
	groups, files := make(map[string]*directive), make(map[string]string)
	for n := range list {
		d := &list[n]
		switch d.name() {
		case "virtual_server_group":
			groups[d.arg(1)] = d
		case "track_file", "vrrp_track_file":
			for _, o := range d.block {
				if o.name() == "file" {
					files[d.arg(1)] = o.arg(1)
				}
			}
		}
	}
	for n := range list {
		switch d := &list[n]; d.name() {
		case "virtual_server_group", "track_file", "vrrp_track_file":
		case "global_defs":
			i.globals(d)
		case "virtual_server":
			(&virtual{Importer: i, files: files}).read(d, groups)
		default:
			i.note(d.file, d.line, words(d.words), elsewhere(d.name()))
		}
	}
}

// globals takes up what of the global definitions concerns services.
func (i *Importer) globals(d *directive) {
	var others []string
	for n := range d.block {
		o := &d.block[n]
		switch o.name() {
		case "lvs_timeouts":
			for k := 1; k < len(o.words); k += 2 {
				to := map[string]*control.Duration{"tcp": &i.cfg.Timeouts.Established, "tcpfin": &i.cfg.Timeouts.FinWait, "udp": &i.cfg.Timeouts.UDP}[o.arg(k)]
				seconds, err := strconv.ParseUint(o.arg(k+1), 10, 21)
				if to == nil || err != nil || seconds == 0 || seconds > maxTimeout {
					i.note(o.file, o.line, words(o.words), "tcp, tcpfin or udp and seconds are expected")
					break
				}
				*to = control.Duration(time.Duration(seconds) * time.Second)
			}
		case "script_user":
			if i.cfg.ScriptUser = o.arg(1); acceptable(i.cfg) != nil || i.cfg.ScriptUser == "" {
				i.note(o.file, o.line, words(o.words), "a user is expected")
				i.cfg.ScriptUser = config.DefaultScriptUser
			}
		default:
			others = append(others, o.name())
		}
	}
	if len(others) > 0 {
		i.note(d.file, d.line, words(d.words), "this concerns keepalived itself and its mails: "+strings.Join(others, ", "))
	}
}

// maxTimeout is the longest idle time of a configuration, in seconds.
const maxTimeout = 31 * 24 * 60 * 60

// virtual is a virtual_server that is read.
type virtual struct {
	*Importer
	files map[string]string // by the name of a track_file

	service  config.Service
	proto    string
	timing   timing
	host     string // virtualhost
	tunnel   control.Tunnel
	alpha    bool
	inhibit  bool // all servers, unless they say otherwise
	inhibits int
	weighted bool // some server has another weight than 1
}

// timing is what virtual servers, real servers and checks may all say. What is negative
// nobody has said.
type timing struct {
	interval, timeout, pause time.Duration // pause: delay_before_retry
	retry                    int
}

func (v *virtual) left(d *directive, why string) { v.note(d.file, d.line, words(d.words), why) }

// read takes one up: a service for each of its names.
func (v *virtual) read(d *directive, groups map[string]*directive) {
	v.timing = timing{interval: time.Minute, timeout: -1, pause: -1, retry: -1}
	v.service.Scheduler = control.DefaultScheduler
	method := control.MethodNAT
	for n := range d.block {
		v.option(&d.block[n], &method)
	}
	for n := range d.block {
		if o := &d.block[n]; o.name() == "real_server" {
			v.server(o, method)
		}
	}
	c := &v.service.Checking
	if checked := len(c.Servers) > 0; checked && !v.alpha {
		c.Start = config.StartUp
	}
	if v.inhibits < len(v.service.Servers) && len(c.Servers) > 0 {
		c.OnFailed = config.OnFailedRemove
		if v.inhibits > 0 {
			v.left(d, "inhibit_on_failure holds for a whole service here: its servers are removed")
		}
	}
	if c.Quorum.Min > 0 && v.weighted {
		c.Quorum.Of = config.QuorumOfWeights
	}
	if v.proto == "" {
		v.proto = control.TCP
		if datagrams(c) {
			v.proto = control.UDP
		} else if d.arg(1) != "fwmark" {
			v.left(d, "it has no protocol: TCP is taken, where keepalived takes UDP")
		}
	}
	v.simplify()
	keys := v.keys(d, groups)
	for _, k := range keys {
		s := v.service
		s.ServiceKey = k
		s.Servers = slices.Clone(s.Servers)
		v.add(d.file, d.line, s)
	}
}

// datagrams reports whether servers have checks, all of them by UDP.
func datagrams(c *config.Checking) bool {
	for _, s := range c.Servers {
		for _, k := range s.Checks {
			if k.Type != health.DNS && k.Type != health.UDP {
				return false
			}
		}
	}
	return len(c.Servers) > 0
}

// option takes up what a virtual_server says for all its servers.
func (v *virtual) option(d *directive, method *string) {
	s, c := &v.service, &v.service.Checking
	switch d.name() {
	case "real_server":
	case "lb_algo", "lvs_sched":
		s.Scheduler = d.arg(1)
		if len(d.words) > 2 {
			v.left(d, "flags of the scheduler go to sched-flags, by hand")
		}
	case "lb_kind", "lvs_method":
		*method = v.method(d)
		v.tunnel = v.tunnelOf(d)
	case "sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3":
		v.flag(d.name())
	case "inhibit_on_failure":
		v.inhibit = v.yes(d)
	case "notify_up", "notify_down":
		v.left(d, noPrograms)
	case "protocol":
		v.proto = strings.ToLower(d.arg(1))
	case "persistence_timeout":
		n := 360
		if len(d.words) > 1 {
			n = v.number(d)
		}
		s.Persistence.Timeout = seconds(n)
	case "persistence_granularity":
		s.Persistence.Mask = d.arg(1)
		if n, err := strconv.Atoi(d.arg(1)); err == nil && n == 128 {
			s.Persistence.Mask = ""
		}
	case "ops":
		s.OnePacket = true
	case "virtualhost":
		v.host = d.arg(1)
	case "alpha":
		v.alpha = v.yes(d)
	case "persistence_engine":
		v.left(d, "there are no persistence engines here; persistence is by address")
	case "ha_suspend":
		v.left(d, "checks go on whatever addresses this host has")
	case "sorry_server_inhibit":
		v.left(d, "the sorry server is there while it is needed, and keeps its connections")
	case "omega":
		v.left(d, "the programs of the quorum are not run when vsnat ends")
	case "quorum":
		c.Quorum.Min = v.number(d)
	case "hysteresis":
		c.Quorum.Hysteresis = v.number(d)
	case "quorum_up":
		c.Quorum.Up = v.program(d)
	case "quorum_down":
		c.Quorum.Down = v.program(d)
	case "sorry_server":
		if a, ok := v.endpoint(d, 1); ok {
			c.Sorry = a
		}
	default:
		if !v.timed(d, &v.timing) {
			v.left(d, "it has no counterpart")
		}
	}
}

// noPrograms is said of programs that would be run for a server.
const noPrograms = "no program is run for a server: vsnat events -f -o json tells of it"

// timed takes up the times that all levels may set.
func (v *virtual) timed(d *directive, t *timing) bool {
	switch d.name() {
	case "delay_loop":
		t.interval = max(v.duration(d), 10*time.Millisecond)
	case "connect_timeout":
		t.timeout = v.duration(d)
	case "retry", "nb_get_retry":
		t.retry = v.number(d)
	case "delay_before_retry":
		t.pause = v.duration(d)
	case "warmup":
		v.left(d, "the first round comes at once, spread a little")
	default:
		return false
	}
	return true
}

// duration is the first argument, seconds or a part of them; 0, with a note, if it is
// none.
func (v *virtual) duration(d *directive) time.Duration {
	f, err := strconv.ParseFloat(d.arg(1), 64)
	if err != nil || !(f >= 0 && f <= 24*60*60) {
		v.left(d, "seconds are expected, up to a day")
		return 0
	}
	return time.Duration(f*1e6) * time.Microsecond
}

// number is the first argument; 0, with a note, if it is none.
func (v *virtual) number(d *directive) int {
	n, err := strconv.ParseUint(d.arg(1), 10, 31)
	if err != nil {
		v.left(d, "a number is expected")
		return 0
	}
	return int(n)
}

// yes is a switch, which is on if nothing is said.
func (v *virtual) yes(d *directive) bool {
	return !slices.Contains([]string{"off", "no", "false"}, strings.ToLower(d.arg(1)))
}

// flag takes up a flag of the scheduler, by its name or number.
func (v *virtual) flag(name string) {
	named := map[string]string{"shflag-1": "sh-fallback", "shflag-2": "sh-port", "mhflag-1": "mh-fallback", "mhflag-2": "mh-port"}
	if known := named[v.service.Scheduler+name]; known != "" {
		name = known
	}
	if v.service.SchedFlags != "" {
		name = v.service.SchedFlags + "," + name
	}
	v.service.SchedFlags = name
}

// tunnelOf is what packets are wrapped in: TUN type gue port 6080 csum.
func (v *virtual) tunnelOf(d *directive) (t control.Tunnel) {
	for n := 2; n < len(d.words); n++ {
		switch w := d.words[n]; w {
		case "type":
			n++
			t.Type = d.arg(n)
		case "port":
			n++
			port, err := strconv.ParseUint(d.arg(n), 10, 16)
			if err != nil {
				v.left(d, "a port is expected")
			}
			t.Port = uint16(port)
		case "csum", "nocsum", "remcsum":
			t.Checksum = w
		default:
			v.left(d, w+" says nothing about a tunnel")
		}
	}
	return t
}

func (v *virtual) method(d *directive) string {
	switch strings.ToUpper(d.arg(1)) {
	case "NAT":
		return control.MethodNAT
	case "DR":
		return control.MethodRoute
	case "TUN":
		return control.MethodTunnel
	}
	v.left(d, "unknown way to forward: masquerading is taken")
	return control.MethodNAT
}

// program is a command with its arguments, of which there may be several in quotes.
func (v *virtual) program(d *directive) []string {
	if len(d.words) > 2 {
		v.left(d, "what follows the program in quotes, such as its time-out, is left out")
	}
	return program(d.arg(1))
}

// endpoint is an address and a port.
func (v *virtual) endpoint(d *directive, from int) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(d.arg(from))
	port := uint64(0)
	if err == nil && d.arg(from+1) != "" {
		port, err = strconv.ParseUint(d.arg(from+1), 10, 16)
	}
	if err != nil {
		v.left(d, "an address and a port are expected")
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}

// server takes a real_server up.
func (v *virtual) server(d *directive, method string) {
	addr, ok := v.endpoint(d, 1)
	if !ok {
		return
	}
	s := control.ServerSpec{Address: addr, Weight: 1, Method: method, Tunnel: v.tunnel}
	t, host, inhibit := v.timing, v.host, v.inhibit
	var checks []health.Spec
	for n := range d.block {
		o := &d.block[n]
		switch o.name() {
		case "weight":
			if s.Weight = v.number(o); s.Weight > control.MaxWeight {
				v.left(o, fmt.Sprintf("%d is the largest weight, and taken", control.MaxWeight))
				s.Weight = control.MaxWeight
			}
		case "uthreshold":
			s.Upper = v.number(o)
		case "lthreshold":
			s.Lower = v.number(o)
		case "lvs_method", "lb_kind":
			s.Method, s.Tunnel = v.method(o), v.tunnelOf(o)
		case "inhibit_on_failure":
			inhibit = v.yes(o)
		case "alpha":
			v.alpha = v.alpha || v.yes(o)
		case "notify_up", "notify_down":
			v.left(o, noPrograms)
		case "virtualhost":
			host = o.arg(1)
		default:
			if !v.timed(o, &t) && !isCheck(o.name()) {
				v.left(o, "it has no counterpart")
			}
		}
	}
	for n := range d.block {
		if o := &d.block[n]; isCheck(o.name()) {
			checks = append(checks, v.checks(o, t, host)...)
		}
	}
	if inhibit {
		v.inhibits++
	}
	v.weighted = v.weighted || s.Weight != 1
	v.service.Servers = append(v.service.Servers, s)
	if len(checks) > 0 {
		v.service.Checking.Servers = append(v.service.Checking.Servers, config.ServerChecks{Server: addr, Checks: checks})
	}
}

// simplify says once for the service what all its servers say.
func (v *virtual) simplify() {
	c := &v.service.Checking
	if len(c.Servers) == 0 || len(c.Servers) != len(v.service.Servers) {
		return
	}
	for _, o := range c.Servers {
		if fmt.Sprint(o.Checks) != fmt.Sprint(c.Servers[0].Checks) {
			return
		}
	}
	c.Checks, c.Servers = c.Servers[0].Checks, nil
}
