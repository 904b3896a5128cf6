// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/confine"
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
	effective, err := confine.Effective()
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range capabilityNames {
		if effective>>c.bit&1 == 0 {
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

// dropPrivileges gives up every capability but the kept ones, and the system calls
// that a director at work has no use for. What is in packets never reaches more than
// that. The text says what could not be given up, and why; "" if all was.
func dropPrivileges() (unconfined string, err error) {
	if err := confine.Capabilities(kept); errors.Is(err, syscall.ENOTSUP) {
		return "rights are not given up: this binary was built with cgo, and not with CGO_ENABLED=0", nil
	} else if err != nil {
		return "", err
	}
	if err := confine.Calls(confine.Director()); err != nil {
		return "system calls are not given up: " + err.Error(), nil
	}
	return "", nil
}
