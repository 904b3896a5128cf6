// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
)

// exitDifferent is the status of diff if there are differences, as that of diff(1);
// trouble is then exitUsage.
const exitDifferent = 1

func newDiffCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "diff [FILE]",
		Short: "List what a configuration would change in the running director",
		Long: `Compares what the director has now, with all changes made at run time, to a file:
what vsnat apply FILE would change. Without FILE it is the file that the director
was started with: what vsnat reload would change, which is how far the two have
drifted apart. "-" reads standard input. Nothing is changed.

The status is 0 if there is no difference, 1 if there is, and 2 on trouble.`,
		Example: "  vsnat diff\n  vsnat diff vsnat.yaml -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			changes, err := differences(c, r, args)
			if err != nil {
				return withStatus(exitUsage, err)
			}
			if output.json {
				err = writeJSON(c.OutOrStdout(), shownChanges(changes))
			} else {
				err = writeChanges(c.OutOrStdout(), changes)
			}
			switch {
			case err != nil:
				return withStatus(exitUsage, err)
			case len(changes) > 0:
				return withStatus(exitDifferent, nil)
			}
			return nil
		},
	}
	output.register(c)
	return c
}

// differences leads from what runs to a file, or to the director's own.
func differences(c *cobra.Command, r *remote, args []string) ([]config.Change, error) {
	var wanted *config.Config
	var err error
	if len(args) > 0 {
		wanted, err = readConfig(c, args[0])
	} else {
		var text string
		if text, err = r.client().Filed(c.Context()); err == nil {
			wanted, err = config.Parse("the director's file", []byte(text))
		}
	}
	if err != nil {
		return nil, err
	}
	text, err := r.client().Config(c.Context())
	if err != nil {
		return nil, err
	}
	running, err := config.Parse("the running configuration", []byte(text))
	if err != nil {
		return nil, err
	}
	return config.Diff(running, wanted), nil
}

func writeChanges(w io.Writer, changes []config.Change) error {
	for _, change := range changes {
		note := ""
		if change.Restart() {
			note = " (needs a restart)"
		}
		if _, err := fmt.Fprintln(w, printable(change.String())+note); err != nil {
			return err
		}
	}
	return nil
}

// shownChange is a change as JSON: what it does, to what, and in words.
type shownChange struct {
	Op      config.Op     `json:"op"`
	Object  config.Object `json:"object"`
	Service string        `json:"service,omitempty"`
	Server  string        `json:"server,omitempty"`
	SNAT    string        `json:"snat,omitempty"`
	Mark    string        `json:"mark,omitempty"`
	Setting string        `json:"setting,omitempty"`
	Text    string        `json:"text"`
	Restart bool          `json:"restart"`
}

func shownChanges(changes []config.Change) []shownChange {
	list := make([]shownChange, len(changes))
	for i, c := range changes {
		s := shownChange{Op: c.Op, Object: c.Object, Setting: c.Setting, Text: c.String(), Restart: c.Restart()}
		switch c.Object {
		case config.ObjectServer:
			s.Server = c.Server.Address.String()
			s.Service = c.Service.ServiceKey.String()
		case config.ObjectService:
			s.Service = c.Service.ServiceKey.String()
		case config.ObjectSNAT:
			s.SNAT = c.SNAT.From.String()
		case config.ObjectMark:
			s.Mark = c.Mark.String()
		}
		list[i] = s
	}
	return list
}
