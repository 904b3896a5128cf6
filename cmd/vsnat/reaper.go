// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/confine"
	"github.com/vsnat/vsnat/iface"
)

const reaperName = "tun-reaper"

// newReaperCommand is the process that puts the host's routing back if a
// director with io: tun dies. The director starts it; nobody else should.
func newReaperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    reaperName,
		Hidden: true,
		Short:  "Put the host's routing back when a director with io: tun has died",
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := giveUp(1<<unix.CAP_NET_ADMIN, confine.Director()); err != nil {
				return err
			}
			return iface.ReapTUNHost(c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// reaperArgs is the command line that runs it: this very program.
func reaperArgs() []string {
	self, err := os.Executable()
	if err != nil {
		return nil // leftovers are then removed by the next start
	}
	return []string{self, reaperName}
}
