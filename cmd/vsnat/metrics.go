// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

func newMetricsCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "What there is to measure, in the format of Prometheus",
		Long: `Prints all metrics of the running director in the text format of Prometheus, with
a sentence about each. With metrics: ADDRESS in the configuration Prometheus can
fetch them itself, from /metrics at that address.`,
		Example: "  vsnat metrics\n  vsnat metrics | grep ^vsnat_drops_total",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return r.client().Metrics(c.Context(), c.OutOrStdout())
		},
	}
}
