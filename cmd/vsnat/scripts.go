// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

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
			return health.ServeRunner(c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// scriptsArgs is the command line that runs it: this very program.
func scriptsArgs() []string {
	self, err := os.Executable()
	if err != nil {
		return nil // scripts are then told to be impossible
	}
	return []string{self, scriptsName}
}
