// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Effective returns the capabilities of the process, by bit, those of the lower half:
// all that is of interest here.
func Effective() (uint32, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading capabilities: %w", err)
	}
	return data[0].Effective, nil
}

// Capabilities gives up every capability but those of keep that the process has, and
// the right to gain others by running a program. It is ENOTSUP, and nothing is done,
// in a binary that was built with cgo.
func Capabilities(keep uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	low := data[0].Permitted & keep
	data = [2]unix.CapUserData{{Effective: low, Permitted: low}}
	// Linux keeps these per thread, and Go's threads come and go.
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return fmt.Errorf("giving up capabilities: %w", e)
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("giving up new privileges: %w", e)
	}
	return nil
}
