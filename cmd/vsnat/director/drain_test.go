// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/nat"
)

// openConns has clients of ports from…to-1 begin connections.
func openConns(d *director, from, to int) {
	d.shards.Do(func(s *shard.Shard) {
		s.Forwarder().Begin(s.Now())
		for port := from; port < to; port++ {
			s.Forwarder().Forward(&nat.Packet{Data: syn(port), In: 0, From: clientMAC})
		}
	})
}

// connsOf is how many connections a server of the small cluster has.
func connsOf(t *testing.T, d *director, server netip.AddrPort) int {
	t.Helper()
	for _, v := range serversOf(t, d) {
		if v.Address == server {
			return v.Active + v.Inactive
		}
	}
	t.Fatalf("there is no server %s", server)
	return 0
}

func serversOf(t *testing.T, d *director) []control.Server {
	t.Helper()
	services, err := d.Services(t.Context())
	must(t, err)
	return services[0].Servers
}

var drainee = netip.MustParseAddrPort("10.0.0.3:80")

// wantState wants the one drain there is in a state.
func wantState(t *testing.T, d *director, state string) control.Drain {
	t.Helper()
	list, err := d.Drains(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].State != state {
		t.Fatalf("drains %+v, want one that is %s", list, state)
	}
	return list[0]
}

// due has the deadline of the drain behind it, and the drains looked at.
func due(t *testing.T, d *director) {
	t.Helper()
	must(t, d.call(t.Context(), func() error {
		for _, j := range d.drains {
			j.Deadline = time.Now()
		}
		d.tickDrains(time.Now())
		return nil
	}))
}

// A server that drains keeps what it has and gets nothing new; asking again goes on
// with the same drain; at the deadline what is left ends, and undone it serves again.
func TestDrainEnds(t *testing.T) {
	d, _ := startDirector(t, small)
	openConns(d, 1000, 1010)
	spec := control.DrainSpec{Server: netip.AddrPortFrom(drainee.Addr(), 0), Deadline: control.Duration(time.Hour)}
	_, err := d.Drain(control.WithCaller(t.Context(), "me"), spec)
	must(t, err)
	if j := wantState(t, d, control.DrainDraining); j.Began != 5 || j.Active != 5 || j.By != "me" || j.Then != control.ThenLeave || j.Server != drainee {
		t.Errorf("began as %+v", j)
	}
	openConns(d, 1010, 1020)
	if n := connsOf(t, d, drainee); n != 5 {
		t.Errorf("it has %d connections while it drains, had 5", n)
	}
	for _, v := range serversOf(t, d) {
		if (v.Drain != nil) != (v.Address == drainee) || v.Address == drainee && (v.WeightInForce() != 0 || v.Weight != 1 || v.Why != "draining") {
			t.Errorf("listed as %+v", v)
		}
	}
	if text := d.config(t); strings.Contains(text, "weight") {
		t.Errorf("a drain is no matter of the configuration:\n%s", text)
	}

	again, err := d.Drain(control.WithCaller(t.Context(), "you"), control.DrainSpec{Server: drainee, Then: control.ThenReset})
	must(t, err)
	if len(again) != 1 || again[0].By != "me" || again[0].Began != 5 || again[0].Deadline.IsZero() || again[0].Then != control.ThenReset {
		t.Errorf("again it is %+v", again)
	}
	due(t, d)
	wantState(t, d, control.DrainEnding)
	waitFor(t, d, func() bool {
		d.shards.Do(func(s *shard.Shard) { s.Forwarder().Begin(s.Now()); s.Forwarder().Sweep(1000) })
		d.tickDrains(time.Now())
		return d.listDrains()[0].State == control.DrainDrained
	})
	if n := connsOf(t, d, drainee); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if n := connsOf(t, d, netip.MustParseAddrPort("10.0.0.2:80")); n != 15 {
		t.Errorf("the other server has %d connections, had 15", n)
	}
	openConns(d, 1020, 1030)
	if n := connsOf(t, d, drainee); n != 0 {
		t.Errorf("drained, it has %d connections", n)
	}
	_, err = d.Undrain(t.Context(), control.DrainSpec{Server: drainee})
	must(t, err)
	openConns(d, 1030, 1040)
	if n := connsOf(t, d, drainee); n != 5 {
		t.Errorf("in service again it got %d connections of 10", n)
	}
	_, err = d.Undrain(t.Context(), control.DrainSpec{Server: drainee})
	refusedWith(t, err, control.CodeNoServer)
}

// Where nothing else was asked for, what is left at the deadline goes on.
func TestDrainLeaves(t *testing.T) {
	d, _ := startDirector(t, small)
	openConns(d, 1000, 1010)
	_, err := d.Drain(t.Context(), control.DrainSpec{Server: drainee, Service: smallWeb, Deadline: control.Duration(time.Hour)})
	must(t, err)
	due(t, d)
	wantState(t, d, control.DrainLeft)
	if n := connsOf(t, d, drainee); n != 5 {
		t.Errorf("%d connections are left of 5", n)
	}
	// A new deadline goes on with it.
	_, err = d.Drain(t.Context(), control.DrainSpec{Server: drainee, Deadline: control.Duration(time.Hour)})
	must(t, err)
	wantState(t, d, control.DrainDraining)
	for name, spec := range map[string]control.DrainSpec{
		"no such server":   {Server: netip.MustParseAddrPort("10.0.0.9:80")},
		"another port":     {Server: netip.MustParseAddrPort("10.0.0.3:81")},
		"another service":  {Server: drainee, Service: control.ServiceKey{Proto: control.UDP, Address: smallWeb.Address}},
		"then":             {Server: drainee, Then: "drop"},
		"deadline":         {Server: drainee, Deadline: -1},
		"without deadline": {Server: netip.MustParseAddrPort("10.0.0.2:80"), Then: control.ThenReset},
	} {
		if _, err := d.Drain(t.Context(), spec); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Connections that are over hold up nothing, those of a closed handshake do.
func TestDrainWaitsForWhatIsOpen(t *testing.T) {
	d, _ := startDirector(t, small)
	openConns(d, 1000, 1010)
	_, err := d.Drain(t.Context(), control.DrainSpec{Server: drainee})
	must(t, err)
	wantState(t, d, control.DrainDraining)
	answer := func(flags string) {
		d.shards.Do(func(s *shard.Shard) {
			s.Forwarder().Begin(s.Now())
			for port := 1000; port < 1010; port++ {
				reply := packet(drainee, netip.AddrPortFrom(clientIP, uint16(port)), flags)
				s.Forwarder().Forward(&nat.Packet{Data: reply, In: 1, From: serverMAC})
			}
		})
	}
	tick := func() {
		must(t, d.call(t.Context(), func() error { d.tickDrains(time.Now()); return nil }))
	}
	tick()
	wantState(t, d, control.DrainDraining)
	answer("RA") // refused: CLOSE, whose entries stay for 10 s
	tick()
	if j := wantState(t, d, control.DrainDrained); j.Inactive != 5 {
		t.Errorf("drained with %d entries, want the 5 that are over", j.Inactive)
	}
}

// Orders outlive a reload and a trial; they end with the server. Maintenance stays
// when the drain is undone.
func TestOrdersStay(t *testing.T) {
	d, file := startDirector(t, small)
	_, err := d.Drain(t.Context(), control.DrainSpec{Server: drainee})
	must(t, err)
	_, err = d.Drain(t.Context(), control.DrainSpec{Server: drainee, Maintenance: true})
	must(t, err)
	given := func(want int, why string) {
		t.Helper()
		for _, v := range serversOf(t, d) {
			if v.Address == drainee && (v.WeightInForce() != want || v.Why != why) {
				t.Errorf("weight %d, %q; want %d, %q", v.WeightInForce(), v.Why, want, why)
			}
		}
	}
	given(0, "drained") // it has no connection
	must(t, os.WriteFile(file, []byte(strings.Replace(small, "10.0.0.3:80", "{address: 10.0.0.3:80, weight: 7}", 1)), 0o600))
	_, err = d.Reload(t.Context())
	must(t, err)
	given(0, "drained")
	_, err = d.Undrain(t.Context(), control.DrainSpec{Server: drainee})
	must(t, err)
	given(0, "maintenance")

	_, err = d.Apply(t.Context(), control.ApplySpec{Config: strings.Replace(small, ", 10.0.0.3:80", "", 1), Confirm: control.Duration(time.Hour)})
	must(t, err)
	if len(serversOf(t, d)) != 1 {
		t.Fatal("it is not deleted")
	}
	_, err = d.Rollback(t.Context())
	must(t, err)
	given(0, "maintenance")
	_, err = d.Undrain(t.Context(), control.DrainSpec{Server: drainee, Maintenance: true})
	must(t, err)
	given(7, "")

	_, err = d.Drain(t.Context(), control.DrainSpec{Server: drainee, Maintenance: true})
	must(t, err)
	must(t, d.DeleteServer(t.Context(), smallWeb, drainee))
	must(t, d.AddServer(t.Context(), smallWeb, control.ServerSpec{Address: drainee, Weight: 3}))
	given(3, "")
	if list, err := d.Drains(t.Context()); err != nil || slices.ContainsFunc(list, func(control.Drain) bool { return true }) {
		t.Errorf("drains %+v, %v", list, err)
	}
}
