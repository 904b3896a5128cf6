// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Settings have the names of IPVS's sysctls (Linux, Documentation/networking/
// ipvs-sysctl.rst), and mean what they mean there. The times of states, which are
// sysctls in old kernels, are settings too when they are changed at run time; in
// the file they have a mapping of their own.

// A setting is one name.
type setting struct {
	name            string
	standard, ipvs  int // what it is if nothing is said, and with compat: ipvs
	lowest, highest int
	meaning         string
}

// settings are those that change what vsnat does.
var settings = []setting{
	{"am_droprate", 10, 10, 1, 1 << 30, "with drop_packet 3, one of so many new connections is dropped"},
	{"client_limit", 0, 0, 0, 1 << 30, "connections to services that one client may have at once, in IPv6 one /64; 0: any number"},
	{"conn_reuse_mode", 1, 1, 0, 3, "a SYN on a connection that is over is scheduled anew; 0: goes to its old server"},
	{"drop_entry", 0, 0, 0, 3, "connections hardly used are removed: 1, 2 when the table is nearly full, 3 always, 0 never"},
	{"drop_packet", 0, 0, 0, 3, "new connections are dropped, one of some: 1, 2 when the table is nearly full, 3 always, 0 never"},
	{"expire_nodest_conn", 0, 0, 0, 1, "connections of a deleted server end at once where on-server-down would keep them"},
	{"expire_quiescent_template", 0, 0, 0, 1, "persistence does not lead to a server of weight 0"},
	{"lblc_expiration", 86400, 86400, 1, 2_678_400, "seconds after which lblc forgets a destination nobody asked for"},
	{"lblcr_expiration", 86400, 86400, 1, 2_678_400, "seconds after which lblcr shrinks the servers of a destination"},
	{"nat_icmp_send", 0, 0, 0, 1, "a server's packet of no connection is answered with port unreachable"},
	{"pmtu_disc", 1, 1, 0, 1, "a packet that must not be cut and is too big for a tunnel is answered; 0: it is cut"},
	{"reset_on_expiry", 1, 0, 0, 1, "both ends of an established TCP connection are told when its idle time is over"},
	{"schedule_icmp", 0, 0, 0, 1, "an ICMP error about no connection opens one"},
	{"secure_tcp", 0, 0, 0, 3, "TCP is established when the server says so: 1, 2 when the table is nearly full, 3 always, 0 never"},
	{"sloppy_sctp", 0, 0, 0, 1, "any SCTP packet but an ABORT opens an association"},
	{"sloppy_tcp", 0, 0, 0, 1, "any TCP segment but a RST opens a connection"},
}

// inert are names of IPVS that have nothing to change here, the value that
// describes what is so, and why.
var inert = map[string]struct{ value, reason string }{
	"amemthresh":          {"1024", "memory is short when the connection table is nearly full"},
	"backup_only":         {"0", noSync},
	"cache_bypass":        {"0", "there are no transparent caches"},
	"conntrack":           {"0", "the kernel does not track the connections of vsnat"},
	"ignore_tunneled":     {"0", "tunnelled packets are not looked into"},
	"run_estimation":      {"1", "rates are always kept"},
	"snat_reroute":        {"1", "replies are always routed by their new source"},
	"sync_persist_mode":   {"0", noSync},
	"sync_ports":          {"1", noSync},
	"sync_qlen_max":       {"0", noSync},
	"sync_refresh_period": {"0", noSync},
	"sync_retries":        {"0", noSync},
	"sync_sock_size":      {"0", noSync},
	"sync_threshold":      {"3 50", noSync},
	"sync_version":        {"1", noSync},
}

const noSync = "connections are not synchronised between directors"

// settingNames are the names that mean something here.
func settingNames() []string {
	list := make([]string, len(settings))
	for i, s := range settings {
		list[i] = s.name
	}
	return list
}

func (s *setting) of(c Compat) int {
	if c == CompatIPVS {
		return s.ipvs
	}
	return s.standard
}

// Setting is the value of a setting. It panics if there is none of that name.
func (c *Config) Setting(name string) int {
	if v, ok := c.Settings[name]; ok {
		return v
	}
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	return settings[i].of(c.Compat)
}

// set changes one setting; what has its default is not kept.
func (c *Config) set(name, value string) complaint {
	if fixed, known := inert[name]; known {
		if strings.Join(strings.Fields(value), " ") == fixed.value {
			return complaint{}
		}
		return complain("leave it out, or give "+fixed.value, "%s can't be %.40q: %s", name, value, fixed.reason)
	}
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return complain(oneOf(name, settingNames()), "unknown setting %.60q", name)
	}
	s := &settings[i]
	n, bad := parseInt(value, s.lowest, s.highest)
	if !bad.ok() {
		return complain(bad.hint, "%s can't be %.40q", name, value)
	}
	next := maps.Clone(c.Settings)
	if delete(next, name); n != s.of(c.Compat) {
		if next == nil {
			next = make(map[string]int)
		}
		next[name] = n
	}
	if c.Settings = next; len(next) == 0 {
		c.Settings = nil
	}
	return complaint{}
}

// timeoutPrefix begins the names of the times of states, as in Linux 2.4.
const timeoutPrefix = "timeout_"

// timeoutSetting is the name of a key of timeouts as a setting: of TCP's as in
// Linux 2.4, where SCTP's had none.
func timeoutSetting(key string) string {
	if strings.HasPrefix(key, "sctp-") {
		return timeoutPrefix + strings.ReplaceAll(key, "-", "_")
	}
	return timeoutPrefix + strings.ReplaceAll(key, "-", "")
}

// eachTimeout calls f for every time of t with its key in the file.
func eachTimeout(t *control.Timeouts, f func(key string, d *control.Duration)) {
	v := reflect.ValueOf(t).Elem()
	raw := reflect.TypeFor[rawTimeouts]()
	for _, field := range reflect.VisibleFields(v.Type()) {
		key, _ := raw.FieldByName(field.Name)
		f(key.Tag.Get("key"), v.FieldByIndex(field.Index).Addr().Interface().(*control.Duration))
	}
}

// WithSettings is the configuration with settings changed, all or, with an error
// that is a *control.Error, none. Times of states are settings here.
func (c *Config) WithSettings(values map[string]control.SettingValue) (*Config, error) {
	next := *c
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var bad complaint
		if isTimeout := strings.HasPrefix(name, timeoutPrefix); isTimeout {
			bad = next.setTimeout(name, string(values[name]))
		} else {
			bad = next.set(name, string(values[name]))
		}
		if !bad.ok() {
			return nil, control.Refuse(control.CodeInvalid, bad.message, bad.hint)
		}
	}
	return &next, nil
}

func (c *Config) setTimeout(name, value string) complaint {
	var names []string
	bad := complaint{"?", ""}
	eachTimeout(&c.Timeouts, func(key string, d *control.Duration) {
		names = append(names, timeoutSetting(key))
		if timeoutSetting(key) != name {
			return
		}
		var t control.Duration
		if t, bad = parseTimeout(value); bad.ok() {
			*d = t
		}
	})
	if bad.message == "?" {
		return complain(oneOf(name, names), "unknown setting %.60q", name)
	}
	return bad
}

// ListSettings lists all settings in the order of their names: those that mean
// something here, the times of states, and the names that have no meaning.
func (c *Config) ListSettings() []control.Setting {
	var list []control.Setting
	for _, s := range settings {
		list = append(list, control.Setting{
			Name: s.name, Value: control.SettingValue(strconv.Itoa(c.Setting(s.name))),
			Default: control.SettingValue(strconv.Itoa(s.of(c.Compat))), Meaning: s.meaning,
		})
	}
	standard := defaultTimeouts()
	defaults := make(map[string]string)
	eachTimeout(&standard, func(key string, d *control.Duration) { defaults[key] = seconds(*d) })
	eachTimeout(&c.Timeouts, func(key string, d *control.Duration) {
		list = append(list, control.Setting{
			Name: timeoutSetting(key), Value: control.SettingValue(seconds(*d)), Default: control.SettingValue(defaults[key]),
			Meaning: fmt.Sprintf("seconds after which an idle connection in this state is forgotten (%s)", key),
		})
	})
	for name, fixed := range inert {
		list = append(list, control.Setting{
			Name: name, Value: control.SettingValue(fixed.value), Default: control.SettingValue(fixed.value),
			Meaning: "no meaning here: " + fixed.reason, Fixed: true,
		})
	}
	slices.SortFunc(list, func(a, b control.Setting) int { return strings.Compare(a.Name, b.Name) })
	return list
}
