// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// What the rules are told of a service is what is read of them.
func TestSpecsThere(t *testing.T) {
	cfg, err := config.Parse("x", []byte(`
services:
  - tcp: 192.0.2.1:80
    scheduler: sh
    sched-flags: [sh-port, sh-fallback]
    no-server: reset
    helper: ftp
    on-server-down: reset
    idle: 60
    servers:
      - {address: 10.0.0.2, method: route, weight: 0}
      - {address: 10.0.0.3, method: tunnel, upper: 9, lower: 3}
      - {address: 10.0.0.4, weight: 65535, nat: auto}
  - udp: 192.0.2.1:53
    one-packet: true
    on-server-down: repick
    persistence: {timeout: 60, mask: 255.0.255.0}
  - udp: 192.0.2.1:54
    persistence: {timeout: 60, mask: 0.0.0.0}
  - tcp: "[2001:db8::1]:0"
    persistence: {timeout: 2678400, mask: 1}
  - {mark: 1, persistence: {mask: 24}}
  - {mark6: 4294967295, persistence: 360}
`))
	must(t, err)
	for _, s := range cfg.Services {
		if got := controlService(natService(s.ServiceSpec)); got != s.ServiceSpec {
			t.Errorf("got  %+v\nwant %+v", got, s.ServiceSpec)
		}
		for _, v := range s.Servers {
			if got := controlServer(natServer(v)); got != v {
				t.Errorf("got  %+v\nwant %+v", got, v)
			}
		}
	}
	// Whole addresses need no mask.
	if m := natService(cfg.Services[5].ServiceSpec).Persistence; m != (nat.Persistence{Timeout: 360e9}) {
		t.Errorf("%+v", m)
	}
}

// Rules that give marks are there in their order, whichever way they came.
func TestMarksThere(t *testing.T) {
	const rules = "marks:\n  - {mark: 1, proto: tcp, to: 192.168.88.24, ports: 80}\n  - {mark: 2, from: 192.0.2.0/24, interface: dwan}\n"
	d, file := startDirector(t, small+rules)
	third := control.MarkSpec{Mark: 3, Proto: control.SCTP}
	must(t, d.AddMark(t.Context(), third))
	for name, err := range map[string]error{
		"twice":   d.AddMark(t.Context(), control.MarkSpec{Mark: 9, Proto: control.SCTP}),
		"none":    d.DeleteMark(t.Context(), control.MarkSpec{Mark: 9}),
		"invalid": d.AddMark(t.Context(), control.MarkSpec{}),
	} {
		var refused *control.Error
		if !errors.As(err, &refused) || refused.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := d.Marks(t.Context())
	must(t, err)
	if text := fmt.Sprint(list); text != "[mark 1 tcp to 192.168.88.24/32 ports 80 mark 2 from 192.0.2.0/24 by dwan mark 3 sctp]" {
		t.Error(text)
	}
	parsed, err := config.Parse("saved", []byte(d.config(t)))
	must(t, err)
	if !slices.Equal(parsed.Marks, list) {
		t.Errorf("saved:\n%s", d.config(t))
	}
	must(t, os.WriteFile(file, []byte(small+"marks: [{mark: 2, from: 192.0.2.0/24, interface: dwan}]\n"), 0o600))
	r, err := d.Reload(t.Context())
	must(t, err)
	if len(r.Changes) != 4 {
		t.Errorf("%q", r.Changes)
	}
	if list, _ := d.Marks(t.Context()); len(list) != 1 || list[0].Mark != 2 {
		t.Errorf("%v", list)
	}
}

// Every setting reaches the rules.
func TestSettingsThere(t *testing.T) {
	standard := nat.DefaultSettings()
	standard.Timeouts[conntrack.ICMP] = 30 * time.Second // as the configuration has it
	standard.LBLCExpiration, standard.LBLCRExpiration = 24*time.Hour, 24*time.Hour
	ours := standard
	ours.ResetOnExpiry = true
	if got := settingsOf(config.Default()); got != ours {
		t.Errorf("got  %+v\nwant %+v", got, ours)
	}
	compat := config.Default()
	compat.Compat = config.CompatIPVS
	ipvs := standard
	ipvs.HoldGoneSYN = true
	if got := settingsOf(compat); got != ipvs {
		t.Errorf("got  %+v\nwant %+v", got, ipvs)
	}
	for _, s := range config.Default().ListSettings() {
		if s.Fixed {
			continue
		}
		value := control.SettingValue("1")
		if s.Value == value {
			value = "0"
		}
		cfg, err := config.Default().WithSettings(map[string]control.SettingValue{s.Name: value})
		must(t, err)
		if settingsOf(cfg) == ours {
			t.Errorf("%s=%s changes nothing", s.Name, value)
		}
	}
}
