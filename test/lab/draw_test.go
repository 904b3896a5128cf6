// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
)

const reference = `
                        client
                     192.168.88.21
                           │ 192.168.88.0/24
           ┌─ director ────┴───────────────┐
           │ eth0   192.168.88.20          │
           │ vsnat  192.168.88.23  VIP     │
           │ eth1   10.0.0.1       gateway │
           └───────────────┬───────────────┘
                           │ 10.0.0.0/24
         ┌─────────────────┼─────────────────┐
        rs1               rs2               rs3
     10.0.0.2          10.0.0.3          10.0.0.4
`

func TestDrawReference(t *testing.T) {
	got, err := Draw(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if want := reference[1:]; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDrawShowsAll(t *testing.T) {
	for _, row := range []struct {
		config Config
		want   []string
		not    []string
	}{
		{Config{Servers: 1}, []string{"rs1", "10.0.0.2"}, []string{"rs2", "┌┬", "┴┘"}},
		{Config{Servers: 2, Clients: 2}, []string{"client2", "192.168.88.22", "rs2", "└────────┬────────┘"}, nil},
		{Config{Servers: 200}, []string{"rs2", "…", "rs200", "10.0.0.201"}, []string{"rs3 "}},
		{Config{Router: true, Far: true}, []string{"router", "198.51.100.21", "far", "203.0.113.9"}, nil},
		{Config{Host: HostVIPOnNIC}, []string{"eth0   192.168.88.23  VIP"}, []string{"192.168.88.20"}},
		{Config{Host: HostVIPOnLoopback}, []string{"lo     192.168.88.23  VIP", "eth0   192.168.88.20"}, nil},
		{Config{Host: HostBare}, []string{"vsnat  192.168.88.23  VIP", "vsnat  10.0.0.1       gateway"}, []string{"eth"}},
		{Config{OneArm: true}, []string{"eth0   10.0.0.1       gateway"}, []string{"eth1"}},
	} {
		got, err := Draw(row.config)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range row.want {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: no %q in\n%s", row.config, want, got)
			}
		}
		for _, not := range row.not {
			if strings.Contains(got, not) {
				t.Errorf("%+v: %q in\n%s", row.config, not, got)
			}
		}
	}
	if _, err := Draw(Config{Servers: 999}); err == nil {
		t.Error("999 servers were drawn")
	}
}

func TestDirectorConfig(t *testing.T) {
	const want = `io: "packet"
services:
  - tcp: 192.168.88.23:80
    scheduler: "wrr"
    servers:
      - 10.0.0.2:80
      - 10.0.0.3:80
snat:
  - from: 10.0.0.0/24
    to: 192.168.88.23
`
	if got := (Config{Servers: 2}).DirectorConfig("wrr", "packet"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (Config{}).EmptyDirectorConfig(""); got != "services: []\n" {
		t.Errorf("empty: got %q", got)
	}
	const bare = `addresses: [192.168.88.23/24, 10.0.0.1/24]
routes:
  - dst: 192.168.88.0/24
    interface: eth0
  - dst: 10.0.0.0/24
    interface: eth1
services: []
`
	if got := (Config{Host: HostBare}).EmptyDirectorConfig(""); got != bare {
		t.Errorf("bare: got %q", got)
	}
}
