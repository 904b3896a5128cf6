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
	case name == "global_defs":
		return "it concerns keepalived itself and its mails"
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
		case "virtual_server":
			(&virtual{Importer: i, files: files}).read(d, groups)
		default:
			i.note(d.file, d.line, words(d.words), elsewhere(d.name()))
		}
	}
}

// virtual is a virtual_server that is read.
type virtual struct {
	*Importer
	files map[string]string // by the name of a track_file

	service  config.Service
	proto    string
	timing   timing
	host     string // virtualhost
	alpha    bool
	inhibits int
	weighted bool // some server has another weight than 1
}

// timing is what virtual servers, real servers and checks may all say.
type timing struct {
	interval, timeout int // seconds
	retry             int
}

func (v *virtual) left(d *directive, why string) { v.note(d.file, d.line, words(d.words), why) }

// read takes one up: a service for each of its names.
func (v *virtual) read(d *directive, groups map[string]*directive) {
	v.proto = control.TCP
	v.timing = timing{interval: 60, timeout: 5, retry: 0}
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
	v.simplify()
	keys := v.keys(d, groups)
	for _, k := range keys {
		s := v.service
		s.ServiceKey = k
		s.Servers = slices.Clone(s.Servers)
		v.add(d.file, d.line, s)
	}
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
		v.alpha = true
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

// timed takes up the times that all levels may set.
func (v *virtual) timed(d *directive, t *timing) bool {
	switch d.name() {
	case "delay_loop":
		t.interval = v.number(d)
	case "connect_timeout":
		t.timeout = v.number(d)
	case "retry", "nb_get_retry":
		t.retry = v.number(d)
	case "delay_before_retry":
		v.left(d, "what failed is tried again with the next check")
	case "warmup":
		v.left(d, "the first round comes at once, spread a little")
	default:
		return false
	}
	return true
}

// number is the first argument; 0, with a note, if it is none.
func (v *virtual) number(d *directive) int {
	f, err := strconv.ParseFloat(d.arg(1), 64)
	if err != nil || f < 0 || f > 1<<31 {
		v.left(d, "a number is expected")
		return 0
	}
	return int(max(f, 0))
}

func (v *virtual) method(d *directive) string {
	switch strings.ToUpper(d.arg(1)) {
	case "NAT":
		if len(d.words) > 2 {
			break
		}
		return control.MethodNAT
	case "DR":
		return control.MethodRoute
	case "TUN":
		if len(d.words) > 2 {
			v.left(d, "the kind of tunnel goes to the server's tunnel keys, by hand")
		}
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
	return strings.Fields(d.arg(1))
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

// keys are the names of the service.
func (v *virtual) keys(d *directive, groups map[string]*directive) []control.ServiceKey {
	switch d.arg(1) {
	case "fwmark":
		return v.mark(d, d.arg(2))
	case "group":
		g := groups[d.arg(2)]
		if g == nil {
			v.left(d, "there is no such group")
			return nil
		}
		var list []control.ServiceKey
		for n := range g.block {
			o := &g.block[n]
			if o.name() == "fwmark" {
				list = append(list, v.mark(o, o.arg(1))...)
				continue
			}
			list = append(list, v.members(o)...)
		}
		return list
	}
	if a, ok := v.endpoint(d, 1); ok {
		return []control.ServiceKey{{Proto: v.proto, Address: a}}
	}
	return nil
}

func (v *virtual) mark(d *directive, text string) []control.ServiceKey {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || n == 0 {
		v.left(d, "a mark is a number of 1 to 4294967295")
		return nil
	}
	proto := control.Mark
	if len(v.service.Servers) > 0 && v.service.Servers[0].Address.Addr().Is6() {
		proto = control.Mark6
	}
	return []control.ServiceKey{{Proto: proto, Mark: uint32(n)}}
}

// members are the services of a line of a group: an address, or a range of them
// whose last number counts up.
func (v *virtual) members(d *directive) []control.ServiceKey {
	first, last, isRange := strings.Cut(d.name(), "-")
	single := directive{file: d.file, line: d.line, words: append([]string{"", first}, d.words[1:]...)}
	a, ok := v.endpoint(&single, 1)
	if !ok {
		return nil
	}
	list := []control.ServiceKey{{Proto: v.proto, Address: a}}
	if !isRange {
		return list
	}
	base := 10
	if a.Addr().Is6() {
		base = 16
	}
	from := a.Addr().AsSlice()
	end, err := strconv.ParseUint(last, base, 8)
	if err != nil || int(end) < int(from[len(from)-1]) {
		v.left(d, "a range counts up from the last number of its address, to 255 at most")
		return nil
	}
	for n := a.Addr(); int(n.AsSlice()[len(from)-1]) < int(end); {
		n = n.Next()
		list = append(list, control.ServiceKey{Proto: v.proto, Address: netip.AddrPortFrom(n, a.Port())})
	}
	return list
}

// server takes a real_server up.
func (v *virtual) server(d *directive, method string) {
	addr, ok := v.endpoint(d, 1)
	if !ok {
		return
	}
	s := control.ServerSpec{Address: addr, Weight: 1, Method: method}
	t, host := v.timing, v.host
	var checks []health.Spec
	for n := range d.block {
		o := &d.block[n]
		switch o.name() {
		case "weight":
			s.Weight = v.number(o)
		case "uthreshold":
			s.Upper = v.number(o)
		case "lthreshold":
			s.Lower = v.number(o)
		case "lvs_method", "lb_kind":
			s.Method = v.method(o)
		case "inhibit_on_failure":
			v.inhibits++
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
