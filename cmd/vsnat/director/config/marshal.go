// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Marshal writes the canonical file of a configuration: settings that differ
// from their defaults in the order of the reference, then services and rules
// in their own order. Parse(Marshal(c)) is DeepEqual to c.
func Marshal(c *Config) []byte {
	w := &writer{}
	d := Default()

	w.list("interfaces", c.Interfaces)
	w.set("io", string(c.IO), string(d.IO))
	w.set("guard", string(c.Guard), string(d.Guard))
	w.set("offload", string(c.Offload), string(d.Offload))
	w.list("addresses", texts(c.Addresses))
	w.list("local-addresses", texts(c.LocalAddresses))
	w.routes(c.Routes)
	w.set("max-conns", strconv.Itoa(c.MaxConns), strconv.Itoa(d.MaxConns))
	w.set("workers", strconv.Itoa(c.Workers), strconv.Itoa(d.Workers))
	w.set("icmp-rate", strconv.Itoa(c.ICMPRate), strconv.Itoa(d.ICMPRate))
	w.control(c.Control)
	w.set("state-file", c.StateFile, "")
	if c.Log != d.Log {
		w.line("log:")
		w.set("  level", levelWord(c.Log.Level), levelWord(d.Log.Level))
		w.set("  format", string(c.Log.Format), string(d.Log.Format))
	}
	w.metrics(c.Metrics)
	w.timeouts(&c.Timeouts, &d.Timeouts)
	w.set("compat", string(c.Compat), string(d.Compat))
	w.settings(c.Settings)
	if c.CheckDefaults != d.CheckDefaults {
		w.line("check-defaults:")
		w.timing("  ", c.CheckDefaults, d.CheckDefaults)
	}
	w.set("script-user", c.ScriptUser, d.ScriptUser)
	w.services(c)
	w.snat(c.SNAT)
	w.marks(c.Marks)

	if w.b.Len() == 0 {
		w.line("services: []")
	}
	return []byte(w.b.String())
}

// writer collects lines of YAML.
type writer struct{ b strings.Builder }

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(&w.b, format+"\n", args...)
}

// set writes a key unless it has its default.
func (w *writer) set(key, value, standard string) {
	if value != standard {
		w.line("%s: %s", key, quote(value))
	}
}

func (w *writer) list(key string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	w.line("%s: [%s]", key, strings.Join(quoted, ", "))
}

func (w *writer) routes(routes []Route) {
	if len(routes) == 0 {
		return
	}
	w.line("routes:")
	for _, r := range routes {
		w.line("  - dst: %s", quote(r.Destination.String()))
		if r.Via.IsValid() {
			w.line("    via: %s", quote(r.Via.String()))
		}
		w.set("    interface", r.Interface, "")
	}
}

func (w *writer) control(c Control) {
	if c == Default().Control {
		return
	}
	w.line("control:")
	w.set("  socket", c.Socket, "")
	standard := DefaultSocketMode
	if c.Group != "" {
		standard = 0o660
	}
	w.set("  mode", fmt.Sprintf("%04o", c.Mode), fmt.Sprintf("%04o", standard))
	w.set("  group", c.Group, "")
}

func (w *writer) timeouts(c, d *control.Timeouts) {
	if *c == *d {
		return
	}
	w.line("timeouts:")
	standard := make(map[string]string)
	eachTimeout(d, func(key string, d *control.Duration) { standard[key] = seconds(*d) })
	eachTimeout(c, func(key string, d *control.Duration) { w.set("  "+key, seconds(*d), standard[key]) })
}

// seconds is a time as the file has it.
func seconds(d control.Duration) string { return strconv.Itoa(int(d.Std().Seconds())) }

func (w *writer) settings(settings map[string]int) {
	if len(settings) == 0 {
		return
	}
	w.line("settings:")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		w.line("  %s: %d", name, settings[name])
	}
}

func (w *writer) services(c *Config) {
	if len(c.Services) == 0 {
		return
	}
	w.line("services:")
	for _, s := range c.Services {
		w.service(s.ServiceSpec, c.Compat)
		w.checking(&s.Checking, c.CheckDefaults)
		if len(s.Servers) == 0 {
			continue
		}
		w.line("    servers:")
		for _, r := range s.Servers {
			w.server(r, s.Checking.own(r.Address), c.CheckDefaults)
		}
	}
}

func (w *writer) service(s control.ServiceSpec, c Compat) {
	if s.ByMark() {
		w.line("  - %s: %d", s.Proto, s.Mark)
	} else {
		w.line("  - %s: %s", s.Proto, quote(s.Address.String()))
	}
	w.line("    scheduler: %s", quote(s.Scheduler))
	if s.SchedFlags != "" {
		w.list("    sched-flags", strings.Split(s.SchedFlags, ","))
	}
	switch p := s.Persistence; {
	case p.Mask != "":
		w.line("    persistence:")
		w.line("      timeout: %s", seconds(p.Timeout))
		w.line("      mask: %s", quote(p.Mask))
	case p.Timeout != 0:
		w.line("    persistence: %s", seconds(p.Timeout))
	}
	w.set("    one-packet", strconv.FormatBool(s.OnePacket), "false")
	w.set("    no-server", s.NoServer, control.NoServerICMP)
	w.set("    helper", s.Helper, control.HelperNone)
	w.set("    on-server-down", s.OnServerDown, c.ServerDown(s.Proto))
	w.set("    passive", s.Passive, c.Passive(s.ServiceKey))
	w.set("    idle", seconds(s.Idle), "0")
}

// server writes the short form when it says everything.
func (w *writer) server(r control.ServerSpec, own *ServerChecks, defaults CheckTiming) {
	address := quote(r.Address.String())
	if own == nil && r == (control.ServerSpec{Address: r.Address, Weight: 1, Method: control.MethodNAT}) {
		w.line("      - %s", address)
		return
	}
	w.line("      - address: %s", address)
	w.set("        method", r.Method, control.MethodNAT)
	w.set("        nat", r.NAT, "")
	w.set("        tunnel", r.Tunnel.Type, "")
	w.set("        tunnel-port", strconv.Itoa(int(r.Tunnel.Port)), "0")
	w.set("        tunnel-checksum", r.Tunnel.Checksum, "")
	w.set("        weight", strconv.Itoa(r.Weight), "1")
	w.set("        upper", strconv.Itoa(r.Upper), "0")
	w.set("        lower", strconv.Itoa(r.Lower), "0")
	switch {
	case own != nil && own.Checks == nil:
		w.line("        unchecked: true")
	case own != nil:
		w.checks("        ", own.Checks, defaults)
	}
}

func (w *writer) snat(rules []control.SNATSpec) {
	if len(rules) == 0 {
		return
	}
	w.line("snat:")
	for _, r := range rules {
		w.line("  - from: %s", quote(r.From.String()))
		w.line("    to: %s", quote(r.To.String()))
		if r.MaxPort != 0 {
			w.line("    ports: %d-%d", r.MinPort, r.MaxPort)
		}
	}
}

func (w *writer) marks(rules []control.MarkSpec) {
	if len(rules) == 0 {
		return
	}
	w.line("marks:")
	for _, m := range rules {
		w.line("  - mark: %d", m.Mark)
		w.set("    proto", m.Proto, "")
		if m.From.IsValid() {
			w.line("    from: %s", quote(m.From.String()))
		}
		if m.To.IsValid() {
			w.line("    to: %s", quote(m.To.String()))
		}
		if m.MaxPort != 0 {
			w.line("    ports: %d-%d", m.MinPort, m.MaxPort)
		}
		w.set("    interface", m.Interface, "")
	}
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

// quote is a scalar as YAML reads it back: plain where nothing but letters,
// digits and harmless marks are in it, else in double quotes.
func quote(s string) string {
	plain := s != "" && s[0] != '-' && s[0] != ':' && s[0] != '.' && !strings.HasSuffix(s, ":") && !strings.EqualFold(s, "null")
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_./:", r):
		default:
			plain = false
		}
	}
	if plain {
		return s
	}
	return strconv.Quote(undollared(s))
}
