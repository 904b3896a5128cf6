// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/metrics"
)

func newMetricsCommand(r *remote) *cobra.Command {
	c := &cobra.Command{
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
	c.AddCommand(
		newPrintCommand("dashboard", "Print a dashboard for Grafana",
			"Prints a dashboard that Grafana imports, over the metrics of all directors.", "vsnat metrics dashboard > vsnat.json", metrics.Dashboard()),
		newPrintCommand("alerts", "Print alert rules for Prometheus",
			"Prints alert rules, for a file that rule_files of Prometheus names.", "vsnat metrics alerts > /etc/prometheus/vsnat-alerts.yaml", metrics.Alerts()),
	)
	return c
}

// newPrintCommand is a command that prints a text.
func newPrintCommand(use, short, long, example, text string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: "  " + example, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
}
