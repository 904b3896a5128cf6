// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// remote is where a command finds the running director.
type remote struct{ socket string }

func (r *remote) client() *control.Client { return control.NewClient(r.socket) }

// runFunc serves packets: director.Run.
type runFunc func(context.Context, director.Options) error

// Groups of commands in the help.
const (
	groupServe  = "serve"
	groupChange = "change"
	groupLook   = "look"
)

func newRootCommand(std streams, run runFunc) *cobra.Command {
	r := &remote{}
	root := &cobra.Command{
		Use:   "vsnat",
		Short: "LVS-NAT without the kernel module",
		Long: `Vsnat turns this host into the director of a VS/NAT cluster: it takes new
connections to a virtual address, chooses a real server for each, and rewrites
the packets both ways. It needs no kernel module.

  vsnat config init > vsnat.yaml    a configuration to start from
  vsnat run -c vsnat.yaml           serve
  vsnat service list                see it work, from another terminal`,
		Example: `  vsnat lab                  the whole cluster on this machine, without root
  vsnat run -c vsnat.yaml
  vsnat service add tcp 192.168.88.23:80 --scheduler rr
  vsnat server add tcp 192.168.88.23:80 10.0.0.2:80
  vsnat ipvsadm -L -n`,
		Args:          cobra.ArbitraryArgs,
		RunE:          runGroup,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&r.socket, "socket", "", "control socket of the director (default $"+control.SocketVariable+", else /run/vsnat/control.sock or the user's own)")
	root.AddGroup(
		&cobra.Group{ID: groupServe, Title: "Serve:"},
		&cobra.Group{ID: groupChange, Title: "Change what is served:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		groupServe: {
			newRunCommand(r, run),
			newConfigCommand(),
			newImportCommand(),
			newInstallUnitCommand(),
			newLabCommand(),
		},
		groupChange: {
			newServiceCommand(r),
			newServerCommand(r),
			newSNATCommand(r),
			newMarkCommand(r),
			newDrainCommand(r),
			newUndrainCommand(r),
			newMaintenanceCommand(r),
			newSetCommand(r),
			newReloadCommand(r),
			newApplyCommand(r),
			newConfirmCommand(r),
			newRollbackCommand(r),
			newSaveCommand(r),
			newIpvsadmCommand(r, std),
		},
		groupLook: {
			newStatusCommand(r),
			newHealthCommand(r),
			newDoctorCommand(r),
			newDiffCommand(r),
			newConnCommand(r),
			newStatsCommand(r),
			newEventsCommand(r),
			newMetricsCommand(r),
			newDebugCommand(r),
			newProcCommand(r),
			newSimCommand(),
		},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCommand(), newManCommand(), newReaperCommand(), newScriptsCommand())
	root.SetFlagErrorFunc(unknownFlag)
	addCompletions(root, r)
	return root
}

// newGroup is a command that only has commands below it.
func newGroup(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs, RunE: runGroup}
	c.AddCommand(commands...)
	return c
}

// runGroup shows the help of a command that only has commands below it, or
// says that the one named is not among them.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := "one of: " + strings.Join(names, ", ")
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		best := near[0]
		for _, n := range near { // the beginning of a name says more than two letters in common
			if strings.HasPrefix(n, args[0]) {
				best = n
			}
		}
		hint = fmt.Sprintf("did you mean %s %s? %s", c.CommandPath(), best, hint)
	}
	return usageError{fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()), hint}
}

// newIpvsadmCommand is the ipvsadm personality for a binary called vsnat.
func newIpvsadmCommand(r *remote, std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "ipvsadm [options]",
		Short: "Speak the language of ipvsadm",
		Long: `Understands the command line of ipvsadm and prints what it would print. The same
happens when the program is called ipvsadm, ipvsadm-save or ipvsadm-restore:

  ln -s "$(command -v vsnat)" /usr/local/sbin/ipvsadm`,
		Example: `  vsnat ipvsadm -L -n
  vsnat ipvsadm -A -t 192.168.88.23:80 -s rr
  vsnat ipvsadm -a -t 192.168.88.23:80 -r 10.0.0.2:80 -m`,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			args = takeSocket(r, args)
			status := runIpvsadm(append([]string{"ipvsadm"}, args...), r.socket, std)
			return withStatus(status, nil)
		},
	}
}

// takeSocket takes a --socket that stood before the command's name off the
// arguments; with flag parsing off, cobra leaves it there.
func takeSocket(r *remote, args []string) []string {
	if len(args) > 0 {
		if path, ok := strings.CutPrefix(args[0], "--socket="); ok {
			r.socket = path
			return args[1:]
		}
	}
	if len(args) > 1 && args[0] == "--socket" {
		r.socket = args[1]
		return args[2:]
	}
	return args
}
