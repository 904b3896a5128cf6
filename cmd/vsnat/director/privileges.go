// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities of a director at work: sockets on links, and the
// guard, the buffers and the routing of the host.
const kept = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN

// capabilityNames are those of kept, as setcap and systemd spell them.
var capabilityNames = []struct {
	bit  uint
	name string
}{{unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}}

// checkPrivileges refuses to start without the capabilities of kept, and says
// what grants them.
func checkPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	var missing []string
	for _, c := range capabilityNames {
		if data[0].Effective>>c.bit&1 == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return hinted{
		fmt.Errorf("not permitted: without %s", strings.Join(missing, " and ")),
		"run as root, or grant it with `setcap cap_net_raw,cap_net_admin+ep vsnat`, or in a systemd unit with " +
			"`AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN`; `vsnat lab` shows a whole cluster without any of them",
	}
}

// dropPrivileges gives up every capability but the kept ones, in all threads
// and for good, and the right to gain others by running a program. What is in
// packets never reaches more than this.
func dropPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	// Both lie in the lower half; the upper one is emptied.
	low := data[0].Permitted & kept
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
