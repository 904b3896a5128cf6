// SPDX-License-Identifier: Apache-2.0

package director

import (
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
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
      - {address: 10.0.0.4, weight: 65535}
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
