// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Run as a process: it gives up capabilities for good, and may be killed.

// runFile and runSocket tell the test binary to be a director.
const (
	runFile   = "VSNAT_TEST_RUN"
	runSocket = "VSNAT_TEST_RUN_SOCKET"
)

// runAlone is the process: it says when it is ready, and runs until its standard
// input ends. Afterwards nothing of it may be left.
func runAlone(file string) int {
	before := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(context.Background())
	input := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
		close(input)
	}()
	err := Run(ctx, Options{
		ConfigFile: file, Socket: os.Getenv(runSocket), Log: slog.New(slog.DiscardHandler),
		Ready: func() { fmt.Println("ready") },
	})
	if err != nil {
		fmt.Println("error:", err)
		if hint := hintOf(err); hint != "" {
			fmt.Println("hint:", hint)
		}
		return 1
	}
	<-input
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			fmt.Printf("goroutines left:\n%s\n", stacks[:runtime.Stack(stacks, true)])
			return 2
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond) // of what has no way to be waited for
	}
	fds, err := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && (strings.HasPrefix(to, "socket:") || strings.Contains(to, "tun")) {
			fmt.Println("left open:", to)
		}
	}
	fmt.Println("over", err)
	return 0
}

type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	lines  *bufio.Scanner
	socket string
}

func startProcess(t *testing.T, folder, text string, files ...*os.File) *process {
	t.Helper()
	file := filepath.Join(folder, "vsnat.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	p := &process{t: t, socket: filepath.Join(folder, "control.sock")}
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), runFile+"="+file, runSocket+"="+p.socket)
	p.cmd.ExtraFiles = files
	stdin, err := p.cmd.StdinPipe()
	must(t, err)
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	must(t, err)
	p.lines = bufio.NewScanner(stdout)
	p.cmd.Stderr = os.Stderr
	must(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		_ = p.cmd.Wait()
	})
	return p
}

// line returns the next line that the process wrote, "" at the end.
func (p *process) line() string {
	p.lines.Scan()
	return p.lines.Text()
}

func (p *process) wants(line string) {
	p.t.Helper()
	if got := p.line(); got != line {
		p.t.Fatalf("it says %q, want %q", got, line)
	}
}

func (p *process) stop() {
	p.t.Helper()
	must(p.t, p.stdin.Close())
	p.wants("over <nil>")
	must(p.t, p.cmd.Wait())
}

func tables(t *testing.T) (names []string) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	list, err := c.ListTables()
	must(t, err)
	for _, table := range list {
		names = append(names, table.Name)
	}
	return names
}

// FAULTS 99, 101: what a start takes, a stop gives back.
func TestRunLeavesNothing(t *testing.T) {
	cables(t)
	before := tables(t)
	p := startProcess(t, t.TempDir(), strings.Replace(small, "guard: none", "guard: nft", 1))
	p.wants("ready")
	if len(tables(t)) != len(before)+1 {
		t.Errorf("tables %q, before %q", tables(t), before)
	}
	h, err := control.NewClient(p.socket).Health(t.Context())
	must(t, err)
	if h.PID != p.cmd.Process.Pid || h.Guard != "nft" || h.Status != "ok" {
		t.Errorf("health %+v", h)
	}
	p.stop()
	if after := tables(t); !slices.Equal(after, before) {
		t.Errorf("tables %q, before %q", after, before)
	}
	if _, err := os.Stat(p.socket); !os.IsNotExist(err) {
		t.Errorf("the control socket is there: %v", err)
	}
}

// FAULTS 98, 101: nothing is in the way of the next one after a kill.
func TestRunAfterKill(t *testing.T) {
	cables(t)
	folder := t.TempDir()
	text := strings.Replace(small, "guard: none", "guard: nft", 1)
	p := startProcess(t, folder, text)
	p.wants("ready")
	must(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // killed
	if left := tables(t); len(left) != 0 {
		t.Errorf("tables %q", left)
	}
	p = startProcess(t, folder, text)
	p.wants("ready")
	p.stop()
}

// FAULTS 124: a second daemon is refused, and told who has the socket.
func TestRunTwice(t *testing.T) {
	cables(t)
	folder := t.TempDir()
	first := startProcess(t, folder, small)
	first.wants("ready")
	second := startProcess(t, folder, small)
	if got, want := second.line(), fmt.Sprintf("error: a director (process %d) is running already at %s", first.cmd.Process.Pid, first.socket); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if _, err := control.NewClient(first.socket).Health(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
	first.stop()
}

// A start that cannot be whole says why, and leaves nothing.
func TestRunRefused(t *testing.T) {
	cables(t)
	must(t, netlinkAddr("dlan", "10.0.0.1/24"))
	for name, row := range map[string]struct{ text, says string }{
		"no such link":   {"interfaces: [none0]\n" + small, `error: interface "none0" does not exist`},
		"server is host": {strings.Replace(small, "10.0.0.3", "10.0.0.1", 1), "error: server 10.0.0.1 is an address of this host, on dlan"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, t.TempDir(), row.text)
			if got := p.line(); got != row.says {
				t.Fatalf("it says %q, want %q", got, row.says)
			}
			hint := p.line()
			if !strings.HasPrefix(hint, "hint: ") || name == "no such link" && hint != "hint: there are dwan, dlan" && hint != "hint: there are dlan, dwan" {
				t.Errorf("it adds %q", hint)
			}
			if err := p.cmd.Wait(); err == nil {
				t.Error("status 0")
			}
			if _, err := os.Stat(p.socket); !os.IsNotExist(err) {
				t.Errorf("the control socket is there: %v", err)
			}
			if left := tables(t); len(left) != 0 {
				t.Errorf("tables %q", left)
			}
		})
	}
}

// FAULTS 128: no capability but two, and not all system calls, in every thread.
func TestRunPrivileges(t *testing.T) {
	cables(t)
	p := startProcess(t, t.TempDir(), small)
	p.wants("ready")
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == syscall.ENOTSUP {
		// Built with cgo it keeps them, knows that, and serves all the same.
		if note, err := dropPrivileges(); err != nil || !strings.Contains(note, "cgo") {
			t.Errorf("built with cgo, giving up capabilities: %q, %v", note, err)
		}
		p.stop()
		return
	}
	const want = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid))
	must(t, err)
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", p.cmd.Process.Pid, thread.Name()))
		must(t, err)
		for _, set := range []string{"CapEff", "CapPrm"} {
			if line := fmt.Sprintf("%s:\t%016x\n", set, want); !strings.Contains(string(text), line) {
				t.Errorf("thread %s has not %q", thread.Name(), line)
			}
		}
		for _, line := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(text), line) {
				t.Errorf("thread %s has not %q", thread.Name(), line)
			}
		}
	}
	p.stop()
}
