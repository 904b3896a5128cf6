// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vsnat": main, "ipvsadm": main, "ipvsadm-save": main, "ipvsadm-restore": main})
}

// The scripts in testdata are specification, test and manual of the command
// line. Their own command "director KIND" starts a director on the script's
// control socket: one of controltest, that serves no packet.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"director": directorCommand},
		Setup: func(e *testscript.Env) error {
			e.Setenv("VSNAT_SOCKET", filepath.Join(e.WorkDir, "control.sock"))
			return nil
		},
	})
}

// directorCommand is the command "director empty|cluster|hostile|sick".
func directorCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: director KIND")
	}
	fill, ok := map[string]func(*controltest.Director) error{
		"empty":   func(*controltest.Director) error { return nil },
		"cluster": cluster,
		"hostile": hostile,
		"sick":    sick,
		"many":    many,
	}[args[0]]
	if !ok {
		ts.Fatalf("no director of kind %s", args[0])
	}
	d := &controltest.Director{
		State:       control.Health{Status: "ok", PID: 4242, Version: "v1", Started: time.Now().Add(-90 * time.Minute), IO: "packet", Guard: "nft"},
		Text:        "services: []\n",
		Check:       config.CheckService,
		CheckServer: config.CheckServer,
		CheckSNAT:   config.CheckSNAT,
		CheckMark:   config.CheckMark,
		Differ:      differ,
	}
	ts.Check(fill(d))
	l, err := control.Listen(ts.Getenv("VSNAT_SOCKET"), control.ListenOptions{})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.NewServer(d, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-ended)
	})
}

// cluster is the reference cluster after some traffic.
func cluster(d *controltest.Director) error {
	c, err := config.Parse("minimal", []byte(config.Minimal()))
	if err != nil {
		return err
	}
	for _, change := range config.Diff(config.Default(), c) {
		if err := change.Apply(context.Background(), d); err != nil {
			return err
		}
	}
	d.Text, d.File = string(config.Marshal(c)), config.Minimal()
	key := c.Services[0].ServiceKey
	for i, s := range c.Services[0].Servers {
		d.SetCounters(key, s.Address, i, 10*i, control.Counters{Conns: uint64(9999 + i), InBytes: uint64(i) * 123456, OutBytes: uint64(i) * 98765432})
	}
	d.SetCounters(key, netip.AddrPort{}, 0, 0, control.Counters{Conns: 30000, InBytes: 370368, OutBytes: 296296296})
	for i := range 1234 {
		d.Entries = append(d.Entries, control.Conn{
			Proto: control.TCP, State: "ESTABLISHED", Expires: control.Duration(time.Duration(900-i%60) * time.Second),
			Client: netip.MustParseAddrPort(fmt.Sprintf("192.168.88.%d:%d", 21+i%2, 40000+i)), Virtual: key.Address,
			Server: c.Services[0].Servers[i%3].Address, Kind: "nat", Flags: []string{"replied"},
		})
	}
	d.Counts = control.Stats{
		Total:  control.Counters{Conns: 30000, InPackets: 2468, InBytes: 370368, OutBytes: 296296296},
		Conns:  control.ConnStats{Len: 1234, Cap: 1000000, Held: 1234},
		Drops:  map[string]uint64{"ttl": 3, "bad-checksum": 1, "no-route": 0},
		Events: map[string]uint64{"evicted-half-open": 12},
	}
	d.Set = []control.Setting{
		{Name: "conn_reuse_mode", Value: "1", Default: "1", Meaning: "of SYNs"}, {Name: "sloppy_tcp", Value: "0", Default: "0", Meaning: "of the rest"},
	}
	d.Ports = []control.Link{
		{Name: "eth0", MTU: 1500, Up: true, Serving: true, InPackets: 123456, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.88.22/24")}},
		{Name: "eth1", MTU: 9000, Serving: true, KernelDrop: 2},
		{Name: "lo", MTU: 65536, Up: true},
	}
	d.Happened.Add(control.Event{Kind: control.EventStarted, Text: "vsnat v1 serves, as process 4242"})
	d.Happened.Add(control.Event{Kind: control.EventServerDeleted, Service: key, Server: netip.MustParseAddrPort("10.0.0.5:80"), By: "uid 0 pid 77", Text: "delete server 10.0.0.5:80 of tcp 192.168.88.23:80"})
	d.Measured = "# TYPE vsnat_problems gauge\nvsnat_problems 0\n"
	d.Done = control.Reloaded{Changes: []string{"add service udp 192.168.88.23:53"}, Restart: []string{"max-conns"}}
	return nil
}

// differ is what it takes to get from one text to another.
func differ(from, to string) (r control.Reloaded, err error) {
	a, err := config.Parse("running", []byte(from))
	if err != nil {
		return r, err
	}
	b, err := config.Parse("wanted", []byte(to))
	if err != nil {
		return r, control.Refuse(control.CodeConfig, err.Error(), "")
	}
	r.Changes = []string{}
	for _, c := range config.Diff(a, b) {
		if c.Restart() {
			r.Restart = append(r.Restart, c.Setting)
		} else {
			r.Changes = append(r.Changes, c.String())
		}
	}
	return r, nil
}

// hostile tells things that came from a network nobody trusts.
func hostile(d *controltest.Director) error {
	if err := cluster(d); err != nil {
		return err
	}
	const evil = "\x1b]0;owned\a\x1b[2J\nroot@host# \u202etxt"
	d.Entries = []control.Conn{{Proto: control.TCP, State: evil, Kind: evil}}
	d.Counts.Drops = map[string]uint64{evil: 1}
	d.Ports[0].Name = evil
	d.State.Version, d.State.Problems = evil, []string{evil}
	d.Done.Changes = []string{evil}
	d.Happened.Add(control.Event{Kind: evil, Link: evil, By: evil, Text: evil})
	d.Fail = control.Refuse(control.CodeConfig, evil, evil)
	return nil
}

// many is more than fits on a screen, some of it broken.
func many(d *controltest.Director) error {
	for i := range 40 {
		key := control.ServiceKey{Proto: control.TCP, Address: netip.AddrPortFrom(netip.MustParseAddr("192.168.88.23"), uint16(8000+i))}
		if err := d.AddService(context.Background(), control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}); err != nil {
			return err
		}
		for k := range 3 {
			weight := 1
			if i%10 == 5 && k < 2 {
				weight = 0
			}
			server := control.ServerSpec{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + k)}), 80), Weight: weight}
			if err := d.AddServer(context.Background(), key, server); err != nil {
				return err
			}
		}
		problem := fmt.Sprintf("service %s: 2 of 3 servers are down", key)
		d.State.Problems = append(d.State.Problems, problem)
		d.State.Findings = append(d.State.Findings, control.Finding{Problem: problem, Since: time.Now().Add(-10 * time.Minute), Next: "vsnat health"})
		d.Ports = append(d.Ports, control.Link{Name: fmt.Sprint("eth", i), MTU: 1500, Up: i != 30, Serving: i > 20})
	}
	d.State.Status = "degraded"
	return nil
}

// A row is cut where the screen ends, words are wrapped, what room there is is used; the
// first word has the colour.
func TestStatusOnATerminal(t *testing.T) {
	if got, want := wrapped("since 2s: 10.0.0.3 answers elsewhere", 20), "  since 2s: 10.0.0.3\n    answers\n    elsewhere\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	d := &controltest.Director{}
	if err := many(d); err != nil {
		t.Fatal(err)
	}
	services, _ := d.Services(t.Context())
	s := status{Health: d.State, Services: services, Links: d.Ports}
	for _, rows := range []int{23, 60} {
		if got := strings.Count(s.fill(80, rows), "\n"); got > rows || got < rows-3 {
			t.Errorf("%d lines on a screen of %d", got, rows)
		}
	}
	drains := drainLines([]control.Drain{
		{Server: netip.MustParseAddrPort("10.0.0.2:80"), State: control.DrainMaintenance, By: "uid 0", Active: 1},
		{Server: netip.MustParseAddrPort("10.0.0.2:53"), State: control.DrainMaintenance, By: "uid 0", Inactive: 2},
	})
	if want := []string{"server 10.0.0.2 in 2 services: maintenance by uid 0, 1 active and 2 inactive connections"}; !slices.Equal(drains, want) {
		t.Errorf("%q, want %q", drains, want)
	}
	if got, want := cut("ok: äöü\nshort\n", 6), "ok: ä…\nshort\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := coloured("ok: process 1\n", true), "\x1b[1;32mok\x1b[0m: process 1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// sick has a link that is down and a configuration file that is wrong.
func sick(d *controltest.Director) error {
	d.State.Status, d.State.Problems = "degraded", []string{"eth1 is down"}
	d.State.Unconfined = "system calls are not given up: this kernel has no seccomp filters"
	_, wrong := config.Parse("v.yaml", []byte("bad: 1\nio: x\n"))
	d.Fail = control.Refuse(control.CodeConfig, wrong.Error(), "")
	return nil
}

// The status is that of the process, also when standard output is full.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"vsnat", "config", "init"}, {"vsnat", "version"}} {
		if status := program(args, streams{nil, full, io.Discard}); status != exitFailed {
			t.Errorf("%v: status %d", args, status)
		}
	}
}
