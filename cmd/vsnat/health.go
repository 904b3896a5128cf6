// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newHealthCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "health [SERVER[:PORT]]",
		Short: "Checks of servers: which are up, since when, and why not",
		Long: `Lists the checks of all servers, or of one with its last results, the newest
first. The status of the command is 0 if every server is up, and 1 if one is not,
or cannot be checked.`,
		Example: "  vsnat health\n  vsnat health 10.0.0.3\n  vsnat health -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			checks, err := r.client().Checks(c.Context())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if checks, err = checksOf(checks, args[0]); err != nil {
					return err
				}
			}
			switch {
			case output.json:
				err = writeJSON(c.OutOrStdout(), checks)
			case len(args) > 0:
				err = writeHistories(c, checks)
			default:
				err = writeChecks(c, checks)
			}
			for _, k := range checks {
				if err == nil && k.State != "up" {
					return withStatus(exitFailed, nil)
				}
			}
			return err
		},
	}
	output.register(c)
	return c
}

// checksOf are those of a server, at any port if none is named.
func checksOf(checks []control.Check, name string) ([]control.Check, error) {
	server, err := parseEndpoint(name, 0)
	if err != nil {
		return nil, err
	}
	some := []control.Check{}
	for _, k := range checks {
		if k.Server == server || server.Port() == 0 && k.Server.Addr() == server.Addr() {
			some = append(some, k)
		}
	}
	if len(some) == 0 {
		return nil, usageError{fmt.Errorf("there is no check of %s", name), "vsnat health lists those there are"}
	}
	return some, nil
}

func writeChecks(c *cobra.Command, checks []control.Check) error {
	if len(checks) == 0 {
		say(c.ErrOrStderr(), "no server is checked", `"check: tcp" of a service has its servers checked; vsnat config init has the rest`)
	}
	t := newTable("SERVER", "SERVICE", "CHECK", "STATE", "SINCE ", "LATENCY ", "LAST RESULT")
	for i := range checks {
		k := &checks[i]
		services := ""
		for j, s := range k.Services {
			if j > 0 {
				services += ", "
			}
			services += s.String()
		}
		since := ""
		if !k.Since.IsZero() {
			since = ago(time.Since(k.Since))
		}
		t.add(k.Server.String(), services, k.Type, k.State, since, latency(k.Latency), lastResult(k))
	}
	return t.write(c.OutOrStdout())
}

// lastResult is what the last check found out, and what its state does not tell.
func lastResult(k *control.Check) string {
	text := k.Text
	switch {
	case k.Outcome == "":
		return "none yet"
	case k.Outcome == "bad" && k.State == "up":
		text = "failing: " + text
	case k.Outcome == "good" && k.State == "down":
		text = "rising: " + text
	}
	if !k.Held.IsZero() {
		text += fmt.Sprintf(" (kept out %s more, since it flaps)", ago(time.Until(k.Held)))
	}
	return text
}

func latency(d control.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func writeHistories(c *cobra.Command, checks []control.Check) error {
	t := newTable("SERVER", "CHECK", "LAST", "TIMES ", "OUTCOME", "STATE", "LATENCY ", "RESULT")
	for _, k := range checks {
		for _, e := range k.History {
			t.add(k.Server.String(), k.Target, ago(time.Since(e.At))+" ago", strconv.Itoa(e.Times), e.Outcome, e.State, latency(e.Latency), e.Text)
		}
	}
	return t.write(c.OutOrStdout())
}
