// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newProcCommand(r *remote) *cobra.Command {
	names := control.ProcNames()
	return &cobra.Command{
		Use:   "proc NAME",
		Short: "What IPVS would show in a file of /proc/net",
		Long: `Prints what the kernel's IPVS shows in a file of /proc/net, for scripts that read
it: ` + strings.Join(names, ", ") + `.`,
		Example:   "  vsnat proc ip_vs\n  vsnat proc ip_vs_conn | grep -c ESTABLISHED",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		RunE: func(c *cobra.Command, args []string) error {
			return r.client().Proc(c.Context(), args[0], c.OutOrStdout())
		},
	}
}
