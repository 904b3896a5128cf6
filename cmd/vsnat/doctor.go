// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/doctor"
)

type doctorOptions struct {
	remote *remote
	file   string
	output outputFlag
}

func newDoctorCommand(r *remote) *cobra.Command {
	o := doctorOptions{remote: r}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what keeps the cluster from working, and how to mend it",
		Long: `Examines this host and asks the real servers: privileges, links and their MTU,
addresses that somebody else has as well, routes, forwarding by the host, the guard,
limits, and of each server whether it is there, serves, takes large packets and has
the director as its gateway. Nothing is changed. It takes up to three seconds.

The configuration is that of FILE, else that of the running director; without
either the host alone is examined. The status is 0 if nothing is wrong, and 1 if
something is.`,
		Example: "  vsnat doctor -c vsnat.yaml    before the first start\n  vsnat doctor                  beside the running director",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.examine(c) },
	}
	c.Flags().StringVarP(&o.file, "config", "c", "", "configuration file")
	o.output.register(c)
	return c
}

func (o *doctorOptions) examine(c *cobra.Command) error {
	var options doctor.Options
	client := o.remote.client()
	if health, err := client.Health(c.Context()); err == nil {
		options.Running = &health
	} else if refused := (*control.Error)(nil); !errors.As(err, &refused) || refused.Code != control.CodeUnavailable {
		return err
	}
	var err error
	switch {
	case o.file != "":
		options.Config, err = readConfig(c, o.file)
	case options.Running != nil:
		var text string
		if text, err = client.Config(c.Context()); err == nil {
			options.Config, err = config.Parse("the running configuration", []byte(text))
		}
	}
	if err != nil {
		return err
	}
	report, err := doctor.Examine(c.Context(), options)
	if err != nil {
		return err
	}
	if o.output.json {
		err = writeJSON(c.OutOrStdout(), report)
	} else {
		err = writeReport(c.OutOrStdout(), report)
	}
	if err == nil && report.Bad() {
		return withStatus(exitFailed, nil)
	}
	return err
}

// writeReport writes each finding with its fix below it.
func writeReport(w io.Writer, r *doctor.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: %s: %s\n", f.Level, f.Check, printable(f.Text))
		if f.Fix != "" {
			where := ""
			if f.Where != "" {
				where = " on " + f.Where
			}
			fmt.Fprintf(&b, "    fix%s: %s\n", where, printable(f.Fix))
		}
	}
	found := "nothing is wrong"
	if n := len(r.Findings); n > 0 {
		found = plural(n, "finding")
	}
	fmt.Fprintf(&b, "%s: %s\n", plural(len(r.Checks), "check"), found)
	_, err := io.WriteString(w, b.String())
	return err
}
