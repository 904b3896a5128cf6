// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// FAULTS 117, 120, 121: a reload applies what differs and nothing else.
func TestReloadApplies(t *testing.T) {
	d, file := startDirector(t, small)
	before, err := d.Services(t.Context())
	must(t, err)
	next := strings.NewReplacer("scheduler: rr", "scheduler: wlc", "10.0.0.3:80", "10.0.0.4:80").Replace(small) +
		"  - from: 10.9.0.0/16\n    to: 192.168.88.23\nlog: {level: debug}\nmax-conns: 2000\n"
	next = strings.Replace(next, "max-conns: 1000\n", "", 1)
	must(t, os.WriteFile(file, []byte(next), 0o600))
	r, err := d.Reload(t.Context())
	must(t, err)
	if len(r.Changes) != 5 || !slices.Equal(r.Restart, []string{"max-conns"}) {
		t.Errorf("changes %q, restart %q", r.Changes, r.Restart)
	}
	after, err := d.Services(t.Context())
	must(t, err)
	if s := after[0]; s.Scheduler != "wlc" || len(s.Servers) != 2 || s.Servers[0].Address.String() != "10.0.0.4:80" || s.Servers[1].Address != before[0].Servers[1].Address {
		t.Errorf("after: %+v", s)
	}
	if d.level.Level() != slog.LevelDebug {
		t.Error("the log level is not taken up")
	}
	if text := d.config(t); strings.Contains(text, "2000") || !strings.Contains(text, "10.9.0.0/16") {
		t.Errorf("running:\n%s", text)
	}
	for range 100 { // storm
		r, err := d.Reload(t.Context())
		must(t, err)
		if len(r.Changes) != 0 {
			t.Fatalf("nothing differs, and yet %q", r.Changes)
		}
	}
}

// FAULTS 116, 117: a file that is refused changes nothing.
func TestReloadRefused(t *testing.T) {
	d, file := startDirector(t, small)
	must(t, netlinkAddr("dlan", "10.0.0.77/24"))
	must(t, d.SetTimeouts(t.Context(), control.Timeouts{UDP: control.Duration(7e9)}))
	must(t, d.EditServer(t.Context(), control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")},
		control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 5}))
	waitFor(t, d, func() bool { return slices.Contains(d.world.host.Addrs, netip.MustParseAddr("10.0.0.77")) })
	before := d.config(t)
	for name, text := range map[string]string{
		"syntax":           "services: [",
		"nothing":          "",
		"NUL":              "services: []\x00",
		"unknown key":      "x: 1\n",
		"no such link":     "interfaces: [none0]\n" + small,
		"server is host":   strings.Replace(small, "10.0.0.3", "10.0.0.77", 1),
		"IPv6 service":     small + "  - from: 10.8.0.0/24\n    to: 192.168.88.23\nicmp-rate: 5\n" + "addresses: []\n",
		"service twice":    strings.Replace(small, "services:\n", "services:\n  - tcp: 192.168.88.23:80\n", 1),
		"weight":           strings.Replace(small, "10.0.0.2:80,", "{address: 10.0.0.2:80, weight: 65536},", 1),
		"unknown schedule": strings.Replace(small, "rr", "rrr", 1),
	} {
		if name == "IPv6 service" {
			text = strings.Replace(text, "192.168.88.23\nicmp", "2001:db8::1\nicmp", 1)
		}
		must(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := d.Reload(t.Context())
		var refused *control.Error
		if !errors.As(err, &refused) || refused.Code != control.CodeConfig {
			t.Errorf("%s: %v", name, err)
		}
		if after := d.config(t); after != before {
			t.Errorf("%s: changed\n%s", name, after)
		}
	}
	must(t, os.Remove(file))
	if _, err := d.Reload(t.Context()); err == nil || d.config(t) != before {
		t.Errorf("no file: %v", err)
	}
}
