// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runnerVariable has the test binary be the other process of a Runner.
const runnerVariable = "VSNAT_TEST_RUNNER"

// gaveUp is the umask of that process after it gave up its rights, which it keeps here.
const gaveUp = 0o027

func TestMain(m *testing.M) {
	if os.Getenv(runnerVariable) != "" {
		os.Unsetenv(runnerVariable)
		if err := ServeRunner(os.Stdin, os.Stdout, func() error { unix.Umask(gaveUp); return nil }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// hostTools reach servers of the test through the loopback.
var hostTools = Tools{Dialer: func(netip.Addr) (Dialer, error) { return Host{}, nil }, NoRun: "not in this test"}

const patience = 20 * time.Second // of the tests, for what comes at once on a quiet machine

// checkOnce makes a check within a time.
func checkOnce(t *testing.T, target Target, tools Tools, timeout time.Duration) Result {
	t.Helper()
	c, err := newChecker(target, tools)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return c.Check(ctx)
}

// wantResult compares the outcome, and the beginning of a text.
func wantResult(t *testing.T, name string, got Result, outcome Outcome, text string) {
	t.Helper()
	if got.Outcome != outcome || !strings.Contains(got.Text, text) {
		t.Errorf("%s: %v %q, want %v with %q", name, got.Outcome, got.Text, outcome, text)
	}
}

// serve answers each TCP connection with a function, which closes nothing.
func serve(t *testing.T, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); answer(c) }()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// nobody is a port that refuses.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// leaksNothing compares the number of goroutines after f with that before.
func leaksNothing(t *testing.T, f func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	f()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
