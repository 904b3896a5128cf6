// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Op is what a Change does.
type Op string

// Operations.
const (
	Add    Op = "add"
	Edit   Op = "edit"
	Delete Op = "delete"
)

// Object is what a Change is about.
type Object string

// Objects.
const (
	ObjectService Object = "service"
	ObjectServer  Object = "server"
	ObjectSNAT    Object = "snat"
	ObjectMark    Object = "mark"    // a rule that gives one; never edited
	ObjectChecks  Object = "checks"  // of a service, and what follows from them; only edited
	ObjectSetting Object = "setting" // everything else; only edited
)

// Change is one step from a configuration to another.
type Change struct {
	Op       Op
	Object   Object
	Service  control.ServiceSpec // the service, or the service of the server
	Server   control.ServerSpec  // as it is to be; as it was for Delete
	SNAT     control.SNATSpec
	Mark     control.MarkSpec
	Checking Checking // as it is to be
	Setting  string   // key of the configuration file
	detail   string   // what differs, for String
}

// String is the change in one line: "edit server 10.0.0.2:80 of tcp
// 192.0.2.1:80: weight 1 to 3".
func (c Change) String() string {
	text := string(c.Op) + " " + string(c.Object) + " "
	switch c.Object {
	case ObjectService:
		text += c.Service.ServiceKey.String()
	case ObjectChecks:
		text += "of " + c.Service.ServiceKey.String()
	case ObjectServer:
		text += c.Server.Address.String() + " of " + c.Service.ServiceKey.String()
	case ObjectSNAT:
		text += c.SNAT.From.String() + " to " + c.SNAT.To.String()
	case ObjectMark:
		text += strings.TrimPrefix(c.Mark.String(), control.Mark+" ")
	case ObjectSetting:
		text += c.Setting
	}
	if c.detail != "" {
		text += ": " + c.detail
	}
	return text
}

// Restart reports whether only a new start of the director can apply the
// change: settings that sockets, memory and devices were made from.
func (c Change) Restart() bool {
	switch c.Setting {
	case "io", "guard", "offload", "max-conns", "workers", "control", "metrics", "script-user":
		return true
	}
	return false
}

// Apply makes a change of a service, server or SNAT rule on a director.
// Settings and checks are not its business: it returns an error for them.
func (c Change) Apply(ctx context.Context, d control.Director) error {
	type step struct {
		Op
		Object
	}
	switch (step{c.Op, c.Object}) {
	case step{Add, ObjectService}:
		return d.AddService(ctx, c.Service)
	case step{Edit, ObjectService}:
		return d.EditService(ctx, c.Service)
	case step{Delete, ObjectService}:
		return d.DeleteService(ctx, c.Service.ServiceKey)
	case step{Add, ObjectServer}:
		return d.AddServer(ctx, c.Service.ServiceKey, c.Server)
	case step{Edit, ObjectServer}:
		return d.EditServer(ctx, c.Service.ServiceKey, c.Server)
	case step{Delete, ObjectServer}:
		return d.DeleteServer(ctx, c.Service.ServiceKey, c.Server.Address)
	case step{Add, ObjectSNAT}:
		return d.AddSNAT(ctx, c.SNAT)
	case step{Delete, ObjectSNAT}:
		return d.DeleteSNAT(ctx, c.SNAT.From)
	case step{Add, ObjectMark}:
		return d.AddMark(ctx, c.Mark)
	case step{Delete, ObjectMark}:
		return d.DeleteMark(ctx, c.Mark)
	}
	return fmt.Errorf("%s can't be applied to a running director", c)
}

// Diff lists the steps that make from into to. They name only what differs;
// what goes comes first, so that nothing new is refused because of something
// that is about to leave. An SNAT rule that differs is deleted and added,
// since its ports are another set. A different order of the same services or
// servers is no difference: the order they were added in stays. Of rules that
// give marks the first counts: from the first difference on they are deleted and
// added.
func Diff(from, to *Config) []Change {
	var d diff
	d.settings(from, to)
	d.snats(Delete, from.SNAT, to.SNAT)
	d.servicesGone(from, to)
	d.marks(from.Marks, to.Marks)
	d.services(from, to)
	d.snats(Add, to.SNAT, from.SNAT)
	return d.list
}

type diff struct{ list []Change }

// settings compares field by field everything but services and rules.
func (d *diff) settings(from, to *Config) {
	a, b := reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem()
	for _, s := range []struct{ field, key string }{
		{"Interfaces", "interfaces"}, {"IO", "io"}, {"Guard", "guard"}, {"Offload", "offload"}, {"Addresses", "addresses"}, {"LocalAddresses", "local-addresses"},
		{"Routes", "routes"}, {"MaxConns", "max-conns"}, {"Workers", "workers"}, {"Control", "control"}, {"StateFile", "state-file"}, {"Log", "log"}, {"Metrics", "metrics"},
		{"Timeouts", "timeouts"}, {"ICMPRate", "icmp-rate"}, {"Compat", "compat"}, {"Settings", "settings"},
		{"CheckDefaults", "check-defaults"}, {"ScriptUser", "script-user"},
	} {
		if !reflect.DeepEqual(a.FieldByName(s.field).Interface(), b.FieldByName(s.field).Interface()) {
			change := Change{Op: Edit, Object: ObjectSetting, Setting: s.key}
			if s.key == "settings" {
				change.detail = settingDifferences(from, to)
			}
			d.list = append(d.list, change)
		}
	}
}

func settingDifferences(from, to *Config) string {
	var list []string
	for _, name := range settingNames() {
		if a, b := from.Setting(name), to.Setting(name); a != b {
			list = append(list, fmt.Sprintf("%s %d to %d", name, a, b))
		}
	}
	return strings.Join(list, ", ")
}

// snats adds or deletes the rules of a list that the other does not have.
func (d *diff) snats(op Op, list, other []control.SNATSpec) {
	has := make(map[control.SNATSpec]bool, len(other))
	for _, r := range other {
		has[r] = true
	}
	for _, r := range list {
		if !has[r] {
			d.list = append(d.list, Change{Op: op, Object: ObjectSNAT, SNAT: r})
		}
	}
}

func (d *diff) marks(from, to []control.MarkSpec) {
	same := 0
	for same < len(from) && same < len(to) && from[same] == to[same] {
		same++
	}
	for _, m := range from[same:] {
		d.list = append(d.list, Change{Op: Delete, Object: ObjectMark, Mark: m})
	}
	for _, m := range to[same:] {
		d.list = append(d.list, Change{Op: Add, Object: ObjectMark, Mark: m})
	}
}

func (d *diff) servicesGone(from, to *Config) {
	stays := byKey(to)
	for _, s := range from.Services {
		if stays[s.ServiceKey] == nil {
			d.list = append(d.list, Change{Op: Delete, Object: ObjectService, Service: s.ServiceSpec})
		}
	}
}

func (d *diff) services(from, to *Config) {
	had := byKey(from)
	for _, s := range to.Services {
		before := had[s.ServiceKey]
		switch {
		case before == nil:
			d.list = append(d.list, Change{Op: Add, Object: ObjectService, Service: s.ServiceSpec})
			before = &Service{}
		case before.ServiceSpec != s.ServiceSpec:
			d.list = append(d.list, Change{Op: Edit, Object: ObjectService, Service: s.ServiceSpec,
				detail: differences(before.ServiceSpec, s.ServiceSpec)})
		}
		if !reflect.DeepEqual(before.Checking, s.Checking) {
			d.list = append(d.list, Change{Op: Edit, Object: ObjectChecks, Service: s.ServiceSpec, Checking: s.Checking,
				detail: checkingDifferences(&before.Checking, &s.Checking)})
		}
		d.servers(s.ServiceSpec, before.Servers, s.Servers)
	}
}

func (d *diff) servers(service control.ServiceSpec, from, to []control.ServerSpec) {
	had, stays := byAddress(from), byAddress(to)
	for _, r := range from {
		if _, ok := stays[r.Address]; !ok {
			d.list = append(d.list, Change{Op: Delete, Object: ObjectServer, Service: service, Server: r})
		}
	}
	for _, r := range to {
		before, ok := had[r.Address]
		switch {
		case !ok:
			d.list = append(d.list, Change{Op: Add, Object: ObjectServer, Service: service, Server: r})
		case before != r:
			d.list = append(d.list, Change{Op: Edit, Object: ObjectServer, Service: service, Server: r, detail: differences(before, r)})
		}
	}
}

func byKey(c *Config) map[control.ServiceKey]*Service {
	m := make(map[control.ServiceKey]*Service, len(c.Services))
	for i := range c.Services {
		m[c.Services[i].ServiceKey] = &c.Services[i]
	}
	return m
}

func byAddress(list []control.ServerSpec) map[netip.AddrPort]control.ServerSpec {
	m := make(map[netip.AddrPort]control.ServerSpec, len(list))
	for _, r := range list {
		m[r.Address] = r
	}
	return m
}

// differences lists the fields in which two specs of one kind differ.
func differences[T any](before, after T) string {
	var list []string
	a, b := reflect.ValueOf(before), reflect.ValueOf(after)
	for _, f := range reflect.VisibleFields(a.Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		x, y := a.FieldByIndex(f.Index).Interface(), b.FieldByIndex(f.Index).Interface()
		if key != "" && x != y {
			list = append(list, fmt.Sprintf("%s %v to %v", key, x, y))
		}
	}
	return strings.Join(list, ", ")
}
