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

// A screen has so many lines, and one of them is for the prompt.
const screen = 24

// limits are how much of each part is shown: what is broken comes first, the rest is
// summed up. least fits on a screen; where there is more room, they are raised.
type limits struct{ problems, servers, services, links int }

var least = limits{problems: 4, servers: 2, services: 2, links: 3}

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
			if s.Services, err = r.client().Services(c.Context()); err != nil {
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
	Services []control.Service `json:"services"`
	Links    []control.Link    `json:"links"`
}

func (s *status) write(c *cobra.Command) error {
	columns, rows := 0, screen
	w := c.OutOrStdout()
	onTerminal := terminal(w)
	if onTerminal {
		columns, rows = size(w.(*os.File))
	}
	share := func(v *control.Service) float64 { return float64(available(v)) / float64(max(1, len(v.Servers))) }
	slices.SortStableFunc(s.Services, func(x, y control.Service) int { return cmp.Compare(share(&x), share(&y)) })
	text := s.fill(columns, rows-1)
	if onTerminal {
		text = cut(text, columns)
		if os.Getenv("NO_COLOR") == "" {
			text = coloured(text, s.Status == "ok")
		}
	}
	_, err := w.Write([]byte(text))
	return err
}

// fill shows as much as goes into so many lines, and the least in any case.
func (s *status) fill(columns, rows int) string {
	shown := least
	text := s.compose(columns, shown)
	for grown := true; grown; {
		grown = false
		for _, part := range []func(l *limits) *int{
			func(l *limits) *int { return &l.problems },
			func(l *limits) *int { return &l.servers },
			func(l *limits) *int { return &l.services },
			func(l *limits) *int { return &l.links },
		} {
			more := shown
			*part(&more)++
			if t := s.compose(columns, more); t != text && strings.Count(t, "\n") <= rows {
				shown, text, grown = more, t, true
			}
		}
	}
	return text
}

// compose is the text of all parts. Lines of words are wrapped at columns; 0: never.
func (s *status) compose(columns int, shown limits) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: process %d, vsnat %s, up %s, io %s, guard %s", printable(s.Status), s.PID,
		printable(s.Version), ago(time.Since(s.Started)), printable(s.IO), printable(s.Guard))
	if s.Offload == control.OffloadTCX {
		b.WriteString(", offload " + s.Offload)
	}
	b.WriteByte('\n')
	s.problems(&b, columns, shown.problems)
	s.served(&b, shown.services)
	s.missing(&b, shown.servers)
	s.links(&b, shown.links)
	return b.String()
}

// problems are told with the time since when, what an operator has ordered after them,
// and then the next steps.
func (s *status) problems(b *bytes.Buffer, columns, most int) {
	var lines, steps []string
	if p := s.Pending; p != nil {
		lines = append(lines, onTrial(p)+": vsnat confirm keeps it, vsnat rollback takes it back")
	}
	for _, p := range s.Health.Problems {
		line := p
		for _, f := range s.Findings {
			if f.Problem != p {
				continue
			}
			if !f.Since.IsZero() {
				line = "since " + ago(time.Since(f.Since)) + ": " + line
			}
			if f.Next != "" && !slices.Contains(steps, f.Next) {
				steps = append(steps, f.Next)
			}
		}
		lines = append(lines, line)
	}
	if s.Unconfined != "" {
		lines = append(lines, s.Unconfined)
	}
	lines = append(lines, drainLines(s.Drains)...)
	if s.Drift > 0 {
		lines = append(lines, fmt.Sprintf("%s since %s was read: vsnat diff lists what it would change back", plural(s.Drift, "change"), s.Config))
	}
	for _, line := range lines[:min(len(lines), most)] {
		b.WriteString(wrapped(printable(line), columns))
	}
	if more := len(lines) - most; more > 0 {
		fmt.Fprintf(b, "  and %d more: vsnat status -o json\n", more)
	}
	if len(steps) > 0 {
		b.WriteString(wrapped("next: "+printable(strings.Join(steps, "; ")), columns))
	}
}

// wrapped indents a line of words by two, and breaks it where the screen ends; 0: never.
func wrapped(line string, columns int) string {
	var b strings.Builder
	at := 0
	for word := range strings.SplitSeq(line, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case at == 0:
			b.WriteString("  ")
			at = 2
		case columns > 0 && at+1+n > columns:
			b.WriteString("\n    ")
			at = 4
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String() + "\n"
}

// drainLines are what is out of service by order, a server in several services once.
func drainLines(list []control.Drain) (lines []string) {
	for i := range list {
		d := &list[i]
		same := func(o control.Drain) bool { return o.Server.Addr() == d.Server.Addr() && o.State == d.State }
		if slices.IndexFunc(list, same) < i {
			continue
		}
		services, active, inactive := 0, 0, 0
		for _, o := range list {
			if same(o) {
				services, active, inactive = services+1, active+o.Active, inactive+o.Inactive
			}
		}
		line := fmt.Sprintf("server %s of %s: ", d.Server, d.Service)
		if services > 1 {
			line = fmt.Sprintf("server %s in %d services: ", d.Server.Addr(), services)
		}
		line += d.State
		if !d.Since.IsZero() {
			line += " for " + ago(time.Since(d.Since))
		}
		if d.By != "" {
			line += " by " + d.By
		}
		if active+inactive > 0 {
			line += fmt.Sprintf(", %d active and %d inactive connections", active, inactive)
		}
		lines = append(lines, line)
	}
	return lines
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

// served is the services, those that miss most first as they are sorted, and the rest
// in one line.
func (s *status) served(b *bytes.Buffer, most int) {
	list := s.Services
	if len(list) == 0 {
		return
	}
	shown := list[:min(len(list), most)]
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
	t.write(b)
	if rest := list[len(shown):]; len(rest) > 0 {
		usable, all := 0, 0
		for i := range rest {
			usable += available(&rest[i])
			all += len(rest[i].Servers)
		}
		fmt.Fprintf(b, "and %s with %d of %s\n", plural(len(rest), "more service"), usable, plural(all, "server"))
	}
}

// missing is the servers that take no connections, and why: those that nobody ordered
// out of service first.
func (s *status) missing(b *bytes.Buffer, most int) {
	var broken, ordered [][]string
	for i := range s.Services {
		v := &s.Services[i]
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
			row := []string{r.Address.String(), v.ServiceKey.String(), why}
			if r.Drain != nil {
				ordered = append(ordered, row)
				continue
			}
			broken = append(broken, row)
		}
	}
	list := append(broken, ordered...)
	if len(list) == 0 {
		return
	}
	t := newTable("SERVER", "OF", "WHY")
	for _, row := range list[:min(len(list), most)] {
		t.add(row...)
	}
	b.WriteByte('\n')
	t.write(b)
	if more := len(list) - most; more > 0 {
		fmt.Fprintf(b, "and %s: vsnat health\n", plural(more, "more server"))
	}
}

// links are those that are served first, the ones that are down before them.
func (s *status) links(b *bytes.Buffer, most int) {
	if len(s.Links) == 0 {
		return
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
	if len(list) > most {
		slices.SortStableFunc(list, func(x, y control.Link) int {
			return cmp.Compare(strings.Index("down yes no", state(&x)), strings.Index("down yes no", state(&y)))
		})
	}
	t := newTable("LINK", "SERVING", "MTU ", "IN ", "OUT ", "LOST ", "ADDRESSES")
	for i := range list[:min(len(list), most)] {
		l := &list[i]
		addresses := make([]string, len(l.Addrs))
		for k, a := range l.Addrs {
			addresses[k] = a.String()
		}
		t.add(l.Name, state(l), strconv.Itoa(l.MTU), count(l.InPackets), count(l.OutPackets),
			count(l.KernelDrop+l.SendErrors), strings.Join(addresses, " "))
	}
	b.WriteByte('\n')
	t.write(b)
	if more := len(list) - most; more > 0 {
		fmt.Fprintf(b, "and %s\n", plural(more, "more link"))
	}
}

// size is that of a terminal, 80 by 24 if it does not say.
func size(f *os.File) (columns, rows int) {
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		return int(size.Col), int(size.Row)
	}
	return 80, screen
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
