// SPDX-License-Identifier: Apache-2.0

/*
Bench compares vsnat with what else can stand in its place.

	go run ./bench compare

builds the reference cluster (package lab), where client, director and three real
servers are namespaces of one machine and share its processors, so that every
wasted cycle of the director shows. In it the peers serve the virtual address one
after the other:

	vsnat          all through user space: packet sockets, offload: none
	vsnat-offload  the same, but the kernel forwards what is in the middle of
	               connections that move much: offload: tcx
	vsnat-tun      io: tun
	kernel         nftables: DNAT to the servers in turn, SNAT
	haproxy        mode tcp, one thread
	nginx          stream, one worker
	forward        the kernel as a plain router, the client asks the servers
	               themselves: what the path costs without any NAT

# How it measures

Machines are noisy, so nothing is believed that was measured once: a round lets
each peer carry each load once, each round begins with another peer, and what
counts are medians of the rounds, and ratios of medians. The spread is printed
beside them: a ratio within it says nothing.

The loads are made here, by this very program in the namespaces of the client and
of the servers (loads.go has the list), so that no other program is needed. If iperf3
or wrk is installed it measures the same once, as a check on ours: rows of that
name. A peer whose program is missing is named with how to install it, and left out.

Beside the load's own figure each run notes what the whole machine spent for one
operation (all processors, /proc/stat), since the work of a kernel's NAT is nobody's
process. Memory is what the peer's process and the kernel hold more than before. With
TCP connections the kernel's part is that of the whole machine, ends included: the row of
forward is what these take alone.

The loads named flows fill the peer's table first. A peer that can't hold as many
connections does not carry them: proxies, which hold TCP alone, with two sockets for
each, and the kernel's NAT beyond nf_conntrack_max, which is the whole machine's and
not ours to change.

A peer must not pay for what the one before has left. Servers remember the ends of
connections for a minute, so forward, which speaks to them by other addresses than all
others, has addresses of the client for itself; the kernel's NAT has its connections
taken away at the end of its turn.

# Files

	main.go       commands
	compare.go    rounds
	bed.go        the cluster, and what runs in its nodes
	usage.go      processor time and memory
	peers.go      who is compared
	loads.go      what they carry
	held.go       connections that are held
	client_*.go   load generators, in the client
	server.go     what answers, in the servers
	report.go     medians and ratios
	page.go       tables, for a terminal and for README
	picture.go    the same as SVG
	compare.*     what was measured last, as README shows it
*/
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/test/lab"
)

func main() {
	root := newRootCommand()
	if !measures(os.Args) {
		// One thread, as the programs have that people measure with: a second one
		// only looks for work where the director wants to do some.
		runtime.GOMAXPROCS(1)
		os.Exit(status(root.Execute()))
	}
	source, err := sourceDir()
	if err != nil {
		os.Exit(status(err))
	}
	os.Exit(lab.MainBuilt(command{root}, source))
}

// measures reports whether a command line needs a lab: the helpers in its nodes are
// in one, and help needs none.
func measures(args []string) bool {
	return len(args) > 1 && args[1] == "compare" && !slices.Contains(args, "-h") && !slices.Contains(args, "--help")
}

// command is what runs in the lab.
type command struct{ root *cobra.Command }

func (c command) Run() int { return status(c.root.Execute()) }

func status(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// sourceDir is where the program to measure is built from.
func sourceDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", errors.New("the source of vsnat is not here\nhint: cd to its checkout; go run ./bench compare")
	}
	return filepath.Join(strings.TrimSpace(string(out)), "cmd", "vsnat"), nil
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Compare vsnat with the kernel's NAT and with proxies",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newCompareCommand(), newClientCommand(), newServerCommand())
	return root
}

func newCompareCommand() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Let each peer carry each load, in turns, and print medians and ratios",
		Example: `  go run ./bench compare
  go run ./bench compare --rounds 3 --peers vsnat,kernel --loads bulk-up,requests
  go run ./bench compare -o json --svg bench/compare.svg --page README.md > bench/compare.json
  go run ./bench compare --from bench/compare.json -o markdown`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return compare(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", 5, "how often each peer carries each load, 1 to 100")
	f.Float64Var(&o.seconds, "seconds", 1, "how long a load lasts, 0.1 to 60")
	f.StringSliceVar(&o.peers, "peers", nil, "who is compared (default: all that are installed): "+strings.Join(peerNames(), ","))
	f.StringSliceVar(&o.loads, "loads", nil, "what they carry (default: all): "+strings.Join(loadNames(), ","))
	f.StringVarP(&o.output, "output", "o", "text", "text, json or markdown")
	f.StringVar(&o.svg, "svg", "", "write a picture of the ratios to this file")
	f.StringVar(&o.page, "page", "", "write the markdown between <!-- bench --> and <!-- /bench --> of this file")
	f.StringSliceVar(&o.from, "from", nil, "measure nothing, but read what -o json wrote; several files are of different loads")
	return cmd
}
