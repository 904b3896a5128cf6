// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/sched"
	"github.com/vsnat/vsnat/test/lab"
)

// labOptions are the flags that say what a lab is built of.
type labOptions struct {
	servers   int
	clients   int
	vip       string
	oneArm    bool
	router    bool
	far       bool
	ipv6      bool
	scheduler string
	io        string
	empty     bool   // lab up only
	file      string // lab up only: the director's configuration, an absolute path
}

// pageURL is where the page at a node's or the virtual address is found.
func pageURL(addr netip.Addr) string {
	if addr.Is6() {
		return fmt.Sprintf("http://[%v]/", addr)
	}
	return fmt.Sprintf("http://%v/", addr)
}

// config returns the cluster that the flags describe.
func (o labOptions) config() (lab.Config, error) {
	host, err := lab.ParseHostAddresses(o.vip)
	if err != nil {
		return lab.Config{}, err
	}
	// For lab.Config 0 is the default; a user who says 0 means none.
	if o.servers < 1 || o.clients < 1 {
		return lab.Config{}, fmt.Errorf("a lab needs a real server and a client at least")
	}
	if o.scheduler != "" && !slices.Contains(sched.Names(), o.scheduler) {
		return lab.Config{}, usageError{fmt.Errorf("unknown scheduler %q", o.scheduler), "one of: " + strings.Join(sched.Names(), ", ")}
	}
	if o.io != "" && o.io != string(config.IOPacket) && o.io != string(config.IOTUN) {
		return lab.Config{}, usageError{fmt.Errorf("--io can't be %q", o.io), "packet or tun"}
	}
	if host == lab.HostBare && o.io == string(config.IOTUN) {
		return lab.Config{}, hinted{
			fmt.Errorf("--io tun needs a host with addresses: with --vip bare it has none to route by"),
			"leave out one of the two",
		}
	}
	return lab.Config{
		Servers: o.servers,
		Clients: o.clients,
		Host:    host,
		OneArm:  o.oneArm,
		Router:  o.router,
		Far:     o.far,
		IPv6:    o.ipv6,
	}, nil
}

// director returns the configuration file of the lab's director.
func (o labOptions) director(c lab.Config) string {
	if o.file != "" {
		return fmt.Sprintf("include: [%q]\n", o.file) + c.EmptyDirectorConfig(o.io)
	}
	if o.empty {
		return c.EmptyDirectorConfig(o.io)
	}
	return c.DirectorConfig(o.scheduler, o.io)
}

// register adds the flags to a command that builds or draws a lab.
func (o *labOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.servers, "servers", 3, "number of real servers")
	f.IntVar(&o.clients, "clients", 1, "number of clients")
	f.StringVar(&o.vip, "vip", lab.HostBesideVIP.String(),
		"where the director's host has the VIP: none (vsnat owns it), nic, lo, or bare (the host has no address at all)")
	f.BoolVar(&o.oneArm, "one-arm", false, "all nodes on one link, the director with one NIC")
	f.BoolVar(&o.router, "router", false, "a router between client and director")
	f.BoolVar(&o.far, "far", false, "one more host behind the client, 203.0.113.9 or 2001:db8:113::9")
	f.BoolVar(&o.ipv6, "ipv6", false, "the same cluster in IPv6")
}

// registerDirector adds the flags about the lab's director.
func (o *labOptions) registerDirector(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.scheduler, "scheduler", "s", "rr", "scheduler of the service")
	f.StringVar(&o.io, "io", "", "how the director reads and writes packets: packet or tun (default: as vsnat run)")
}

// newLabCommand is `vsnat lab`, which shows a whole cluster at work, and the
// commands below it, which keep one.
func newLabCommand() *cobra.Command {
	var o labOptions
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Build the reference cluster in namespaces and show it at work",
		Long: `Lab builds a client, a director and real servers out of network namespaces,
without root (in a new user namespace) or with it, and runs vsnat in the middle.
It requests the virtual address again and again, opens a connection from a real
server to the outside, prints what ipvsadm says, and removes everything.

"vsnat lab up" builds the same and keeps it for "vsnat lab exec" until
"vsnat lab down".`,
		Example: `  vsnat lab
  vsnat lab --servers 5 --scheduler wlc
  vsnat lab --ipv6
  vsnat lab up
  vsnat lab exec client -- curl -s http://192.168.88.23/
  vsnat lab exec director -- ipvsadm -L -n
  vsnat lab down`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return runLabDemo(cmd, o)
		},
	}
	o.register(cmd)
	o.registerDirector(cmd)
	cmd.AddCommand(
		newLabUpCommand(),
		newLabHoldCommand(),
		newLabExecCommand(),
		newLabStatusCommand(),
		newLabDownCommand(),
		newLabDrawCommand(),
	)
	return cmd
}

// newLabDrawCommand is `vsnat lab draw`.
func newLabDrawCommand() *cobra.Command {
	var o labOptions
	cmd := &cobra.Command{
		Use:     "draw",
		Short:   "Draw the topology of a lab",
		Example: "  vsnat lab draw --servers 2 --router --far",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			c, err := o.config()
			if err != nil {
				return err
			}
			picture, err := lab.Draw(c)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), picture)
			return nil
		},
	}
	o.register(cmd)
	return cmd
}

// An exitStatus ends vsnat with a status of its own. main prints the error, if
// its text is not empty, and exits with ExitStatus.
type exitStatus struct {
	status int
	err    error // nil: whoever had the status has said all there was to say
}

// Error returns the text of the error, or nothing.
func (s exitStatus) Error() string {
	if s.err == nil {
		return ""
	}
	return s.err.Error()
}

// Unwrap returns the error.
func (s exitStatus) Unwrap() error { return s.err }

// ExitStatus returns the status to exit with, 1 to 255.
func (s exitStatus) ExitStatus() int { return s.status }

// withStatus adds a status to an error. Both may be absent: 0 and nil.
func withStatus(status int, err error) error {
	if status == 0 {
		return err
	}
	return exitStatus{status, err}
}
