// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// What fits on a screen of 24 lines, whatever there is: what is broken comes first,
// the rest is summed up.
const (
	maxProblems = 4
	maxServers  = 2 // that take no connections
	maxServices = 2
	maxLinks    = 3
)

func newStatusCommand(r *remote) *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "status",
		Short: "Whether the director does its work, what is wrong, and since when",
		Long: `Shows on one screen whether the director does its work, what is wrong, since when
and what to do next, then services (those with servers missing first), servers
that take no connections and why, and links. -o json has all of it.

The status of the command is 0 if all is well, and 1 if the director names a
problem or none is running. Colours are for terminals, and not if NO_COLOR is set.`,
		Example: "  vsnat status\n  vsnat status -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s status
			var err error
			if s.Health, err = r.client().Health(c.Context()); err != nil {
				return err
			}
			if s.Links, err = r.client().Links(c.Context()); err != nil {
				return err
			}
			if s.services, err = r.client().Services(c.Context()); err != nil {
				return err
			}
			if output.json {
				err = writeJSON(c.OutOrStdout(), s)
			} else {
				err = s.write(c)
			}
			if err == nil && s.Status != "ok" {
				return withStatus(exitFailed, nil)
			}
			return err
		},
	}
	output.register(c)
	return c
}

// status is what is shown.
type status struct {
	control.Health
	Links    []control.Link `json:"links"`
	services []control.Service
}

func (s *status) write(c *cobra.Command) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: process %d, vsnat %s, up %s, io %s, guard %s\n", printable(s.Status), s.PID,
		printable(s.Version), ago(time.Since(s.Started)), printable(s.IO), printable(s.Guard))
	s.problems(&b)
	for _, part := range []func(*bytes.Buffer) error{s.served, s.missing, s.links} {
		if err := part(&b); err != nil {
			return err
		}
	}
	text := b.String()
	if w := c.OutOrStdout(); terminal(w) {
		text = cut(text, width(w.(*os.File)))
		if os.Getenv("NO_COLOR") == "" {
			text = coloured(text, s.Status == "ok")
		}
	}
	_, err := c.OutOrStdout().Write([]byte(text))
	return err
}

// problems are told with the time since when, the newest last, and the next steps.
func (s *status) problems(b *bytes.Buffer) {
	lines := driftLines(s.Health)
	if s.Unconfined != "" {
		lines = append(lines, s.Unconfined)
	}
	var steps []string
	for _, p := range s.Health.Problems {
		line := p
		for _, f := range s.Findings {
			if f.Problem != p {
				continue
			}
			if !f.Since.IsZero() {
				line += " (since " + ago(time.Since(f.Since)) + ")"
			}
			if f.Next != "" && !slices.Contains(steps, f.Next) {
				steps = append(steps, f.Next)
			}
		}
		lines = append(lines, line)
	}
	for _, line := range lines[:min(len(lines), maxProblems)] {
		fmt.Fprintln(b, "  "+printable(line))
	}
	if more := len(lines) - maxProblems; more > 0 {
		fmt.Fprintf(b, "  and %s more: vsnat status -o json\n", plural(more, "problem"))
	}
	if len(steps) > 0 {
		fmt.Fprintln(b, "  next: "+printable(strings.Join(steps, "; ")))
	}
}

// available counts the servers of a service that take new connections.
func available(s *control.Service) (n int) {
	for i := range s.Servers {
		if s.Servers[i].WeightInForce() > 0 && !s.Servers[i].Overloaded {
			n++
		}
	}
	return n
}

// served is the services, those that miss most first, and the rest in one line.
func (s *status) served(b *bytes.Buffer) error {
	if len(s.services) == 0 {
		return nil
	}
	list := slices.Clone(s.services)
	share := func(v *control.Service) float64 { return float64(available(v)) / float64(max(1, len(v.Servers))) }
	slices.SortStableFunc(list, func(x, y control.Service) int { return cmp.Compare(share(&x), share(&y)) })
	shown := list[:min(len(list), maxServices)]
	t := newTable("SERVICE", "SERVERS ", "ACTIVE ", "CONNS/S ", "IN/S ", "OUT/S ")
	for i := range shown {
		v := &shown[i]
		active := 0
		for k := range v.Servers {
			active += v.Servers[k].Active
		}
		t.add(v.ServiceKey.String(), fmt.Sprintf("%d of %d", available(v), len(v.Servers)), count(uint64(active)),
			count(v.Rate.Conns), count(v.Rate.InBytes), count(v.Rate.OutBytes))
	}
	b.WriteByte('\n')
	if err := t.write(b); err != nil {
		return err
	}
	if rest := list[len(shown):]; len(rest) > 0 {
		usable, all := 0, 0
		for i := range rest {
			usable += available(&rest[i])
			all += len(rest[i].Servers)
		}
		fmt.Fprintf(b, "and %s more with %d of %s\n", plural(len(rest), "service"), usable, plural(all, "server"))
	}
	return nil
}

// missing is the servers that take no connections, and why.
func (s *status) missing(b *bytes.Buffer) error {
	t := newTable("SERVER", "OF", "WHY")
	more := 0
	for i := range s.services {
		v := &s.services[i]
		for k := range v.Servers {
			r := &v.Servers[k]
			why := r.Why
			switch {
			case r.WeightInForce() > 0 && !r.Overloaded:
				continue
			case r.Overloaded:
				why = "overloaded"
			case why == "":
				why = "weight 0"
			}
			if len(t.rows) == maxServers {
				more++
				continue
			}
			t.add(r.Address.String(), v.ServiceKey.String(), why)
		}
	}
	if len(t.rows) == 0 {
		return nil
	}
	b.WriteByte('\n')
	if err := t.write(b); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(b, "and %s more: vsnat health\n", plural(more, "server"))
	}
	return nil
}

// links are those that are served first, the ones that are down before them.
func (s *status) links(b *bytes.Buffer) error {
	if len(s.Links) == 0 {
		return nil
	}
	state := func(l *control.Link) string {
		switch {
		case l.Serving && l.Up:
			return "yes"
		case l.Serving:
			return "down"
		}
		return "no"
	}
	list := slices.Clone(s.Links)
	if len(list) > maxLinks {
		slices.SortStableFunc(list, func(x, y control.Link) int {
			return cmp.Compare(strings.Index("down yes no", state(&x)), strings.Index("down yes no", state(&y)))
		})
	}
	t := newTable("LINK", "SERVING", "MTU ", "IN ", "OUT ", "LOST ", "ADDRESSES")
	for i := range list[:min(len(list), maxLinks)] {
		l := &list[i]
		addresses := make([]string, len(l.Addrs))
		for k, a := range l.Addrs {
			addresses[k] = a.String()
		}
		t.add(l.Name, state(l), strconv.Itoa(l.MTU), count(l.InPackets), count(l.OutPackets),
			count(l.KernelDrop+l.SendErrors), strings.Join(addresses, " "))
	}
	b.WriteByte('\n')
	if err := t.write(b); err != nil {
		return err
	}
	if more := len(list) - maxLinks; more > 0 {
		fmt.Fprintf(b, "and %s more\n", plural(more, "link"))
	}
	return nil
}

// width is that of a terminal, 80 if it does not say.
func width(f *os.File) int {
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	return 80
}

// cut shortens each line that is longer than the screen is wide.
func cut(text string, columns int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if runes := []rune(strings.TrimSuffix(line, "\n")); utf8.RuneCountInString(line) > columns+1 {
			line = string(runes[:columns-1]) + "…\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// coloured has the first word green or red.
func coloured(text string, well bool) string {
	word, rest, _ := strings.Cut(text, ":")
	colour := "\x1b[1;31m"
	if well {
		colour = "\x1b[1;32m"
	}
	return colour + word + "\x1b[0m:" + rest
}
