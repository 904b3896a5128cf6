// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newEventsCommand(r *remote) *cobra.Command {
	var output outputFlag
	var query control.EventQuery
	c := &cobra.Command{
		Use:   "events",
		Short: "What happened, and with -f what happens",
		Long: `Shows what happened to services, servers, links and the director itself, the
oldest first: a line each, or with -o json a JSON object a line. The director
keeps the last thousand. With -f it goes on until the director ends, which is
status 1, or until it is interrupted.

Events are numbered from the start of the director (seq). A gap is told as an
event of kind "missed".`,
		Example: "  vsnat events\n  vsnat events -f -o json | jq 'select(.kind == \"server-down\")'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			write := writeEvent
			if output.json {
				write = writeEventJSON
			}
			err := r.client().Events(c.Context(), query, func(e control.Event) error { return write(c.OutOrStdout(), e) })
			if err == nil && query.Follow && c.Context().Err() == nil {
				err = hinted{fmt.Errorf("the director has ended"), "vsnat events -f again when it runs"}
			}
			return err
		},
	}
	c.Flags().BoolVarP(&query.Follow, "follow", "f", false, "wait for more")
	c.Flags().Uint64Var(&query.After, "after", 0, "only events with a higher number than this")
	output.register(c)
	return c
}

func writeEvent(w io.Writer, e control.Event) error {
	by := ""
	if e.By != "" {
		by = " (by " + e.By + ")"
	}
	_, err := fmt.Fprintf(w, "%s  %-16s  %s\n", e.Time.Local().Format(time.DateTime), printable(string(e.Kind)), printable(e.Text+by))
	return err
}

func writeEventJSON(w io.Writer, e control.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(line), '\n'))
	return err
}
