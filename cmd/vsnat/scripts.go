// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/confine"
	"github.com/vsnat/vsnat/sched/health"
)

const scriptsName = "scripts"

// newScriptsCommand is the process that runs the scripts of checks, as a user
// without rights. The director starts it; nobody else should.
func newScriptsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    scriptsName,
		Hidden: true,
		Short:  "Run the scripts of a director's checks",
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return health.ServeRunner(c.InOrStdin(), c.OutOrStdout(), func() error {
				return giveUp(0, confine.Programs())
			})
		},
	}
}

// giveUp is for processes beside a director: they give up all capabilities but some,
// and what calls they can. The director tells what cannot be given up here.
func giveUp(keep uint32, calls confine.Policy) error {
	if err := confine.Capabilities(keep); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	_ = confine.Calls(calls)
	return nil
}

// scriptsArgs is the command line that runs it: this very program.
func scriptsArgs() []string {
	self, err := os.Executable()
	if err != nil {
		return nil // scripts are then told to be impossible
	}
	return []string{self, scriptsName}
}
