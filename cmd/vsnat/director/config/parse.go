// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"net/netip"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// reader turns the raw layer into the typed one.
type reader struct{ *problems }

// accept notes what is wrong with a text, if anything is, and reports
// whether it was fine.
func (p reader) accept(t text, c complaint) bool {
	if !c.ok() && !t.refused {
		p.add(t.at, c.hint, "%s", c.message)
	}
	return c.ok() && !t.refused
}

func (p reader) config(raw *rawFile) *Config {
	c := Default()
	c.Interfaces = p.interfaces(raw.Interfaces)
	word(p, raw.IO, "io", &c.IO, IOPacket, IOTUN)
	word(p, raw.Guard, "guard", &c.Guard, GuardAuto, GuardNFT, GuardSocket, GuardNone)
	word(p, raw.Offload, "offload", &c.Offload, OffloadAuto, OffloadTCX, OffloadNone)
	if c.Offload == OffloadTCX && c.IO == IOTUN {
		p.add(raw.Offload.at, "use io: packet, or leave offload out", "offload tcx needs packets that come by the links themselves, which io: tun does not read")
	}
	c.Addresses = p.addresses(raw.Addresses)
	c.LocalAddresses = p.addresses(raw.Locals)
	c.Routes = p.routes(raw.Routes)
	p.number(raw.MaxConns, &c.MaxConns, 1, MaxMaxConns)
	p.number(raw.Workers, &c.Workers, 1, MaxWorkers)
	p.number(raw.ICMPRate, &c.ICMPRate, 0, maxICMPRate)
	p.control(&raw.Control, &c.Control)
	p.stateFile(raw.StateFile, c)
	p.log(&raw.Log, &c.Log)
	p.metrics(&raw.Metrics, &c.Metrics)
	p.timeouts(&raw.Timeouts, &c.Timeouts)
	word(p, raw.Compat, "compat", &c.Compat, CompatNone, CompatIPVS)
	p.settings(raw.Settings, c)

	p.timing(&raw.CheckDefaults, &c.CheckDefaults)
	p.scriptUser(raw.ScriptUser, c)

	services := p.services(raw.Services, c)
	rules := p.snat(raw.SNAT)
	var marked map[netip.Addr]Position
	c.Marks, marked = p.marks(raw.Marks)
	p.cross(services, c.Addresses, marked)
	p.crossLocal(services, c.LocalAddresses)
	for _, s := range services {
		c.Services = append(c.Services, s.Service)
	}
	c.SNAT = rules
	p.faults(workersFaults(c.Workers, c.Marks, c.SNAT), map[string]text{"workers": raw.Workers}, raw.At)
	return c
}

// word sets into to one of the known words.
func word[T ~string](p reader, t text, what string, into *T, known ...T) {
	if !t.given() || t.refused {
		return
	}
	list := make([]string, len(known))
	for i, k := range known {
		if string(k) == t.value {
			*into = k
			return
		}
		list[i] = string(k)
	}
	p.add(t.at, oneOf(t.value, list), "%s can't be %.40q", what, t.value)
}

// number sets into to a number of a range.
func (p reader) number(t text, into *int, lowest, highest int) {
	if !t.given() {
		return
	}
	if n, bad := parseInt(t.value, lowest, highest); p.accept(t, bad) {
		*into = n
	}
}

// boolean sets into to true or false.
func (p reader) boolean(t text, what string, into *bool) {
	answer := strconv.FormatBool(*into)
	word(p, t, what, &answer, "true", "false")
	*into = answer == "true"
}

// timeout sets into to a time.
func (p reader) timeout(t text, into *control.Duration) {
	if !t.given() {
		return
	}
	if d, bad := parseTimeout(t.value); p.accept(t, bad) {
		*into = d
	}
}

func (p reader) interfaces(list words) []string {
	if len(list) == 1 && list[0].value == "auto" {
		return nil
	}
	var out []string
	seen := make(map[string]Position)
	for _, t := range list {
		_, err := path.Match(t.value, "")
		switch {
		case t.value == "auto":
			p.add(t.at, "write interfaces: auto, or name the links", "auto can't be mixed with names")
		case t.value == "" || err != nil || strings.ContainsAny(t.value, "/ \t:"):
			p.add(t.at, "a name such as eth0, or a pattern such as \"eth*\" or \"ens[12]\"", "%.40q is not the name of a link", t.value)
		case len(t.value) > 15 && !strings.ContainsAny(t.value, "*?["):
			p.add(t.at, "a link's name has at most 15 characters", "%.40q is too long for the name of a link", t.value)
		case seen[t.value].Line != 0:
			p.add(t.at, "remove one of them", "%s is given twice, first in %s", t.value, seen[t.value].from(t.at))
		default:
			seen[t.value] = t.at
			out = append(out, t.value)
		}
	}
	return out
}

func (p reader) addresses(list words) []netip.Prefix {
	var out []netip.Prefix
	seen := make(map[netip.Addr]Position)
	for _, t := range list {
		prefix, bad := parsePrefix(t.value)
		if !p.accept(t, bad) {
			continue
		}
		if faults := addressFaults("addresses", "the director", prefix.Addr()); faults != nil {
			p.add(t.at, faults[0].hint, "%s", faults[0].message)
			continue
		}
		if prefix.Bits() < prefix.Addr().BitLen()-1 && prefix.Masked() == prefix {
			p.add(t.at, "write the director's own address with the length of its network, for example 10.0.0.1/24", "%s is a network, not an address", prefix)
			continue
		}
		if first, twice := seen[prefix.Addr()]; twice {
			p.add(t.at, "remove one of them", "%s is given twice, first in %s", prefix.Addr(), first.from(t.at))
			continue
		}
		seen[prefix.Addr()] = t.at
		out = append(out, prefix)
	}
	return out
}

func (p reader) routes(list []rawRoute) []Route {
	var out []Route
	seen := make(map[netip.Prefix]Position)
	for i := range list {
		r, raw := Route{}, &list[i]
		if raw.At.Line == 0 || raw.Interface.refused {
			continue
		}
		if !raw.Destination.given() {
			p.add(raw.At, "add dst: a network, or 0.0.0.0/0 for everything", "a route needs a destination")
			continue
		}
		prefix, bad := parsePrefix(raw.Destination.value)
		if !p.accept(raw.Destination, bad) {
			continue
		}
		if prefix != prefix.Masked() {
			p.add(raw.Destination.at, maskHint(prefix), "%s has bits set behind its mask", prefix)
			continue
		}
		r.Destination = prefix
		if raw.Via.given() {
			if r.Via, bad = parseAddress(raw.Via.value); !p.accept(raw.Via, bad) {
				continue
			}
			if faults := addressFaults("via", "a router", r.Via); faults != nil {
				p.add(raw.Via.at, faults[0].hint, "%s", faults[0].message)
				continue
			}
			if r.Via.Is4() != prefix.Addr().Is4() {
				p.add(raw.Via.at, "a route and its router are of one family", "%s is not of the address family of %s", r.Via, prefix)
				continue
			}
		}
		if raw.Interface.given() {
			names := p.interfaces(words{raw.Interface})
			if len(names) != 1 || strings.ContainsAny(names[0], "*?[") {
				p.add(raw.Interface.at, "name one link", "a route leads to one link, not to %.40q", raw.Interface.value)
				continue
			}
			r.Interface = names[0]
		}
		if !r.Via.IsValid() && r.Interface == "" {
			p.add(raw.At, "add via: the address of a router, or interface: the link it is on", "the route to %s leads nowhere", prefix)
			continue
		}
		if first, twice := seen[prefix]; twice {
			p.add(raw.Destination.at, "remove one of them", "there are two routes to %s, the first in %s", prefix, first.from(raw.Destination.at))
			continue
		}
		seen[prefix] = raw.Destination.at
		out = append(out, r)
	}
	return out
}

func (p reader) control(raw *rawControl, c *Control) {
	if t := raw.Socket; t.given() && !t.refused {
		switch {
		case !filepath.IsAbs(t.value):
			p.add(t.at, "begin it with /", "the control socket %.60q is not an absolute path", t.value)
		// sockaddr_un holds 108 bytes, one of them NUL (unix(7)).
		case len(t.value) > control.MaxSocketPath:
			p.add(t.at, "choose a shorter folder, such as /run/vsnat", "the control socket's path has %d bytes, the kernel allows %d", len(t.value), control.MaxSocketPath)
		case filepath.Clean(t.value) != t.value:
			p.add(t.at, "write "+filepath.Clean(t.value), "the control socket %.60q is not a plain path", t.value)
		default:
			c.Socket = t.value
		}
	}
	if raw.Group.given() && !raw.Group.refused {
		c.Group, c.Mode = raw.Group.value, 0o660
		if c.Group == "" {
			p.add(raw.Group.at, "a name or number of a group, or leave the key out", "the group is empty")
		}
	}
	if raw.Mode.given() {
		if mode, bad := parseMode(raw.Mode.value); p.accept(raw.Mode, bad) {
			c.Mode = mode
		}
	}
}

func (p reader) log(raw *rawLog, c *Log) {
	level := levelWord(c.Level)
	word(p, raw.Level, "the log level", &level, "debug", "info", "warn", "error")
	_ = c.Level.UnmarshalText([]byte(level)) // one of the four
	word(p, raw.Format, "the log format", &c.Format, LogText, LogJSON)
}

// timeouts relies on rawTimeouts and control.Timeouts having the same fields.
func (p reader) timeouts(raw *rawTimeouts, c *control.Timeouts) {
	from := reflect.ValueOf(raw).Elem()
	eachTimeout(c, func(key string, d *control.Duration) {
		p.timeout(from.FieldByIndex(field(from.Type(), key)).Interface().(text), d)
	})
}

// settings needs compat, which has the defaults.
func (p reader) settings(raw pairs, c *Config) {
	for _, s := range raw {
		if s.value.refused {
			continue
		}
		at := s.key
		bad := c.set(s.key.value, s.value.value)
		if _, isInert := inert[s.key.value]; isInert || slices.Contains(settingNames(), s.key.value) {
			at = s.value
		}
		if key, isTimeout := strings.CutPrefix(s.key.value, timeoutPrefix); isTimeout {
			bad.hint = "times of states stand under timeouts, for example " + key + ": " + s.value.value
		}
		p.accept(at, bad)
	}
}

// levelWord is the word of the file for a level of the log.
func levelWord(l slog.Level) string { return strings.ToLower(l.String()) }
