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
		{Config{IPv6: true, Router: true, Far: true, Servers: 200}, []string{
			"2001:db8:113::9", "2001:db8:100::21", "2001:db8:100::1 / 2001:db8:88::1",
			"│ eth0   2001:db8:88::20          │", "│ vsnat  2001:db8:88::23  VIP     │",
			"│ eth1   fd00:10::1       gateway │", "fd00:10::/64", "fd00:10::c9",
		}, []string{"192.168", "10.0.0"}},
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
	const wantIPv6 = `services:
  - tcp: "[2001:db8:88::23]:80"
    servers:
      - "[fd00:10::2]:80"
snat:
  - from: fd00:10::/64
    to: 2001:db8:88::23
`
	if got := (Config{Servers: 1, IPv6: true}).DirectorConfig("", ""); got != wantIPv6 {
		t.Errorf("IPv6: got\n%s\nwant\n%s", got, wantIPv6)
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
	const bareIPv6 = `addresses: [2001:db8:88::23/64, fd00:10::1/64]
routes:
  - dst: 2001:db8:88::/64
    interface: eth0
  - dst: fd00:10::/64
    interface: eth0
services: []
`
	if got := (Config{Host: HostBare, OneArm: true, IPv6: true}).EmptyDirectorConfig(""); got != bareIPv6 {
		t.Errorf("bare, IPv6: got %q", got)
	}
}
