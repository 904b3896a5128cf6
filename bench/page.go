// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// print writes the tables that people read in a terminal.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%s\n\n", r.Machine, r.effort())
	ours := r.Peers[0]
	table(w, slices.Concat([]string{"load", "unit"}, r.Peers, []string{ours + "/" + kernelPeer, "/proxy", "spread"}), func(add func(...string)) {
		for _, line := range r.Rows {
			add(slices.Concat([]string{line.Load, line.Unit}, line.medians(r.Peers), line.relations(ours))...)
		}
	})
	fmt.Fprintf(w, "\nLess is better where the unit is µs, KiB or MiB. spread: of the rounds of %s, as a part of its\n"+
		"median.\n\nProcessor time of the whole machine for one operation, µs:\n\n", ours)
	table(w, slices.Concat([]string{"load", "operation"}, r.Peers), func(add func(...string)) {
		for _, line := range r.Rows {
			if line.Operation != "" {
				load, _, _ := strings.Cut(line.Load, " ") // it is not of a figure
				add(slices.Concat([]string{load, line.Operation}, line.costs(r.Peers))...)
			}
		}
	})
	for i, note := range r.Notes {
		fmt.Fprintf(w, "%s%s\n", map[bool]string{true: "\n"}[i == 0], note)
	}
}

// markdown writes the same for a page.
func (r *result) markdown(w io.Writer) {
	ours := r.Peers[0]
	head := func(words ...string) {
		fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(words, " | "), strings.Repeat("---|", len(words)))
	}
	add := func(words ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(words, " | ")) }

	fmt.Fprintf(w, "%s, which client, director and servers share; %s:\n\n", r.Machine, r.effort())
	head(slices.Concat([]string{"load", ""}, r.Peers, []string{ours + " / " + kernelPeer, ours + " / proxy", "spread"})...)
	for _, line := range r.Rows {
		add(slices.Concat([]string{line.About, line.Unit}, line.medians(r.Peers), line.relations(ours))...)
	}
	fmt.Fprintf(w, "\nLess is better where the unit is µs, KiB or MiB. Spread is that of the rounds of %s, as a part of its\n"+
		"median. What each of the loads takes of the machine's processors, in µs for one operation:\n\n", ours)
	head(slices.Concat([]string{"load", "for each"}, r.Peers)...)
	for _, line := range r.Rows {
		if line.Operation != "" {
			about, _, _ := strings.Cut(line.About, ", p50") // it is that of the whole load
			add(slices.Concat([]string{about, line.Operation}, line.costs(r.Peers))...)
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintf(w, "\nLeft out: %s.\n", strings.Join(r.Notes, "; "))
	}
}

func (r *result) effort() string {
	return fmt.Sprintf("medians of %d rounds of %g s", r.Rounds, r.Seconds)
}

func (r *row) medians(peers []string) (words []string) {
	for _, name := range peers {
		words = append(words, number(r.Peers[name].Median))
	}
	return words
}

func (r *row) costs(peers []string) (words []string) {
	for _, name := range peers {
		words = append(words, number(r.Peers[name].Machine))
	}
	return words
}

// relations are a peer's ratios, and how far its rounds were apart.
func (r *row) relations(name string) []string {
	return []string{ratio(r.ToKernel, name), ratio(r.ToProxy, name), fmt.Sprintf("%.0f%%", 100*r.Peers[name].spread())}
}

// table writes rows in columns.
func table(w io.Writer, head []string, rows func(add func(...string))) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	add := func(words ...string) { fmt.Fprintf(t, "%s\t\n", strings.Join(words, "\t")) }
	add(head...)
	rows(add)
	t.Flush()
}

// The part of a page that is written by this program.
const partBegin, partEnd = "<!-- bench -->\n", "<!-- /bench -->\n"

// writePart puts the tables into their part of a page.
func (r *result) writePart(file string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, _, ok := strings.Cut(string(page), partBegin)
	_, after, ends := strings.Cut(string(page), partEnd)
	if !ok || !ends {
		return fmt.Errorf("%s has no part between %q and %q", file, strings.TrimSpace(partBegin), strings.TrimSpace(partEnd))
	}
	var part strings.Builder
	r.markdown(&part)
	return os.WriteFile(file, []byte(before+partBegin+part.String()+partEnd+after), 0o644)
}

// readResults reads what earlier comparisons wrote as JSON, each of other loads.
func readResults(files []string) (all result, err error) {
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return all, err
		}
		var one result
		if err := json.Unmarshal(text, &one); err != nil {
			return all, fmt.Errorf("%s: %w", file, err)
		}
		if i == 0 {
			all = one
			continue
		}
		if one.Machine != all.Machine || one.Rounds != all.Rounds || one.Seconds != all.Seconds || !slices.Equal(one.Peers, all.Peers) {
			return all, fmt.Errorf("%s was not measured as %s was: machine, rounds, seconds or peers differ", file, files[0])
		}
		all.Rows, all.Notes = append(all.Rows, one.Rows...), append(all.Notes, one.Notes...)
	}
	if len(all.Rows) == 0 || len(all.Peers) == 0 {
		return all, errors.New("there are no results")
	}
	return all, nil
}
