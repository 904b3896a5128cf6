// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hold brings a held lab up, in a directory of its own.
func hold(t *testing.T) *child {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vsnat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv(roleOfTest, "hold")
	c := &child{marker: "XDG_RUNTIME_DIR=" + dir, base: dir}
	var progress strings.Builder
	if err := Up(t.Context(), &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Cleanup(func() {
		if r, err := Open(); err == nil {
			r.Down()
		}
	})
	if progress.String() != "progress\n" {
		t.Errorf("progress: %q", progress.String())
	}
	t.Setenv(roleOfTest, "exec")
	return c
}

// inHeld prepares a client that runs NODE COMMAND… in the held lab.
func inHeld(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LAB_TEST_ARGS="+strings.Join(args, "\n"))
	return cmd
}

func TestHeldLab(t *testing.T) {
	c := hold(t)
	if err := Up(t.Context(), os.Stderr); !errors.Is(err, ErrHeld) {
		t.Errorf("a second lab: got %v, want %v", err, ErrHeld)
	}

	for _, row := range []struct {
		name   string
		args   []string
		stdin  string
		want   string
		status int
	}{
		{"stdin and status", []string{"client", "sh", "-c", "cat; exit 7"}, "hello", "hello", 7},
		{"program and node", []string{"rs2", "ipvsadm", "-L"}, "", "10.0.0.3/24", 3},
		{"socket", []string{"director", "ipvsadm", "-L"}, "", "/control.sock", 3},
		{"environment", []string{"rs1", "sh", "-c", "echo $LAB_TEST_ARGS"}, "", "rs1 sh -c", 0},
		{"directory", []string{"rs1", "pwd"}, "", "/test/lab", 0},
		{"stderr", []string{"rs1", "sh", "-c", "echo oops >&2"}, "", "oops", 0},
		{"signal", []string{"rs1", "sh", "-c", "kill -9 $$"}, "", "", 137},
		{"no node", []string{"rs9", "true"}, "", `no node "rs9"`, exitFailure},
		{"no program", []string{"rs1", "no-such-program"}, "", "not found", 127},
		{"no permission", []string{"rs1", "/dev/null"}, "", "permission denied", 126},
	} {
		cmd := inHeld(row.args...)
		cmd.Stdin = strings.NewReader(row.stdin)
		out, err := cmd.CombinedOutput()
		if exitOf(err) != row.status || !strings.Contains(string(out), row.want) {
			t.Errorf("%s: got status %d, %q, want %d, %q", row.name, exitOf(err), out, row.status, row.want)
		}
	}

	r, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Report()
	r.Close()
	if err != nil || report.Config.Servers != 2 || !strings.HasPrefix(report.Director, "running") {
		t.Errorf("report: %+v, %v", report, err)
	}

	down(t)
	nothing(t, c)
	if _, err := Open(); !errors.Is(err, ErrNoneHeld) {
		t.Errorf("open after the end: got %v, want %v", err, ErrNoneHeld)
	}
}

func down(t *testing.T) {
	t.Helper()
	r, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Down(); err != nil {
		t.Error(err)
	}
}

// A signal to the client reaches the command; so does the client's death.
func TestHeldCommandEndsWithItsClient(t *testing.T) {
	hold(t)
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		marker := "LAB_TEST_SIGNAL=" + s.String()
		cmd := inHeld("rs1", "sh", "-c", "echo running; exec sleep 600")
		cmd.Env = append(cmd.Env, marker)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(s)
		err = cmd.Wait()
		if s == unix.SIGTERM && exitOf(err) != 128+int(unix.SIGTERM) {
			t.Errorf("%v: got %v", s, err)
		}
		waitFor(t, "the command ends after "+s.String(), func() bool {
			return len(processesWith(t, marker)) == 0
		})
	}
	down(t)
}

// What a killed daemon leaves is removed by process 1 of the lab.
func TestHeldLabEndsWithItsDaemon(t *testing.T) {
	c := hold(t)
	daemon := slices.Min(c.processes(t))
	if err := unix.Kill(daemon, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nothing(t, c)
}

func TestUpTellsWhyNot(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "vsnat-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv(roleOfTest, "refused") // ends with status 2, as it has no file to write
	var progress strings.Builder
	err = Up(t.Context(), &progress)
	if err == nil || !strings.Contains(err.Error(), "status 2") || !strings.Contains(progress.String(), "no such file") {
		t.Errorf("got %v, progress %q", err, progress.String())
	}
}
