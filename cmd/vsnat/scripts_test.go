// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/sched/health"
)

// FAULTS 94, 128: scripts have neither a capability nor a way to one, nor all system
// calls.
func TestScriptsAreConfined(t *testing.T) {
	program, err := exec.LookPath("vsnat")
	if err != nil {
		t.Fatal(err)
	}
	r, err := health.StartRunner([]string{program, scriptsName}, "nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ran, err := r.Run(ctx, health.Program{Argv: []string{"/bin/cat", "/proc/self/status"}})
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == syscall.ENOTSUP {
		wants = nil // built with cgo
	}
	for _, want := range wants {
		if !strings.Contains(ran.Output, want) {
			t.Errorf("no %q in\n%s", want, ran.Output)
		}
	}
}
