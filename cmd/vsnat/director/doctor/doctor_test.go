// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// Guards are tried out: in a network namespace of the tests' own.
func TestMain(m *testing.M) { os.Exit(ifacetest.Main(m)) }

// healthyFacts are those of the reference cluster's director.
func healthyFacts() *facts {
	prefix := netip.MustParsePrefix
	return &facts{
		topology: iface.Topology{
			Links: []iface.Link{
				{Index: 1, Name: "lo", Loopback: true, AdminUp: true, Up: true, MTU: 65536},
				{Index: 2, Name: "eth0", Ethernet: true, AdminUp: true, Up: true, MTU: 1500, MAC: [6]byte{2, 1}, Addrs: []netip.Prefix{prefix("192.168.88.20/24")}},
				{Index: 3, Name: "eth1", Ethernet: true, AdminUp: true, Up: true, MTU: 1500, MAC: [6]byte{2, 2}, Addrs: []netip.Prefix{prefix("10.0.0.1/24")}},
			},
			Routes: []iface.Route{{Dst: prefix("10.0.0.0/24"), Link: 3}, {Dst: prefix("192.168.88.0/24"), Link: 2}},
		},
		capabilities: wantedCapabilities,
		sysctls:      map[string]string{},
		guards:       map[string]error{iface.GuardNFT: nil, iface.GuardSocket: nil},
		lro:          map[string]bool{}, xdp: map[string]bool{},
		files: 1024, available: 8 << 30,
		now: time.Unix(2e9, 0), built: time.Unix(1e9, 0), clocksource: "tsc",
	}
}

// healthyAnswers are what all servers of a plan say.
func healthyAnswers(p *plan) answers {
	a := answers{stations: map[place][][6]byte{}, servers: map[netip.Addr]*serverAnswers{}}
	for i, s := range p.servers {
		a.stations[s.station()] = [][6]byte{{2, 3, byte(i)}}
		h := heard{echo: true, large: true, ports: map[uint16]portAnswer{80: accepted}}
		a.servers[s.addr] = &serverAnswers{inside: h, outside: h, virtual: map[netip.Addr]bool{}}
	}
	return a
}

func examineFacts(t *testing.T, f *facts, text string, running *control.Health) []Finding {
	t.Helper()
	cfg, err := config.Parse("test", []byte(text+config.Minimal()))
	if err != nil {
		t.Fatal(err)
	}
	p := newPlan(cfg, f, running != nil)
	e := &examination{facts: f, plan: p, running: running}
	if f.permitted() {
		e.answers = healthyAnswers(&p)
	}
	return e.report().Findings
}

// What a lab cannot have, or only with harm to others, is told of by the facts.
func TestFindings(t *testing.T) {
	full := errors.New("no room")
	for _, row := range []struct {
		name    string
		facts   func(*facts)
		config  string
		running *control.Health
		want    []string // "level check text-part"
		fix     string
	}{
		{name: "healthy"},
		{name: "healthy, at work", running: &control.Health{Guard: iface.GuardNFT}},
		{
			name: "no rights", facts: func(f *facts) { f.capabilities = 0 }, fix: "sudo vsnat doctor",
			want: []string{"failure privileges without CAP_NET_RAW and CAP_NET_ADMIN", "unknown servers the servers were not asked"},
		},
		{
			name: "one right", facts: func(f *facts) { f.capabilities = 1 << unix.CAP_NET_RAW }, fix: "sudo vsnat doctor",
			want: []string{"failure privileges without CAP_NET_ADMIN vsnat"},
		},
		{
			name: "problem of the director", running: &control.Health{Guard: iface.GuardNFT, Problems: []string{"eth1 is gone"}},
			want: []string{"failure director eth1 is gone"},
		},
		{
			name: "rights that were kept", running: &control.Health{Guard: iface.GuardNFT, Unconfined: "system calls are not given up: no filters"},
			want: []string{"warning privileges system calls are not given up: no filters"},
		},
		{
			name: "LRO", facts: func(f *facts) { f.lro["eth0"] = true }, fix: "ethtool -K eth0 lro off",
			want: []string{"warning offloads eth0 merges segments for good"},
		},
		{
			name: "XDP", facts: func(f *facts) { f.xdp["eth1"] = true }, fix: "ip link set dev eth1 xdp off",
			want: []string{"warning offloads an XDP program on eth1"},
		},
		{
			name: "no nf_tables", facts: func(f *facts) { f.guards[iface.GuardNFT] = full }, fix: "modprobe nf_tables",
			want: []string{"warning guard the guard nft cannot be had, which alone covers everything: no room"},
		},
		{
			name: "guard that cannot be had", config: "guard: socket\n", facts: func(f *facts) { f.guards[iface.GuardSocket] = full }, fix: "guard: auto",
			want: []string{"failure guard guard socket cannot be had here: no room"},
		},
		{
			name: "socket guard beside forwarding", config: "guard: socket\n", facts: func(f *facts) { f.sysctls["net/ipv4/ip_forward"] = "1" }, fix: "ip_forward=0",
			want: []string{"failure forwarding the host forwards as well, and guard socket"},
		},
		{
			name: "no TUN device", config: "io: tun\n", facts: func(f *facts) { f.tun = unix.ENOENT }, fix: "mknod /dev/net/tun",
			want: []string{"failure tun io: tun needs /dev/net/tun"},
		},
		{
			name: "no user namespaces", facts: func(f *facts) { f.namespaces = unix.ENOSPC }, fix: "sysctl -w user.max_user_namespaces",
			want: []string{"warning namespaces user namespaces cannot be made"},
		},
		{
			name: "user namespaces for root alone", fix: "sysctl -w kernel.unprivileged_userns_clone=1",
			facts: func(f *facts) {
				f.namespaces, f.sysctls["kernel/unprivileged_userns_clone"] = unix.EPERM, "0"
			},
			want: []string{"warning namespaces user namespaces cannot be made"},
		},
		{
			name: "table larger than memory", config: "max-conns: 100000000\n", facts: func(f *facts) { f.available = 1 << 30 }, fix: "max-conns: 32",
			want: []string{"warning memory a table full of 100000000 connections takes 15830 MiB, and 1024 MiB are available"},
		},
		{
			name: "few descriptors", facts: func(f *facts) { f.files = 32 }, fix: "ulimit -n 1024",
			want: []string{"failure ulimits 32 open files are allowed, 66 are needed"},
		},
		{
			name: "clock of another age", facts: func(f *facts) { f.now = time.Unix(0, 0) }, fix: "timedatectl",
			want: []string{"warning clock the clock says 1970-01-01 00:00"},
		},
		{
			name: "slow clock", facts: func(f *facts) { f.clocksource = "hpet" }, fix: "current_clocksource",
			want: []string{"warning clock the clock source is hpet"},
		},
		{
			name: "route by an unserved link", config: "interfaces: [eth0]\n", fix: "interfaces: auto",
			want: []string{
				"failure routes server 10.0.0.2 is reached by eth1", "failure routes server 10.0.0.3 is reached by eth1",
				"failure routes server 10.0.0.4 is reached by eth1",
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := healthyFacts()
			if row.facts != nil {
				row.facts(f)
			}
			found := examineFacts(t, f, row.config, row.running)
			ok := slices.EqualFunc(found, row.want, func(f Finding, want string) bool {
				return strings.HasPrefix(fmt.Sprintf("%s %s %s", f.Level, f.Check, f.Text), want)
			})
			if !ok {
				t.Errorf("found %+v, want %q", found, row.want)
			}
			if len(found) > 0 && !strings.Contains(found[0].Fix, row.fix) {
				t.Errorf("the fix is %q, want one with %q", found[0].Fix, row.fix)
			}
		})
	}
}

// The facts of the host that the test runs on can be read, whatever they are.
func TestReadFacts(t *testing.T) {
	f, err := readFacts(true)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.topology.Links) == 0 || f.files == 0 || f.available == 0 || f.sysctl("net/ipv4/ip_forward") == "" {
		t.Errorf("facts are missing: %+v", f)
	}
	if f.capabilities&wantedCapabilities == wantedCapabilities && f.guards == nil {
		t.Error("no guard was tried")
	}
}

// Where there is no address of ours outside a server's network its gateway is not
// judged, and a server whose network we have no address in is not asked.
func TestPlan(t *testing.T) {
	f := healthyFacts()
	cfg, err := config.Parse("test", []byte(config.Minimal()))
	if err != nil {
		t.Fatal(err)
	}
	s := newPlan(cfg, f, false).servers[0]
	if s.inside != netip.MustParseAddr("10.0.0.1") || s.outside != netip.MustParseAddr("192.168.88.23") || s.hop != s.addr {
		t.Errorf("%+v", s)
	}
	f.topology.Links[2].Addrs = nil
	cfg.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}
	if s := newPlan(cfg, f, false).servers[0]; s.inside.IsValid() {
		t.Errorf("asked from %v, which nobody answers for", s.inside)
	}
	if s := newPlan(cfg, f, true).servers[0]; s.inside != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("asked from %v, although the director answers for the gateway", s.inside)
	}
	f.topology.Routes = []iface.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.168.88.1"), Link: 2}}
	if s := newPlan(cfg, f, false).servers[0]; s.hop != netip.MustParseAddr("192.168.88.1") || s.link.Name != "eth0" {
		t.Errorf("%+v", s)
	}
}
