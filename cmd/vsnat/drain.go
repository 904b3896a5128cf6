// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Exit statuses of a drain that is waited for.
const (
	exitLeft   = 3 // the deadline has passed, and connections are left
	exitUndone = 4 // somebody has undone it, or deleted the server
)

const drainArgs = " SERVER[:PORT] [PROTO ADDRESS:PORT | mark NUMBER]"

type drainOptions struct {
	remote   *remote
	deadline time.Duration
	then     string
	wait     bool
	output   outputFlag
}

func newDrainCommand(r *remote) *cobra.Command {
	o := drainOptions{remote: r}
	c := &cobra.Command{
		Use:   "drain" + drainArgs,
		Short: "Take a server out of service when its connections are over",
		Long: `Gives a server no new connections, in one service or in all that it is a server of,
and waits until it has none that is not over. No persistence leads there any more. It
is the director that waits: this command may be interrupted, and run again, which goes
on with the same drain. The server stays out of service until vsnat undrain, over a
reload too.

At the deadline, connections that are left go on, or with --then reset they end: both
ends of TCP are told, UDP goes to another server.

The status is 0 if the drain has begun, or with --wait if it is over and nothing is
left; 1 on trouble; with --wait 3 if connections are left at the deadline, and 4 if
somebody has undone the drain or deleted the server.`,
		Example: `  vsnat drain 10.0.0.3:80 --wait
  vsnat drain 10.0.0.3 --deadline 5m --then reset --wait
  vsnat drain 10.0.0.3:80 tcp 192.168.88.23:80`,
		Args: serverAndService,
		RunE: o.run,
	}
	c.Flags().DurationVar(&o.deadline, "deadline", 0, "how long connections may take to end")
	c.Flags().StringVar(&o.then, "then", "", "what becomes of those that are left at the deadline: leave (default) or reset")
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until the drain is over, and show how far it is")
	o.output.register(c)
	return c
}

// serverAndService are the arguments of drain and its like.
func serverAndService(_ *cobra.Command, args []string) error {
	if len(args) != 1 && len(args) != 3 {
		return fmt.Errorf("accepts a server, or a server and protocol and address of a service")
	}
	return nil
}

// drainSpec reads those arguments.
func drainSpec(args []string) (spec control.DrainSpec, err error) {
	if spec.Server, err = parseEndpoint(args[0], 0); err == nil && len(args) > 1 {
		spec.Service, err = parseKey(args[1:])
	}
	return spec, err
}

func (o *drainOptions) run(c *cobra.Command, args []string) error {
	spec, err := drainSpec(args)
	if err != nil {
		return err
	}
	if c.Flags().Changed("deadline") && o.deadline <= 0 {
		return usageError{fmt.Errorf("%s is no deadline", o.deadline), "for example --deadline 5m"}
	}
	spec.Deadline, spec.Then = control.Duration(o.deadline), o.then
	list, err := o.remote.client().Drain(c.Context(), spec)
	if err != nil {
		return err
	}
	status := 0
	if o.wait {
		show := newProgress(c.ErrOrStderr())
		if list, status, err = o.until(c.Context(), list, show); err != nil {
			return err
		}
	}
	if o.output.json {
		err = writeJSON(c.OutOrStdout(), list)
	} else {
		err = writeDrains(c.OutOrStdout(), list)
	}
	if err != nil {
		return err
	}
	return withStatus(status, nil)
}

// drainPoll is how often it is asked how far a drain is.
const drainPoll = 250 * time.Millisecond

// until waits until all of some drains are over. It returns them as they are then,
// and the status to exit with.
func (o *drainOptions) until(ctx context.Context, list []control.Drain, show *progress) ([]control.Drain, int, error) {
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	defer show.end()
	for {
		over, status := true, 0
		for i := range list {
			over = over && list[i].Over()
			if list[i].State == control.DrainLeft {
				status = exitLeft
			}
		}
		if over {
			return list, status, nil
		}
		show.tell(drainLine(list))
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-ticker.C:
		}
		all, err := o.remote.client().Drains(ctx)
		if err != nil {
			return nil, 0, err
		}
		var now []control.Drain
		for _, j := range all {
			if slices.ContainsFunc(list, func(k control.Drain) bool { return k.Server == j.Server && k.Service == j.Service }) && j.State != control.DrainMaintenance {
				now = append(now, j)
			}
		}
		if len(now) < len(list) {
			say(show.w, "the drain was undone, or the server deleted", "vsnat events tells by whom")
			return now, exitUndone, nil
		}
		list = now
	}
}

// drainLine sums up drains that are under way.
func drainLine(list []control.Drain) string {
	active, inactive := 0, 0
	state, until := control.DrainDrained, time.Time{}
	var left []netip.AddrPort
	for i := range list {
		j := &list[i]
		if j.Over() {
			continue
		}
		active, inactive = active+j.Active, inactive+j.Inactive
		state, until = j.State, j.Deadline
		if !slices.Contains(left, j.Server) {
			left = append(left, j.Server)
		}
	}
	names := make([]string, len(left))
	for i, a := range left {
		names[i] = a.String()
	}
	line := fmt.Sprintf("%s: %s, %d active and %d inactive connections", strings.Join(names, " "), state, active, inactive)
	if !until.IsZero() && state == control.DrainDraining {
		line += fmt.Sprintf(", %s left", max(0, time.Until(until)).Round(time.Second))
	}
	return line
}

func writeDrains(w io.Writer, list []control.Drain) error {
	t := newTable("SERVER", "SERVICE", "STATE", "ACTIVE ", "INACTIVE ", "SINCE ", "NOTE")
	for _, j := range list {
		t.add(j.Server.String(), j.Service.String(), j.State, fmt.Sprint(j.Active), fmt.Sprint(j.Inactive), ago(time.Since(j.Since)), drainNote(&j))
	}
	return t.write(w)
}

func drainNote(j *control.Drain) string {
	var notes []string
	if j.Maintenance && j.State != control.DrainMaintenance {
		notes = append(notes, control.DrainMaintenance)
	}
	if !j.Deadline.IsZero() && !j.Over() {
		notes = append(notes, "until "+j.Deadline.Local().Format(time.TimeOnly)+", then "+j.Then)
	}
	if j.By != "" {
		notes = append(notes, "by "+j.By)
	}
	return strings.Join(notes, ", ")
}

// progress tells how far something is: on a terminal in one line that changes, else
// in a line now and then.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
	at       time.Time
}

// progressEvery is how often a line is written that is not a terminal's.
const progressEvery = 5 * time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

func (p *progress) tell(line string) {
	switch {
	case line == p.last:
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", printable(line))
		p.last = line
	case time.Since(p.at) >= progressEvery:
		fmt.Fprintln(p.w, printable(line))
		p.last, p.at = line, time.Now()
	}
}

func (p *progress) end() {
	if p.terminal && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func newUndrainCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "undrain" + drainArgs,
		Short:   "Put a server back into service",
		Long:    "Undoes vsnat drain: the server gets new connections again, as its weight and its checks say.",
		Example: "  vsnat undrain 10.0.0.3:80",
		Args:    serverAndService,
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := drainSpec(args)
			if err != nil {
				return err
			}
			_, err = r.client().Undrain(c.Context(), spec)
			return err
		},
	}
}

func newMaintenanceCommand(r *remote) *cobra.Command {
	c := &cobra.Command{
		Use:   "maintenance on|off" + drainArgs,
		Short: "Keep a server out of service, whatever its checks say",
		Long: `Keeps a server out of service until it is turned off again, over reloads, drains and
whatever checks say of it. Connections that it has go on; vsnat drain gets rid of them.`,
		Example: `  vsnat maintenance on 10.0.0.3
  vsnat maintenance off 10.0.0.3`,
		ValidArgs: []string{"on", "off"},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] != "on" && args[0] != "off" {
				return fmt.Errorf("say on or off first")
			}
			return serverAndService(c, args[1:])
		},
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := drainSpec(args[1:])
			if err != nil {
				return err
			}
			spec.Maintenance = true
			if args[0] == "on" {
				_, err = r.client().Drain(c.Context(), spec)
			} else {
				_, err = r.client().Undrain(c.Context(), spec)
			}
			return err
		},
	}
	return c
}
