// SPDX-License-Identifier: Apache-2.0

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
