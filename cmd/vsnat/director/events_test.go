// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// told is what events there are since the last call, a line each.
func told(t *testing.T, d *director, after *uint64) string {
	t.Helper()
	var lines []string
	must(t, d.Events(t.Context(), control.EventQuery{After: *after}, func(e control.Event) error {
		*after = e.Seq
		line := string(e.Kind)
		if e.Server.IsValid() {
			line += " " + e.Server.String()
		}
		line += " " + e.Link + "/" + e.By
		if e.Kind == control.EventProblem || e.Kind == control.EventProblemOver {
			if !strings.HasPrefix(e.Text, "test: ") {
				return nil // whether a tick sees what is true for a moment only is chance
			}
			line = string(e.Kind) + " " + e.Text
		}
		lines = append(lines, line)
		return nil
	}))
	return strings.Join(lines, "\n")
}

// Each change is told once, with who made it; what is refused is not.
func TestEventsOfChanges(t *testing.T) {
	d, file := startDirector(t, small)
	var after uint64
	wants := func(want string) {
		t.Helper()
		if got := told(t, d, &after); got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
	}
	must(t, d.call(t.Context(), func() error { return nil })) // it has started
	wants("port-open dwan/\nport-open dlan/\nstarted /")

	ctx := control.WithCaller(t.Context(), "me")
	web := control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")}
	server := control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.9:80"), Weight: 1}
	must(t, d.AddServer(ctx, web, server))
	must(t, d.SetTimeouts(ctx, control.Timeouts{UDP: control.Duration(7e9)}))
	if d.AddServer(ctx, web, server) == nil {
		t.Error("it was added twice")
	}
	wants("server-added 10.0.0.9:80 /me\nchanged /me")

	must(t, os.WriteFile(file, []byte(small), 0o600))
	_, err := d.Reload(ctx)
	must(t, err)
	wants("changed /reload\nserver-deleted 10.0.0.9:80 /reload\nreloaded /me")
	must(t, os.WriteFile(file, []byte("services: ["), 0o600))
	if _, err := d.Reload(ctx); err == nil {
		t.Error("it was accepted")
	}
	wants("reload-refused /me")
}

// A link that goes down is told, and what becomes a problem by that, and that it
// is over.
func TestEventsOfLinks(t *testing.T) {
	d, _ := startDirector(t, small+"interfaces: [dwan, dlan]\n")
	lan, err := netlink.LinkByName("dlan")
	must(t, err)
	place := func() *servedPort {
		for i := range d.world.ports {
			if d.world.ports[i].name == "dlan" {
				return &d.world.ports[i]
			}
		}
		return nil
	}
	up := func() bool { l, _ := d.world.topology.LinkByIndex(place().link); return l.Up }
	waitFor(t, d, up)
	var after uint64
	told(t, d, &after)
	must(t, netlink.LinkSetDown(lan))
	waitFor(t, d, func() bool { return !up() })
	must(t, netlink.LinkSetUp(lan))
	waitFor(t, d, up)
	if got := told(t, d, &after); !strings.HasPrefix(got, "link-down dlan/") || !strings.Contains(got, "link-up dlan/") {
		t.Errorf("told %q", got)
	}
	must(t, d.call(t.Context(), func() error {
		d.noteProblems([]string{"test: a", "test: a", "test: b"})
		d.noteProblems([]string{"test: b"})
		d.noteProblems(nil)
		return nil
	}))
	if got := told(t, d, &after); got != "problem test: a\nproblem test: b\nproblem-over test: a\nproblem-over test: b" {
		t.Errorf("told %q", got)
	}
}

// One who follows is let go of when the director ends, after the last event.
func TestEventsEnd(t *testing.T) {
	d := &director{stopped: make(chan struct{})}
	var last control.EventKind
	d.event(control.Event{Kind: control.EventStarted})
	must(t, d.Events(context.Background(), control.EventQuery{Follow: true}, func(e control.Event) error {
		last = e.Kind
		if e.Kind == control.EventStarted {
			d.event(control.Event{Kind: control.EventStopped})
			close(d.stopped)
		}
		return nil
	}))
	if last != control.EventStopped {
		t.Errorf("the last one was %q", last)
	}
}
