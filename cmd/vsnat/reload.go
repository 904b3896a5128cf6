// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func newReloadCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the director read its configuration again",
		Long: `Has the director read its configuration file again and apply what differs, one
line each. If the file is wrong, nothing changes. What stays keeps its
connections; changes made with other commands are undone where the file says
otherwise.`,
		Example: "  vsnat config check /etc/vsnat.yaml && vsnat reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			done, err := r.client().Reload(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), done)
			}
			return writeReloaded(c, done)
		},
	}
	output.register(c)
	return c
}
