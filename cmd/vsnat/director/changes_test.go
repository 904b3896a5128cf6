// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
)

// FAULTS 119: concurrent changes, each whole, and an end in their midst.
func TestConcurrentChanges(t *testing.T) {
	d, _ := startDirector(t, small)
	key := control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 25 {
				server := control.ServerSpec{Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:80", g+1, i+1)), Weight: 1}
				if err := errors.Join(d.AddServer(t.Context(), key, server), d.EditServer(t.Context(), key, server)); err != nil {
					t.Error(err)
				}
				if _, err := d.Stats(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s, err := d.Services(t.Context())
	must(t, err)
	if n := len(s[0].Servers); n != 102 {
		t.Errorf("%d servers", n)
	}
}

// FAULTS 116, 129: what is refused leaves no trace.
func TestChangesRefused(t *testing.T) {
	d, _ := startDirector(t, small)
	must(t, netlinkAddr("dlan", "10.0.0.1/24"))
	waitFor(t, d, func() bool { return len(d.world.host.Addrs) > 1 })
	before := d.config(t)
	tcp := func(s string) control.ServiceKey {
		return control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort(s)}
	}
	server := func(s string) control.ServerSpec {
		return control.ServerSpec{Address: netip.MustParseAddrPort(s), Weight: 1}
	}
	web := tcp("192.168.88.23:80")
	for name, err := range map[string]error{
		"service twice":      d.AddService(t.Context(), control.ServiceSpec{ServiceKey: web, Scheduler: "rr"}),
		"unknown scheduler":  d.EditService(t.Context(), control.ServiceSpec{ServiceKey: web, Scheduler: "none"}),
		"no service":         d.DeleteService(t.Context(), tcp("192.168.88.23:81")),
		"server twice":       d.AddServer(t.Context(), web, server("10.0.0.2:80")),
		"server of nothing":  d.AddServer(t.Context(), tcp("192.168.88.23:81"), server("10.0.0.2:80")),
		"server is the host": d.AddServer(t.Context(), web, server("10.0.0.1:80")),
		"server is the VIP":  d.AddServer(t.Context(), web, server("192.168.88.23:8080")),
		"no server":          d.DeleteServer(t.Context(), web, netip.MustParseAddrPort("10.0.0.9:80")),
		"snat twice":         d.AddSNAT(t.Context(), control.SNATSpec{From: netip.MustParsePrefix("10.0.0.0/24"), To: netip.MustParseAddr("192.168.88.23")}),
		"no snat":            d.DeleteSNAT(t.Context(), netip.MustParsePrefix("10.0.1.0/24")),
		"timeout":            d.SetTimeouts(t.Context(), control.Timeouts{UDP: -1}),
		"mark of a server":   d.AddMark(t.Context(), control.MarkSpec{Mark: 1, To: netip.MustParsePrefix("10.0.0.2/32")}),
		"mark of two kinds":  d.AddMark(t.Context(), control.MarkSpec{Mark: 1, From: netip.MustParsePrefix("10.0.0.0/8"), To: netip.MustParsePrefix("fd00::/8")}),
		"no mark":            d.DeleteMark(t.Context(), control.MarkSpec{Mark: 1}),
	} {
		var refused *control.Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "server is the host" && (err == nil || !strings.Contains(err.Error(), "on dlan") || refused.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := d.config(t); after != before {
		t.Errorf("changed:\n%s", after)
	}
}

// Changes are made in turn; one that is refused leaves the others.
func TestChangesTogether(t *testing.T) {
	d, _ := startDirector(t, small)
	key := control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.23:53")}
	spec := control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}
	server := control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.2:53"), Weight: 1}
	results, err := d.Changes(t.Context(), []control.Change{
		{Op: control.OpAddServer, Service: spec, Server: server}, // not defined
		{Op: control.OpAddService, Service: spec},
		{Op: control.OpAddService, Service: control.ServiceSpec{ServiceKey: key, Scheduler: "none"}}, // exists: said before the scheduler is looked at
		{Op: control.OpAddServer, Service: spec, Server: server},
		{Op: control.OpEditService, Service: control.ServiceSpec{ServiceKey: key, Scheduler: "none"}},
		{Op: control.OpEditServer, Service: spec, Server: control.ServerSpec{Address: server.Address, Weight: 3}},
		{Op: "anything"},
	})
	must(t, err)
	var codes []control.Code
	for _, e := range results {
		code := control.Code("")
		if e != nil {
			code = e.Code
		}
		codes = append(codes, code)
	}
	want := []control.Code{control.CodeNotDefined, "", control.CodeServiceExists, "", control.CodeNoScheduler, "", control.CodeInvalid}
	if !slices.Equal(codes, want) {
		t.Errorf("got  %q\nwant %q", codes, want)
	}
	services, err := d.Services(t.Context())
	must(t, err)
	if s := services[1]; s.ServiceKey != key || s.OnServerDown != control.ServerDownRepick || len(s.Servers) != 1 || s.Servers[0].Weight != 3 {
		t.Errorf("%+v", s)
	}
}

// A setting that is set is read back, saved, and put back by a reload.
func TestSetSettings(t *testing.T) {
	d, _ := startDirector(t, small)
	must(t, d.SetSettings(t.Context(), map[string]control.SettingValue{"sloppy_tcp": "1", "timeout_synrecv": "7"}))
	if s := d.rules.Settings(); !s.SloppyTCP || s.Timeouts[conntrack.SynRecv] != 7*time.Second {
		t.Errorf("%+v", s)
	}
	text := d.config(t)
	if !strings.Contains(text, "settings:\n  sloppy_tcp: 1\n") || !strings.Contains(text, "timeouts:\n  syn-recv: 7\n") {
		t.Error(text)
	}
	err := d.SetSettings(t.Context(), map[string]control.SettingValue{"sloppy_tcp": "0", "sloppy": "1"})
	if !errors.Is(err, &control.Error{Code: control.CodeInvalid}) || d.config(t) != text {
		t.Errorf("%v\n%s", err, d.config(t))
	}
	list, err := d.Settings(t.Context())
	must(t, err)
	i := slices.IndexFunc(list, func(s control.Setting) bool { return s.Name == "sloppy_tcp" })
	if list[i].Value != "1" || list[i].Default != "0" {
		t.Errorf("%+v", list[i])
	}
	r, err := d.Reload(t.Context())
	must(t, err)
	if !slices.Equal(r.Changes, []string{"edit setting timeouts", "edit setting settings: sloppy_tcp 1 to 0"}) {
		t.Errorf("%q", r.Changes)
	}
	if s := d.rules.Settings(); s.SloppyTCP || s.Timeouts[conntrack.SynRecv] != time.Minute {
		t.Errorf("%+v", s)
	}
}

// With compat: ipvs a service keeps the connections of a deleted server; a reload
// that changes it changes the services that do not say.
func TestCompat(t *testing.T) {
	d, file := startDirector(t, small)
	fate := func() string {
		s, err := d.Services(t.Context())
		must(t, err)
		return s[0].OnServerDown
	}
	if fate() != control.ServerDownReset {
		t.Error(fate())
	}
	must(t, os.WriteFile(file, []byte("compat: ipvs\n"+small), 0o600))
	r, err := d.Reload(t.Context())
	must(t, err)
	if fate() != control.ServerDownKeep || !d.rules.Settings().HoldGoneSYN || d.rules.Settings().ResetOnExpiry {
		t.Errorf("%s, %+v", fate(), d.rules.Settings())
	}
	if !slices.Equal(r.Changes, []string{"edit setting compat", "edit service tcp 192.168.88.23:80: on-server-down reset to keep, passive on to off"}) {
		t.Errorf("%q", r.Changes)
	}
	added := control.ServiceSpec{ServiceKey: control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.23:53")}}
	must(t, d.AddService(t.Context(), added))
	if text := d.config(t); strings.Contains(text, "on-server-down") {
		t.Error(text)
	}
}
