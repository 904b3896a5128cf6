// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// panicking tells the test binary to be the process that dies.
const panicking = "VSNAT_TEST_PANIC"

// FAULTS 100: a panic in a packet loop ends the process, with a trace.
func TestPanicInAPacketLoop(t *testing.T) {
	if os.Getenv(panicking) != "" {
		r := newRig(t)
		go r.shard.run()
		r.shard.Do(func() { panic("on purpose") })
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestPanicInAPacketLoop$")
	cmd.Env = append(os.Environ(), panicking+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("it ended with %v", err)
	}
	for _, want := range []string{"panic: on purpose", "shard.(*Shard).run"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
