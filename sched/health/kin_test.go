// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// written waits for a process number in a file; 0: it does not come.
func written(t *testing.T, file string) (pid int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil && strings.HasSuffix(string(text), "\n") {
			fmt.Sscan(string(text), &pid)
			return pid
		}
	}
	t.Errorf("no process writes to %s", file)
	return 0
}

func alive(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(text), ") ")
	return state != "" && !strings.HasPrefix(state, "Z")
}

// wantGone waits for the end of the process whose number is in a file.
func wantGone(t *testing.T, file string) {
	t.Helper()
	pid := written(t, file)
	for end := time.Now().Add(patience); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d of %s is alive", pid, filepath.Base(file))
		}
	}
}

// A daemon of a script, in a session of its own: it writes its number to a file.
const daemon = `daemon() { setsid sh -c 'echo $$ > '$1'; exec sleep 1000' & }
	wait_for() { until [ -s $1 ]; do sleep 0.01; done; }
	`

// FAULTS 94: what leaves its group or its parent ends with its script all the same, and
// not before; what still runs ends with the director.
func TestNothingOutlivesAScript(t *testing.T) {
	r, dir := startRunner(t), nobodysDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	program := func(script string) Program {
		return Program{Argv: []string{"/bin/sh", "-c", "cd " + dir + "\n" + daemon + script}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ends := func(script string) {
		t.Helper()
		if ran, err := r.Run(ctx, program(script)); err != nil || ran.Status != 0 || ran.Killed {
			t.Errorf("%s: %+v, %v", script, ran, err)
		}
	}
	// hangs runs one whose time is over when there is a file.
	hangs := func(script, file string) {
		t.Helper()
		once, stop := context.WithTimeout(ctx, patience)
		defer stop()
		go func() { defer stop(); written(t, at(file)) }()
		if ran, err := r.Run(once, program(script)); err != nil || !ran.Killed {
			t.Errorf("%s: %+v, %v", script, ran, err)
		}
		wantGone(t, at(file))
	}

	ends("daemon left; wait_for left")
	wantGone(t, at("left"))
	ends("(daemon orphan); wait_for orphan")
	wantGone(t, at("orphan"))
	hangs("(daemon lost); sleep 1000", "lost")

	// Beside an older one, whose daemon is not touched.
	done := make(chan bool)
	go func() { defer close(done); ends("(daemon mine); wait_for over; kill $(cat mine)") }()
	mine := written(t, at("mine"))
	hangs("daemon child; sleep 1000", "child")
	ends("exit 0")
	if !alive(mine) {
		t.Error("the daemon of another script was killed")
	}
	if err := os.WriteFile(at("over"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	<-done

	go r.Run(ctx, program("(daemon last); sleep 1000"))
	written(t, at("last"))
	r.Close()
	wantGone(t, at("last"))
}

// Where the kernel does not list children they are found by their parents.
func TestChildren(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for name, list := range map[string][]int{"listed": children("self"), "by parents": childrenByParent("self")} {
		if !slices.Contains(list, pid) {
			t.Errorf("%s: %v, without %d", name, list, pid)
		}
	}
	if begun(pid) < begun(os.Getpid()) || begun(os.Getpid()) == 0 {
		t.Errorf("it began at %d, its parent at %d", begun(pid), begun(os.Getpid()))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	if at := begun(pid); at != 0 {
		t.Errorf("it is gone, and began at %d", at)
	}
}
