// SPDX-License-Identifier: Apache-2.0

package director

import (
	"log/slog"
	"os"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
)

// Options are what a command hands to Run.
type Options struct {
	// ConfigFile is read at the start and at each reload; "" with Config nil
	// starts an empty director that is filled over the control socket.
	ConfigFile string
	// Config, if not nil, is used instead of ConfigFile. A reload is then
	// refused.
	Config *config.Config
	// Socket overrides the control socket of the configuration, "" does not.
	Socket string
	// Reload asks for a reload each time something is received (SIGHUP).
	// Nil: only the control socket can ask.
	Reload <-chan struct{}
	// Reaper is the command line of a process that puts the host back after
	// a crash with io: tun; see iface.TUNHostOptions. State is the file it is
	// told in, "" one beside the control socket.
	Reaper []string
	State  string
	// Scripts is the command line of a process that runs the scripts of checks; see
	// health.StartRunner. Nil: there are no scripts.
	Scripts []string
	// Log receives the director's messages; nil: standard error, as the
	// configuration says.
	Log *slog.Logger
	// Version is what Health reports.
	Version string
	// guards are files of the director before; see keep.go.
	guards []*os.File
	// Ready is called once, from the goroutine of Run, as soon as packets
	// are served and the control socket answers. May be nil.
	Ready func()
}
