// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"strconv"
)

// SocketVariable is the environment variable that names the control socket.
const SocketVariable = "VSNAT_SOCKET"

// MaxSocketPath is the longest path of a unix socket: sun_path holds 108
// bytes, of which the last is NUL (unix(7)).
const MaxSocketPath = 107

// DefaultSocket is the path of the control socket when neither an option nor
// the configuration names one: $VSNAT_SOCKET; as root, /run/vsnat; else the
// user's runtime folder, and where there is none, a folder of the user's own
// in /tmp.
func DefaultSocket() string {
	if path := os.Getenv(SocketVariable); path != "" {
		return path
	}
	if os.Geteuid() == 0 {
		return "/run/vsnat/control.sock"
	}
	if folder := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(folder) {
		return filepath.Join(folder, "vsnat", "control.sock")
	}
	return filepath.Join("/tmp", "vsnat-"+strconv.Itoa(os.Geteuid()), "control.sock")
}
