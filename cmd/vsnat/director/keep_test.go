// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// firstServer is one of small.
var firstServer = netip.MustParseAddrPort("10.0.0.2:80")

// FAULTS 98, 99: what is ordered stands over a stop and a start, and for that one time: who
// is killed leaves nothing, not even what was there before.
func TestRunTakesUp(t *testing.T) {
	cables(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "control.state")
	p := startProcess(t, folder, small)
	p.wants("ready")
	client := control.NewClient(p.socket)
	if _, err := client.Drain(t.Context(), control.DrainSpec{Server: firstServer, Maintenance: true}); err != nil {
		t.Fatal(err)
	}
	before, err := client.Drains(t.Context())
	must(t, err)
	p.stop()
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Fatalf("the state file: %v, %v", info, err)
	}

	p = startProcess(t, folder, small)
	p.wants("ready")
	after, err := control.NewClient(p.socket).Drains(t.Context())
	if must(t, err); len(after) != 1 || len(before) != 1 || !after[0].Maintenance || !after[0].Since.Equal(before[0].Since) || after[0].By != before[0].By {
		t.Errorf("ordered was %+v, and is %+v", before, after)
	}
	if weight := weightOf(t, p); weight != 0 {
		t.Errorf("a server in maintenance has weight %d", weight)
	}
	if text := happened(t, p, control.EventResumed); !strings.Contains(text, "0 connections") {
		t.Errorf("it says %q", text)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the state file is there still")
	}
	must(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // killed

	p = startProcess(t, folder, small)
	p.wants("ready")
	if after, err := control.NewClient(p.socket).Drains(t.Context()); err != nil || len(after) != 0 {
		t.Errorf("after a crash: %+v, %v", after, err)
	}
	p.stop()
}

// FAULTS 122: whatever is in the place of the state file, the director starts and says so.
func TestRunStateFiles(t *testing.T) {
	cables(t)
	for name, c := range map[string]struct {
		state   string // what state-file says
		content string
		says    string // an event
		problem string
		aside   bool
	}{
		"a cut file":  {content: "vsnat state 1\n{\"boot\":", says: "it was cut", aside: true},
		"another one": {content: "vsnat state 2\n{}\n", says: "version", aside: true},
		"no folder":   {state: "/proc/none/state", problem: "a restart will end all connections"},
		"none":        {state: "none", content: "vsnat state 2\n{}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file := filepath.Join(folder, "control.state")
			text := small
			if c.state != "" {
				text += "state-file: " + c.state + "\n"
			}
			if c.content != "" {
				must(t, os.WriteFile(file, []byte(c.content), 0o600))
			}
			p := startProcess(t, folder, text)
			p.wants("ready")
			if said := happened(t, p, control.EventNotResumed); c.says == "" && said != "" || !strings.Contains(said, c.says) {
				t.Errorf("it says %q, want %q", said, c.says)
			}
			h, err := control.NewClient(p.socket).Health(t.Context())
			must(t, err)
			if problems := strings.Join(h.Problems, "; "); c.problem == "" && strings.Contains(problems, "restart") || !strings.Contains(problems, c.problem) {
				t.Errorf("problems are %q, want %q", problems, c.problem)
			}
			if b, err := os.ReadFile(file + ".bad"); c.aside != (err == nil) || c.aside && string(b) != c.content {
				t.Errorf("put aside: %q, %v", b, err)
			}
			p.stop()
			if b, err := os.ReadFile(file); c.state == "none" && string(b) != c.content {
				t.Errorf("a file that is not to be was written: %q, %v", b, err)
			}
		})
	}
}

// FAULTS 99: a service manager keeps the guard in force from one director to the next, and
// no longer.
func TestGuardOutlivesARestart(t *testing.T) {
	cables(t)
	folder := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"})
	must(t, err)
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(folder, "notify"))
	hears := func(want string) (files []*os.File) {
		t.Helper()
		text, rights := make([]byte, 4096), make([]byte, 4096)
		must(t, manager.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, more, _, _, err := manager.ReadMsgUnix(text, rights)
		if must(t, err); string(text[:n]) != want {
			t.Fatalf("it says %q, want %q", text[:n], want)
		}
		messages, err := unix.ParseSocketControlMessage(rights[:more])
		must(t, err)
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			must(t, err)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "kept"))
			}
		}
		return files
	}

	text := strings.Replace(small, "guard: none", "guard: nft", 1)
	p := startProcess(t, folder, text)
	hears("READY=1")
	before := tables(t)
	must(t, p.stdin.Close())
	kept := hears("FDSTORE=1\nFDNAME=guard")
	hears("STOPPING=1")
	must(t, p.cmd.Wait())
	if between := tables(t); len(kept) != 1 || len(before) != 1 || !slices.Equal(before, between) {
		t.Fatalf("%d files are kept; there was %q, and after its end %q", len(kept), before, between)
	}

	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_FDNAMES", "guard")
	p = startProcess(t, folder, text, kept...)
	must(t, kept[0].Close()) // systemd would have its own till it is told
	hears("FDSTOREREMOVE=1\nFDNAME=guard")
	hears("READY=1")
	if after := tables(t); len(after) != 1 || after[0] == before[0] {
		t.Errorf("after %q there is %q", before, after)
	}
	must(t, p.stdin.Close())
	for _, f := range hears("FDSTORE=1\nFDNAME=guard") {
		must(t, f.Close()) // as when the service stops
	}
	hears("STOPPING=1")
	must(t, p.cmd.Wait())
	if left := tables(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// happened returns the text of the last event of a kind, "" if there is none.
func happened(t *testing.T, p *process, kind control.EventKind) (text string) {
	t.Helper()
	must(t, control.NewClient(p.socket).Events(context.WithoutCancel(t.Context()), control.EventQuery{}, func(e control.Event) error {
		if e.Kind == kind {
			text = e.Text
		}
		return nil
	}))
	return text
}

// weightOf is what the first server has in force.
func weightOf(t *testing.T, p *process) int {
	t.Helper()
	services, err := control.NewClient(p.socket).Services(t.Context())
	must(t, err)
	for _, v := range services[0].Servers {
		if v.Address == firstServer {
			if v.InForce == nil {
				return v.Weight
			}
			return *v.InForce
		}
	}
	t.Fatalf("no server %s", firstServer)
	return 0
}
