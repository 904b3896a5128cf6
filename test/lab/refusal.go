// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A refusal is a setting of the host that forbids namespaces.
type refusal struct {
	sysctl  string
	forbids string // the value
	errno   []unix.Errno
	remedy  string
}

// refusals are in the order in which the kernel would meet them.
var refusals = []refusal{
	{"kernel.unprivileged_userns_clone", "0", []unix.Errno{unix.EPERM, unix.EACCES}, "1"},
	{"kernel.apparmor_restrict_unprivileged_userns", "1", []unix.Errno{unix.EPERM, unix.EACCES}, "0"},
	{"user.max_user_namespaces", "0", []unix.Errno{unix.ENOSPC, unix.EUSERS, unix.EPERM}, "15000"},
	{"user.max_net_namespaces", "0", []unix.Errno{unix.ENOSPC, unix.EUSERS}, "15000"},
	{"user.max_pid_namespaces", "0", []unix.Errno{unix.ENOSPC, unix.EUSERS}, "15000"},
	{"user.max_mnt_namespaces", "0", []unix.Errno{unix.ENOSPC, unix.EUSERS}, "15000"},
}

// explain adds to an error of making or using namespaces what in the host's
// settings causes it, and what to do. Other errors it returns as they are.
func explain(err error) error {
	return explainWith(err, func(sysctl string) (string, error) {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(sysctl, ".", "/"))
		return strings.TrimSpace(string(b)), err
	})
}

// explainWith is explain with the way to read a sysctl by its dotted name.
func explainWith(err error, read func(sysctl string) (string, error)) error {
	var errno unix.Errno
	if err == nil || !errors.As(err, &errno) {
		return err
	}
	for _, r := range refusals {
		value, readErr := read(r.sysctl)
		if readErr != nil || value != r.forbids || !r.causes(errno) {
			continue
		}
		return fmt.Errorf("%w: this host forbids it by %s = %s\nhint: sysctl -w %s=%s (as root), or run the lab as root",
			err, r.sysctl, value, r.sysctl, r.remedy)
	}

	switch errno {
	case unix.ENOSPC, unix.EUSERS:
		return fmt.Errorf("%w: too many namespaces of this user\nhint: compare lsns with sysctl user.max_user_namespaces and user.max_net_namespaces", err)
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("%w: no sysctl forbids user namespaces, so a security module or a container's seccomp filter does\nhint: run the lab as root, or the container with --security-opt seccomp=unconfined", err)
	case unix.EINVAL:
		return fmt.Errorf("%w: this kernel lacks user, network or PID namespaces (CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_PID_NS)", err)
	}
	return err
}

func (r refusal) causes(errno unix.Errno) bool {
	for _, e := range r.errno {
		if e == errno {
			return true
		}
	}
	return false
}
