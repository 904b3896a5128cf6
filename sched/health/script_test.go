// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func startRunner(t *testing.T) *Runner {
	t.Helper()
	t.Setenv(runnerVariable, "1")
	r, err := StartRunner([]string{"/proc/self/exe"}, "nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestScript: the status says it, as with keepalived's MISC_CHECK; hanging, forking,
// chatting and dying programs are bounded (FAULTS 94).
func TestScript(t *testing.T) {
	r := startRunner(t)
	tools := Tools{Run: r.Run}
	dir := nobodysDir(t)
	sleeper := filepath.Join(dir, "pid")
	for _, tt := range []struct {
		name, script string
		timeout      time.Duration
		outcome      Outcome
		weight       int
		text         string
	}{
		{"good", "exit 0", patience, Good, NoWeight, "status 0"},
		{"bad", "echo no disk; exit 1", patience, Bad, NoWeight, "status 1 no disk"},
		{"weight 0", "exit 2", patience, Good, 0, "weight 0"},
		{"weight 253", "exit 255", patience, Good, 253, "weight 253"},
		{"told where", `test "$VSNAT_SERVER $VSNAT_ADDRESS $VSNAT_PORT" = "10.0.0.2:80 10.0.0.2 80"`, patience, Good, NoWeight, ""},
		{"ended by a signal", "kill -9 $$", patience, Bad, NoWeight, "signal 9"},
		{"megabytes", "head -c 3000000 /dev/zero | tr '\\0' x; exit 1", patience, Bad, NoWeight, "xxxx"},
		{"hangs", "sleep 1000", 60 * time.Millisecond, Bad, NoWeight, "killed"},
		{"hangs and forks", "sleep 1000 & echo $! > " + sleeper + "; sleep 1000", 300 * time.Millisecond, Bad, NoWeight, "killed"},
		{"leaves something behind", "sleep 1000 & exit 0", patience, Good, NoWeight, "status 0"},
	} {
		to := Target{Server: netip.MustParseAddrPort("10.0.0.2:80"), Spec: Spec{Type: Script, Command: []string{"/bin/sh", "-c", tt.script}}}
		begin := time.Now()
		got := checkOnce(t, to, tools, tt.timeout)
		for timeout := tt.timeout; strings.Contains(tt.script, sleeper) && got.Outcome == Bad; { // it has to have come so far
			if text, _ := os.ReadFile(sleeper); strings.HasSuffix(string(text), "\n") {
				break
			}
			if timeout *= 2; timeout > patience {
				t.Fatalf("%s: it does not begin", tt.name)
			}
			begin = time.Now()
			got = checkOnce(t, to, tools, timeout)
		}
		wantResult(t, tt.name, got, tt.outcome, tt.text)
		if got.Weight != tt.weight {
			t.Errorf("%s: weight %d, want %d", tt.name, got.Weight, tt.weight)
		}
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("%s: it took %v", tt.name, took)
		}
	}

	wantGone(t, sleeper)
	missing := Target{Spec: Spec{Type: Script, Command: []string{filepath.Join(dir, "nothing")}}}
	wantResult(t, "missing", checkOnce(t, missing, tools, patience), Impossible, "no such file")
}

// nobodysDir is a directory that nobody, the user, can write to.
func nobodysDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Rights are given up before anything is run, and by then it is another user.
func TestScriptHasNoRights(t *testing.T) {
	r := startRunner(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ran, err := r.Run(ctx, Program{Argv: []string{"/bin/sh", "-c", "umask; id -u"}})
	if err != nil {
		t.Fatal(err)
	}
	umask, user, _ := strings.Cut(strings.TrimSpace(ran.Output), "\n")
	if n, err := strconv.ParseUint(umask, 8, 32); err != nil || n != gaveUp {
		t.Errorf("umask %s, want %o", umask, gaveUp)
	}
	if os.Geteuid() == 0 && r.Note() == "" && user == "0" {
		t.Error("it runs as root")
	}
}

// TestRunnerEnds: when the other process is gone, scripts are impossible.
func TestRunnerEnds(t *testing.T) {
	r := startRunner(t)
	if err := unix.Kill(r.cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-r.gone
	to := Target{Spec: Spec{Type: Script, Command: []string{"/bin/true"}}}
	wantResult(t, "no runner", checkOnce(t, to, Tools{Run: r.Run}, patience), Impossible, "has ended")
	wantResult(t, "never one", checkOnce(t, to, hostTools, patience), Impossible, "not in this test")
}

func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "weight")
	to := Target{Spec: Spec{Type: File, Command: []string{name}}}
	wantResult(t, "missing", checkOnce(t, to, hostTools, patience), Impossible, "no such file")
	for _, tt := range []struct {
		content string
		outcome Outcome
		weight  int
	}{
		{"7\n", Good, 7}, {"0", Good, 0}, {"", Good, 100}, {"65535", Good, 65535}, {"65536", Impossible, NoWeight}, {"-1", Impossible, NoWeight},
		{"many", Impossible, NoWeight}, {strings.Repeat("1", 1<<20), Impossible, NoWeight},
	} {
		if err := os.WriteFile(name, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := checkOnce(t, to, hostTools, patience)
		if got.Outcome != tt.outcome || got.Weight != tt.weight {
			t.Errorf("%.20q: %+v", tt.content, got)
		}
	}
	if err := errors.Join(os.Remove(name), unix.Mkfifo(name, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantResult(t, "a FIFO", checkOnce(t, to, hostTools, patience), Impossible, "is no file")
}

// What an agent may say.
func TestAgent(t *testing.T) {
	for _, tt := range []struct {
		says    string
		outcome Outcome
		weight  int
		percent bool
	}{
		{"up\n", Good, 100, true}, {"75%\n", Good, 75, true}, {"up 75%\r\n", Good, 75, true}, {"7", Good, 7, false},
		{"drain\n", Good, 0, false}, {"ready, 100%\n", Good, 100, true}, {"maint", Good, 0, false},
		{"down no disk\n", Bad, NoWeight, false}, {"up,fail#no disk\n", Bad, NoWeight, false}, {"DOWN\n", Bad, NoWeight, false},
		{"UP 50% # 3 fail\n", Good, 50, true}, {"# up\n", Impossible, NoWeight, false}, {"50% fail\n", Bad, NoWeight, false},
		{"fine\n", Impossible, NoWeight, false}, {"-1\n", Impossible, NoWeight, false}, {"65536\n", Impossible, NoWeight, false},
		{"\n", Impossible, NoWeight, false}, {"", Bad, NoWeight, false}, {strings.Repeat("up", 10_000), Impossible, NoWeight, false},
	} {
		server := serve(t, func(c net.Conn) { fmt.Fprint(c, tt.says) })
		got := checkOnce(t, Target{Server: server, Spec: Spec{Type: Agent}}, hostTools, patience)
		if got.Outcome != tt.outcome || got.Weight != tt.weight || got.Percent != tt.percent {
			t.Errorf("%.20q: %+v", tt.says, got)
		}
	}
	wantResult(t, "nobody", checkOnce(t, Target{Server: nobody(t), Spec: Spec{Type: Agent}}, hostTools, patience), Bad, "refused")
}
