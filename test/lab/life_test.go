// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ordinary is a user that is not root, for tests that run as root.
const ordinary = 65534

// users returns who can start labs here: this process's user, and if that is the
// real root, an ordinary one.
func users(t *testing.T) []int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	var within, without, size int
	if _, err := fmt.Sscan(string(text), &within, &without, &size); err != nil {
		t.Fatal(err)
	}
	if size > ordinary {
		return []int{os.Getuid(), ordinary}
	}
	return []int{os.Getuid()}
}

// A child is a lab that a test started as processes of its own.
type child struct {
	*exec.Cmd
	marker string // in the environment of all its processes
	base   string // where its run directory is
	out    *bufio.Reader
	errors strings.Builder
}

// start starts this binary in a role, as a user.
func start(t *testing.T, role string, uid int, env ...string) *child {
	t.Helper()
	// Not t.TempDir, which other users can't enter.
	dir, err := os.MkdirTemp("/tmp", "vsnat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}

	c := &child{
		Cmd:    exec.Command("/proc/self/exe"),
		marker: "XDG_RUNTIME_DIR=" + dir,
		base:   dir,
	}
	c.Args[0] = os.Args[0]
	c.Dir = "/"
	c.Env = append(os.Environ(), roleOfTest+"="+role, c.marker)
	c.Env = append(c.Env, env...)
	c.Stderr = &c.errors
	if uid != os.Getuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: ordinary}}
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	return c
}

// ready waits for the word.
func (c *child) ready(t *testing.T) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if line != "ready\n" {
		c.Wait()
		t.Fatalf("not ready: %q, %v\n%s", line, err, c.errors.String())
	}
}

// processes returns all processes of the lab.
func (c *child) processes(t *testing.T) []int { return processesWith(t, c.marker) }

func TestNothingStays(t *testing.T) {
	outer := func(c *child) int { return c.Process.Pid }
	// Process 1 of the lab is the child of the outer process.
	init := func(c *child) int { return childOf(c.Process.Pid) }
	worker := func(c *child) int { return childOf(childOf(c.Process.Pid)) }

	for _, row := range []struct {
		name   string
		whom   func(*child) int
		signal unix.Signal
		env    string
		status int
	}{
		{"SIGINT", outer, unix.SIGINT, "", 0},
		{"SIGTERM", outer, unix.SIGTERM, "", 0},
		{"panic", outer, unix.SIGTERM, "LAB_TEST_PANIC=1", 2},
		{"SIGKILL of the outer process", outer, unix.SIGKILL, "", -1},
		{"SIGKILL of the outer process while the worker hangs", outer, unix.SIGKILL, "LAB_TEST_HANG=1", -1},
		{"SIGKILL of process 1", init, unix.SIGKILL, "", 137},
		{"SIGKILL of the worker", worker, unix.SIGKILL, "", 137},
	} {
		for _, uid := range users(t) {
			t.Run(row.name+" as user "+strconv.Itoa(uid), func(t *testing.T) {
				c := start(t, "demo", uid, row.env)
				c.ready(t)
				waitFor(t, "outer, init, worker, director and orphan run", func() bool {
					return len(c.processes(t)) == 5
				})
				if row.env == "LAB_TEST_HANG=1" {
					unix.Kill(c.Process.Pid, unix.SIGTERM)
				}
				if err := unix.Kill(row.whom(c), row.signal); err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, c.out)
				c.Wait()
				if status := c.ProcessState.ExitCode(); status != row.status {
					t.Errorf("status %d, want %d\n%s", status, row.status, c.errors.String())
				}
				nothing(t, c)
			})
		}
	}
}

// nothing checks that all of a lab has gone: processes, and with them the
// namespaces, which have no other holders, and files.
func nothing(t *testing.T, c *child) {
	t.Helper()
	waitFor(t, "no process is left", func() bool { return len(c.processes(t)) == 0 })
	waitFor(t, "no file is left", func() bool {
		left, err := filepath.Glob(c.base + "/*")
		return err == nil && len(left) == 0
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), c.base) {
		t.Errorf("a mount is left, or %v", err)
	}
}

// childOf returns the first child of a process, 0 if there is none.
func childOf(pid int) int {
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, e := range entries {
		text, err := os.ReadFile(e)
		if err != nil {
			continue
		}
		// "pid (name) state parent …", and the name may hold anything.
		_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
			children = append(children, child)
		}
	}
	if len(children) == 0 {
		return 0
	}
	return slices.Min(children)
}

// A worker that does not end is ended by a second interrupt.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	c := start(t, "demo", os.Getuid(), "LAB_TEST_HANG=1")
	c.ready(t)
	// The first reaches the worker, which then hangs; whether the second comes
	// before that makes no difference.
	c.Process.Signal(unix.SIGTERM)
	waitFor(t, "the second interrupt ends the lab", func() bool {
		c.Process.Signal(unix.SIGINT)
		return len(c.processes(t)) == 0
	})
	c.Wait()
	nothing(t, c)
}

// In a container that hides parts of /proc the kernel refuses a new one, and
// process numbers are not what they seem.
func TestHiddenProc(t *testing.T) {
	c := start(t, "hidden", os.Getuid())
	c.ready(t)
	c.Process.Signal(unix.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, c.errors.String())
	}
	nothing(t, c)
}

// A lab can start in a lab only if the worker has forgotten its role.
func TestWorkerHasNoRole(t *testing.T) {
	if role, set := os.LookupEnv(roleVariable); set {
		t.Errorf("%s=%s", roleVariable, role)
	}
	if os.Getpid() == 1 {
		t.Error("the tests run as process 1, which must reap")
	}
}
