// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/test/lab"
)

// newLabUpCommand is `vsnat lab up`.
func newLabUpCommand() *cobra.Command {
	var o labOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a lab and keep it running",
		Example: `  vsnat lab up --servers 2
  vsnat lab up --empty
  vsnat lab up -c vsnat.yaml
  vsnat lab exec director -- ipvsadm -A -t 192.168.88.23:80 -s rr`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			cluster, err := o.config()
			if err != nil {
				return err
			}
			if o.file != "" {
				path, err := filepath.Abs(o.file)
				if err == nil {
					_, err = config.Read(path)
				}
				if err != nil {
					return err
				}
				cmd.Flags().Set("config", path)
			}
			args := []string{"lab", "hold"}
			cmd.Flags().Visit(func(f *pflag.Flag) {
				args = append(args, "--"+f.Name+"="+f.Value.String())
			})
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			if err := lab.Up(ctx, cmd.OutOrStdout(), args...); err != nil {
				return err
			}
			url := pageURL(cluster.VIP())
			if cluster.IPv6 {
				url = "-g '" + url + "'" // brackets mean something to shells and to curl
			}
			fmt.Fprintf(cmd.OutOrStdout(), `
The lab is up:
  vsnat lab exec client -- curl -s %s
  vsnat lab exec director -- ipvsadm -L -n
  vsnat lab status
  vsnat lab down
`, url)
			return nil
		},
	}
	o.registerUp(cmd)
	return cmd
}

func (o *labOptions) registerUp(cmd *cobra.Command) {
	o.register(cmd)
	o.registerDirector(cmd)
	cmd.Flags().BoolVar(&o.empty, "empty", false, "start the director without services and SNAT")
	cmd.Flags().StringVarP(&o.file, "config", "c", "", "the director's configuration, instead of the lab's own; vsnat reload reads it again")
	cmd.MarkFlagsMutuallyExclusive("empty", "config")
}

// newLabHoldCommand is the daemon behind `vsnat lab up`.
func newLabHoldCommand() *cobra.Command {
	var o labOptions
	cmd := &cobra.Command{
		Use:    "hold",
		Short:  "Keep a lab running in the foreground (started by lab up)",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return runLabHold(cmd, o)
		},
	}
	o.registerUp(cmd)
	return cmd
}

func runLabHold(cmd *cobra.Command, o labOptions) (err error) {
	config, err := o.config()
	if err != nil {
		return err
	}
	place, err := lab.Hold()
	if err != nil || !place.Inside {
		return withStatus(place.Status, err)
	}

	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	log, err := os.Create(filepath.Join(place.Dir, "director.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	steps := newLabSteps(cmd.OutOrStdout())
	cluster, err := buildCluster(ctx, steps, place, config)
	if cluster != nil {
		defer func() { err = errors.Join(err, cluster.Close()) }()
	}
	if err != nil {
		return exitStatus{status: 1}
	}
	_, err = startDirector(ctx, steps, cluster, lab.DirectorOptions{Config: o.director(cluster.Config), Log: log})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		fmt.Fprintf(cmd.ErrOrStderr(), "%s", text)
		return exitStatus{status: 1}
	}
	return cluster.Serve(ctx, place)
}

// newLabExecCommand is `vsnat lab exec`.
func newLabExecCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NODE [--] COMMAND [ARGUMENT…]",
		Short: "Run a command in a node of the lab that is up",
		Long: `Exec runs a command in a node: client, director, rs1, rs2, … It has the standard
input and output, environment, working directory and signals of this one, and
vsnat ends with its status. On its PATH, vsnat and ipvsadm are this program, and
they talk to the lab's director.`,
		Example: `  vsnat lab exec client -- curl -s http://192.168.88.23/
  vsnat lab exec rs1 -- sh
  vsnat lab exec director -- ipvsadm -L -n`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, argv := args[0], args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			return withLab(cmd, func(r *lab.Remote) error {
				status, err := r.Exec(node, argv)
				return withStatus(status, err)
			})
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows NODE is the command's
	return cmd
}

// newLabStatusCommand is `vsnat lab status`.
func newLabStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the lab that is up",
		Example: "  vsnat lab status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withLab(cmd, func(r *lab.Remote) error { return showLab(cmd.OutOrStdout(), r) })
		},
	}
}

// showLab draws the lab and lists its nodes.
func showLab(out io.Writer, r *lab.Remote) error {
	report, err := r.Report()
	if err != nil {
		return err
	}
	picture, err := lab.Draw(report.Config)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "up for %v\n\n%s\n", time.Since(report.Started).Round(time.Second), picture)
	fmt.Fprintf(out, "director  %s\nsocket    %s\n\n", report.Director, report.Socket)
	for _, n := range report.Nodes {
		fmt.Fprintf(out, "%-10s%s\n", n.Name, strings.Join(n.Links, ", "))
	}
	return nil
}

// newLabDownCommand is `vsnat lab down`.
func newLabDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "End the lab that is up and remove all of it",
		Example: "  vsnat lab down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withLab(cmd, (*lab.Remote).Down)
		},
	}
}

// withLab runs f on the lab that is up.
func withLab(cmd *cobra.Command, f func(*lab.Remote) error) error {
	cmd.SilenceUsage = true
	r, err := lab.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return f(r)
}
