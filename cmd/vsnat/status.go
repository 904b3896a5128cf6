// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newStatusCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "status",
		Short: "Whether the director does its work, and on which links",
		Long: `Shows the running director and its links. The status of the command is 0 if all
is well, and 1 if the director names a problem or none is running.`,
		Example: "  vsnat status\n  vsnat status -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			health, err := r.client().Health(c.Context())
			if err != nil {
				return err
			}
			links, err := r.client().Links(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				err = writeJSON(c.OutOrStdout(), struct {
					control.Health
					Links []control.Link `json:"links"`
				}{health, links})
			} else {
				err = writeStatus(c, health, links)
			}
			if err == nil && health.Status != "ok" {
				return withStatus(exitFailed, nil)
			}
			return err
		},
	}
	output.register(c)
	return c
}

func writeStatus(c *cobra.Command, h control.Health, links []control.Link) error {
	w := c.OutOrStdout()
	if _, err := fmt.Fprintf(w, "%s: process %d, vsnat %s, up %s, io %s, guard %s\n", printable(h.Status), h.PID,
		printable(h.Version), ago(time.Since(h.Started)), printable(h.IO), printable(h.Guard)); err != nil {
		return err
	}
	for _, p := range append(driftLines(h), h.Problems...) {
		if _, err := fmt.Fprintln(w, "  "+printable(p)); err != nil {
			return err
		}
	}
	if len(links) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := newTable("LINK", "SERVING", "MTU ", "IN ", "OUT ", "LOST ", "ADDRESSES")
	for _, l := range links {
		serving := "no"
		switch {
		case l.Serving && l.Up:
			serving = "yes"
		case l.Serving:
			serving = "down"
		}
		addresses := make([]string, len(l.Addrs))
		for i, a := range l.Addrs {
			addresses[i] = a.String()
		}
		t.add(l.Name, serving, strconv.Itoa(l.MTU), count(l.InPackets), count(l.OutPackets),
			count(l.KernelDrop+l.SendErrors), strings.Join(addresses, " "))
	}
	return t.write(w)
}
