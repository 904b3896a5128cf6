// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newStatsCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "stats",
		Short: "Counters of the whole director, and why packets were dropped",
		Long: `Shows what the director carried since its start (or the last ipvsadm -Z), how
full its connection table is, and how many packets it dropped for which reason.
Reasons that never happened are left out.`,
		Example: "  vsnat stats\n  vsnat stats -o json | jq .drops",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.client().Stats(c.Context())
			if err != nil {
				return err
			}
			if output.json {
				return writeJSON(c.OutOrStdout(), s)
			}
			return writeStats(c, s)
		},
	}
	output.register(c)
	return c
}

func writeStats(c *cobra.Command, s control.Stats) error {
	w := c.OutOrStdout()
	t := newTable("", "TOTAL ", "PER SECOND ")
	for _, row := range []struct {
		what        string
		total, rate uint64
	}{
		{"connections", s.Total.Conns, s.Rate.Conns},
		{"packets in", s.Total.InPackets, s.Rate.InPackets},
		{"packets out", s.Total.OutPackets, s.Rate.OutPackets},
		{"bytes in", s.Total.InBytes, s.Rate.InBytes},
		{"bytes out", s.Total.OutBytes, s.Rate.OutBytes},
	} {
		t.add(row.what, count(row.total), count(row.rate))
	}
	if err := t.write(w); err != nil {
		return err
	}
	offloaded := ""
	if s.Conns.Offloaded > 0 {
		offloaded = fmt.Sprintf(", %d offloaded", s.Conns.Offloaded)
	}
	if _, err := fmt.Fprintf(w, "\ntable of %d connections: %d used (%d half open, %d one-way, %d held%s)\n",
		s.Conns.Cap, s.Conns.Len, s.Conns.HalfOpen, s.Conns.OneWay, s.Conns.Held, offloaded); err != nil {
		return err
	}
	if len(s.Shards) > 1 {
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := writeShards(w, s.Shards); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		title    string
		counters map[string]uint64
	}{{"DROPPED", s.Drops}, {"EVENT", s.Events}} {
		t := newTable(list.title, "COUNT ")
		for _, name := range slices.Sorted(maps.Keys(list.counters)) {
			if n := list.counters[name]; n > 0 {
				t.add(name, strconv.FormatUint(n, 10))
			}
		}
		if len(t.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}

// writeShards shows how the workers divide the work, and what came to one that was
// another's.
func writeShards(w io.Writer, shards []control.ShardStats) error {
	t := newTable("WORKER", "CONNECTIONS ", "RECEIVED ", "SENT ", "HANDED OVER ", "TAKEN OVER ", "STRANGE ")
	for _, s := range shards {
		t.add(strconv.Itoa(s.Shard), strconv.Itoa(s.Conns), count(s.Packets), count(s.Sent), count(s.HandedOver), count(s.TakenOver), count(s.Strange))
	}
	return t.write(w)
}
