// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
	"github.com/vsnat/vsnat/nat"
)

const small = `max-conns: 1000
guard: none
routes:
  - {dst: 192.168.88.0/24, interface: dwan}
  - {dst: 10.0.0.0/24, interface: dlan}
services:
  - tcp: 192.168.88.23:80
    scheduler: rr
    servers: [10.0.0.2:80, 10.0.0.3:80]
snat:
  - from: 10.0.0.0/24
    to: 192.168.88.23
`

// startDirector makes two links and a director on them, without its control
// socket, and with decide at work. It returns the file that reload reads.
func startDirector(t *testing.T, text string) (*director, string) {
	t.Helper()
	cables(t)
	return openDirector(t, text)
}

func cables(t *testing.T) {
	t.Helper()
	other := ifacetest.NewNamespace(t)
	for _, name := range []string{"dwan", "dlan"} {
		ifacetest.NewCable(t, name, other, name)
	}
}

func openDirector(t *testing.T, text string) (*director, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vsnat.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, err := config.Read(file)
	must(t, err)
	d, err := open(Options{ConfigFile: file, Log: slog.New(slog.DiscardHandler)}, cfg, new(slog.LevelVar))
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = d.decide(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended; d.close() })
	return d, file
}

func (d *director) config(t *testing.T) string {
	t.Helper()
	text, err := d.Config(t.Context())
	must(t, err)
	return text
}

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

func netlinkAddr(link, address string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// waitFor reads the topology, as the watcher would, until f holds in decide.
func waitFor(t *testing.T, d *director, f func() bool) {
	t.Helper()
	for range 100 {
		now, err := d.watcher.Read()
		must(t, err)
		ok := false
		must(t, d.call(t.Context(), func() error { d.hostChanged(now); ok = f(); return nil }))
		if ok {
			return
		}
	}
	t.Fatal("it does not come to pass")
}

// FAULTS 102 to 105: links come, go, change, and are told of.
func TestLinksChange(t *testing.T) {
	d, _ := startDirector(t, small)
	mtu := func(name string) (mtu int, serving bool) {
		links, err := d.Links(t.Context())
		must(t, err)
		for _, l := range links {
			if l.Name == name {
				return l.MTU, l.Serving
			}
		}
		return 0, false
	}
	lan, err := netlink.LinkByName("dlan")
	must(t, err)
	var first shard.PortGroup
	place := func(name string) int {
		return slices.IndexFunc(d.world.ports[:], func(p servedPort) bool { return p.name == name })
	}
	waitFor(t, d, func() bool { first = d.world.ports[place("dlan")].open; return first != nil })
	at := int(first[0].Index)

	must(t, netlink.LinkSetMTU(lan, 1400))
	waitFor(t, d, func() bool { return slices.Equal(d.world.ports[at].open, first) })
	if m, serving := mtu("dlan"); m != 1400 || !serving {
		t.Errorf("MTU %d, serving %v", m, serving)
	}

	must(t, netlink.LinkSetDown(lan))
	waitFor(t, d, func() bool { return d.world.ports[at].open == nil && !slices.Contains(d.world.served, "dlan") })
	must(t, netlink.LinkSetName(lan, "renamed"))
	must(t, netlink.LinkSetUp(lan))
	waitFor(t, d, func() bool { return place("renamed") == at && d.world.ports[at].open != nil })

	// As a port of a bridge a link carries no IP itself: the bridge does.
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dbridge"}}))
	bridge, err := netlink.LinkByName("dbridge")
	must(t, err)
	must(t, netlink.LinkSetMaster(lan, bridge))
	must(t, netlink.LinkSetUp(bridge))
	waitFor(t, d, func() bool {
		return d.world.ports[at].open == nil && !slices.Contains(d.world.served, "renamed") && slices.Contains(d.world.served, "dbridge")
	})
	must(t, netlink.LinkDel(bridge))
	waitFor(t, d, func() bool { return slices.Contains(d.world.served, "renamed") && d.world.ports[at].open != nil })

	must(t, netlink.LinkDel(lan))
	waitFor(t, d, func() bool { return d.world.ports[at].open == nil })
	other := ifacetest.NewNamespace(t)
	ifacetest.NewCable(t, "renamed", other, "again")
	waitFor(t, d, func() bool { return place("renamed") == at && d.world.ports[at].open != nil })

	wanLink, err := netlink.LinkByName("dwan")
	must(t, err)
	again, err := netlink.LinkByName("renamed")
	must(t, err)
	must(t, netlink.LinkSetDown(wanLink))
	must(t, netlink.LinkSetDown(again))
	waitFor(t, d, func() bool { return len(d.world.served) == 0 })
	h, err := d.Health(t.Context())
	must(t, err)
	if h.Status != "degraded" || !slices.Contains(h.Problems, "no network interface can be served") {
		t.Errorf("health %+v", h)
	}
	must(t, netlink.LinkSetUp(wanLink))
	waitFor(t, d, func() bool { return len(d.world.served) == 1 })
	if h, err = d.Health(t.Context()); err != nil || slices.Contains(h.Problems, "no network interface can be served") {
		t.Errorf("health %+v, %v: the problem is over", h, err)
	}
}

// failingGuard refuses until it is told otherwise.
type failingGuard struct {
	iface.Guard
	err     error
	applied []iface.GuardRules
}

func (g *failingGuard) Apply(r iface.GuardRules) error {
	if g.err == nil {
		g.applied = append(g.applied, r)
	}
	return g.err
}

// FAULTS 106: a guard that fails is told of as long as it does, and tried again.
func TestGuardFails(t *testing.T) {
	d, _ := startDirector(t, small)
	guard := &failingGuard{Guard: d.guard, err: errors.New("no room")}
	must(t, d.call(t.Context(), func() error { d.guard = guard; return nil }))
	key := control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.24:53")}
	must(t, d.AddService(t.Context(), control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
	h, err := d.Health(t.Context())
	must(t, err)
	if h.Status != "degraded" || !slices.ContainsFunc(h.Problems, func(s string) bool { return strings.Contains(s, "no room") }) {
		t.Errorf("health %+v", h)
	}
	must(t, d.call(t.Context(), func() error { guard.err = nil; d.tick(1, d.started); return nil }))
	if h, err = d.Health(t.Context()); err != nil || h.Status != "ok" {
		t.Errorf("health %+v, %v", h, err)
	}
	if n := len(guard.applied); n == 0 || !slices.Contains(guard.applied[n-1].Owned, key.Address.Addr()) {
		t.Errorf("applied %+v", guard.applied)
	}
}

// RFC 5227, 2.3: an address is announced when it comes, and once more 2 s later.
func TestAnnouncedTwice(t *testing.T) {
	d, _ := startDirector(t, small)
	announced := func() uint64 { return d.neighbours.Stats().Announcements }
	const each = 4 // two forms on two ports
	if n := announced(); n != each {
		t.Errorf("%d announcements at the start, want %d", n, each)
	}
	key := control.ServiceKey{Proto: control.UDP, Address: netip.MustParseAddrPort("192.168.88.24:53")}
	must(t, d.AddService(t.Context(), control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}))
	must(t, d.call(t.Context(), func() error {
		if n := announced(); n != 3*each { // both addresses
			t.Errorf("%d announcements after one was added, want %d", n, 3*each)
		}
		due := d.world.announceAt
		d.tick(1, due.Add(-1))
		if n := announced(); n != 3*each {
			t.Errorf("%d announcements before the time", n)
		}
		d.tick(1, due)
		d.tick(1, due.Add(announceAgain))
		if n := announced(); n != 5*each {
			t.Errorf("%d announcements in the end, want %d", n, 5*each)
		}
		return nil
	}))
	must(t, d.DeleteService(t.Context(), key))
	if n := announced(); n != 5*each {
		t.Errorf("%d announcements after one was removed", n)
	}
}

// What a deleted service counted stays in the total, and Zero begins anew.
func TestTotalsNeverGoBack(t *testing.T) {
	d, _ := startDirector(t, small)
	key := control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")}
	total := func() control.Counters {
		s, err := d.Stats(t.Context())
		must(t, err)
		return s.Total
	}
	d.shards.First().Do(func() {
		s := d.shards.First()
		for port := range 10 {
			s.Forwarder().Begin(s.Now())
			// From the far side of a link that is served; the verdict does not matter.
			s.Forwarder().Forward(&nat.Packet{Data: syn(40000 + port), In: 0, From: clientMAC})
		}
	})
	if n := total().Conns; n != 10 {
		t.Fatalf("%d connections opened", n)
	}
	must(t, d.DeleteService(t.Context(), key))
	if n := total().Conns; n != 10 {
		t.Errorf("%d connections in the total after the service was deleted", n)
	}
	must(t, d.Zero(t.Context(), control.ServiceKey{}))
	if n := total(); n != (control.Counters{}) {
		t.Errorf("total %+v after Zero", n)
	}
	if err := d.Zero(t.Context(), key); err == nil {
		t.Error("Zero of a service that is not there")
	}
}

// A listing while the table changes: what lives all the while is there once.
func TestConnsPaged(t *testing.T) {
	d, _ := startDirector(t, small)
	open := func(from, to int) {
		d.shards.Do(func(s *shard.Shard) {
			s.Forwarder().Begin(s.Now())
			for port := from; port < to; port++ {
				s.Forwarder().Forward(&nat.Packet{Data: syn(port), In: 0, From: clientMAC})
			}
		})
	}
	open(1000, 1100)
	seen := make(map[uint16]int)
	for q := (control.ConnQuery{Limit: 7}); ; {
		page, err := d.Conns(t.Context(), q)
		must(t, err)
		if len(page.Conns) > 7 {
			t.Fatalf("%d on a page", len(page.Conns))
		}
		for _, c := range page.Conns {
			seen[c.Client.Port()]++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
		open(2000+len(seen), 2002+len(seen)) // younger ones
	}
	for port := range 100 {
		if seen[uint16(1000+port)] != 1 {
			t.Errorf("port %d is listed %d times", 1000+port, seen[uint16(1000+port)])
		}
	}
	for port, n := range seen {
		if n != 1 {
			t.Errorf("port %d is listed %d times", port, n)
		}
	}
	for name, q := range map[string]control.ConnQuery{"cursor": {Cursor: "x"}, "negative": {Cursor: "-1"}, "protocol": {Proto: "dccp"}} {
		if _, err := d.Conns(t.Context(), q); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if p, err := d.Conns(t.Context(), control.ConnQuery{Cursor: "999999"}); err != nil || len(p.Conns) != 0 || p.Next != "" {
		t.Errorf("past the end: %+v, %v", p, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := d.Conns(ended, control.ConnQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("by one who has left: %v", err)
	}
}

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

// FAULTS 123: whoever reads the log holds up decide, never the packets.
func TestSlowLog(t *testing.T) {
	d, _ := startDirector(t, small)
	until := make(chan struct{})
	release := sync.OnceFunc(func() { close(until) })
	t.Cleanup(release) // or decide would never end after a failure
	must(t, d.call(t.Context(), func() error { d.log = slog.New(&stuck{Handler: slog.DiscardHandler, until: until}); return nil }))
	for range 10 * cap(d.news) {
		d.conflict(0, vip, [6]byte{2})
		if !d.shards.Do(func(*shard.Shard) {}) {
			t.Fatal("the shard has ended")
		}
	}
	release()
	if _, err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
}

type stuck struct {
	slog.Handler
	until chan struct{}
}

func (s *stuck) Enabled(context.Context, slog.Level) bool { return true }

func (s *stuck) Handle(context.Context, slog.Record) error { <-s.until; return nil }

// A condition that comes often is told once in ten seconds.
func TestWarnings(t *testing.T) {
	var out bytes.Buffer
	d := &director{log: slog.New(slog.NewTextHandler(&out, nil)), warned: make(map[string]time.Time)}
	for range 3 {
		d.warn("a", "first", "x")
		d.warn("b", "second", "line\nbreak")
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}
