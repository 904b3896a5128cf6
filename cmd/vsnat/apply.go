// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

type applyOptions struct {
	remote  *remote
	confirm time.Duration
	dryRun  bool
	output  outputFlag
}

func newApplyCommand(r *remote) *cobra.Command {
	o := applyOptions{remote: r}
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Make a configuration the running one, for good or on trial",
		Long: `Reads a configuration here, with the files that it includes and the environment,
and has the director apply what differs, one line each. If something is wrong with
it, nothing changes. What stays keeps its connections. "-" reads standard input.

With --confirm the configuration is on trial: unless vsnat confirm comes in time,
the director takes it back by itself, and everything is as it was before, also what
had been changed at run time. So a change that cuts you off undoes itself. While a
configuration is on trial, no other one can be applied, and a reload is refused. The
connections of a server that the trial deletes fare as if it were for good.

The director's file stays as it is: a restart or vsnat reload goes back to it, if it
is another. vsnat status tells of the difference.`,
		Example: `  vsnat apply vsnat.yaml --dry-run
  vsnat apply vsnat.yaml --confirm 60s && vsnat confirm`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.apply(c, args[0]) },
	}
	c.Flags().DurationVar(&o.confirm, "confirm", 0, "take it back unless vsnat confirm comes within this time")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would change and whether the director would accept it; change nothing")
	o.output.register(c)
	return c
}

func (o *applyOptions) apply(c *cobra.Command, path string) error {
	cfg, err := readConfig(c, path)
	if err != nil {
		return err
	}
	spec := control.ApplySpec{Config: string(config.Marshal(cfg)), Confirm: control.Duration(o.confirm), Try: o.dryRun}
	if c.Flags().Changed("confirm") && o.confirm < time.Second {
		return usageError{fmt.Errorf("%s is no time to confirm in", o.confirm), "for example --confirm 60s"}
	}
	if path != "-" {
		if spec.File, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	done, err := o.remote.client().Apply(c.Context(), spec)
	if err != nil {
		return err
	}
	if o.output.json {
		return writeJSON(c.OutOrStdout(), done)
	}
	if err := writeReloaded(c, done.Reloaded); err != nil {
		return err
	}
	switch n := len(done.Changes); {
	case n == 0 && len(done.Restart) == 0:
		say(c.ErrOrStderr(), "there is nothing to change", "")
	case o.dryRun:
		say(c.ErrOrStderr(), "the director would accept this; nothing is changed yet", "vsnat apply without --dry-run")
	}
	if p := done.Pending; p != nil {
		say(c.ErrOrStderr(), "on trial until "+p.Until.Local().Format(time.TimeOnly), "vsnat confirm keeps it; otherwise it is taken back")
	}
	return nil
}

// writeReloaded tells what was changed, and what was not.
func writeReloaded(c *cobra.Command, done control.Reloaded) error {
	if len(done.Restart) > 0 {
		say(c.ErrOrStderr(), "not in force yet: "+strings.Join(done.Restart, ", "), "restart the director for these")
	}
	for _, change := range done.Changes {
		if _, err := fmt.Fprintln(c.OutOrStdout(), printable(change)); err != nil {
			return err
		}
	}
	return nil
}

// onTrial is a configuration that waits for its confirmation, in words.
func onTrial(p *control.Pending) string {
	file := p.File
	if file == "" {
		file = "a configuration"
	}
	return fmt.Sprintf("%s, applied by %s at %s, is on trial until %s", file, p.By,
		p.Since.Local().Format(time.TimeOnly), p.Until.Local().Format(time.TimeOnly))
}

func newConfirmCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Keep the configuration that is on trial",
		Long:    "Keeps what vsnat apply --confirm applied. The status is 1 if nothing is on trial, or not any more.",
		Example: "  vsnat confirm",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := r.client().Confirm(c.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s of %s kept\n", plural(p.Changes, "change"), printable(p.By))
			return err
		},
	}
}

func newRollbackCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Take back the configuration that is on trial",
		Long: `Takes back at once what vsnat apply --confirm applied: everything is as it was
before, and what was changed since is lost. The status is 1 if nothing is on trial.`,
		Example: "  vsnat rollback",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			done, err := r.client().Rollback(c.Context())
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
