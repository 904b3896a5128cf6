// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	for _, row := range []struct {
		name  string
		errno error
		host  map[string]string
		want  string
	}{
		{"Debian", unix.EPERM, map[string]string{"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone = 0"},
		{"Ubuntu", unix.EPERM, map[string]string{"kernel.unprivileged_userns_clone": "1", "kernel.apparmor_restrict_unprivileged_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns = 1"},
		{"Ubuntu, /proc", unix.EACCES, map[string]string{"kernel.apparmor_restrict_unprivileged_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns = 1"},
		{"RHEL 7", unix.ENOSPC, map[string]string{"user.max_user_namespaces": "0"}, "user.max_user_namespaces = 0"},
		{"old", unix.EUSERS, map[string]string{"user.max_net_namespaces": "0", "user.max_user_namespaces": "9"}, "user.max_net_namespaces = 0"},
		{"full", unix.ENOSPC, map[string]string{"user.max_user_namespaces": "99"}, "too many namespaces"},
		{"container", unix.EPERM, map[string]string{"user.max_user_namespaces": "99"}, "seccomp"},
		{"no support", unix.EINVAL, nil, "CONFIG_USER_NS"},
		{"unrelated setting", unix.ENOSPC, map[string]string{"kernel.unprivileged_userns_clone": "0"}, "too many"},
	} {
		read := func(sysctl string) (string, error) {
			if v, ok := row.host[sysctl]; ok {
				return v, nil
			}
			return "", os.ErrNotExist
		}
		err := explainWith(fmt.Errorf("fork: %w", row.errno), read)
		if !strings.Contains(err.Error(), row.want) || !errors.Is(err, row.errno) {
			t.Errorf("%s: got %q, want %q in it", row.name, err, row.want)
		}
	}
	if err := explain(os.ErrClosed); err != os.ErrClosed {
		t.Errorf("an unrelated error became %v", err)
	}
	if explain(nil) != nil {
		t.Error("no error became one")
	}
}

// What the kernel itself says, in a user namespace of the test's own whose limits
// the test may change.
func TestRefusedByTheKernel(t *testing.T) {
	for sysctl, file := range map[string]string{
		"user.max_user_namespaces": "/proc/sys/user/max_user_namespaces",
		"user.max_net_namespaces":  "/proc/sys/user/max_net_namespaces",
	} {
		t.Run(sysctl, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args[0] = os.Args[0]
			cmd.Env = append(os.Environ(), roleOfTest+"=refused", "LAB_TEST_SYSCTL="+file, "XDG_RUNTIME_DIR="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			if exitOf(err) != exitFailure || !strings.Contains(string(out), sysctl+" = 0") {
				t.Errorf("got %v, %q, want status %d and %s", err, out, exitFailure, sysctl)
			}
		})
	}
}
