// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

func newDebugCommand(r *remote) *cobra.Command {
	return newGroup("debug", "Look into the director's process", "  vsnat debug pprof goroutine --text", newPprofCommand(r))
}

func newPprofCommand(r *remote) *cobra.Command {
	names := control.ProfileNames()
	var span time.Duration
	var text bool
	c := &cobra.Command{
		Use:   "pprof NAME",
		Short: "Take a profile of the running director",
		Long: `Takes a profile of the running director and writes it to standard output, for
go tool pprof or, of a trace, go tool trace. The names are those of Go: ` + strings.Join(names, ", ") + `.`,
		Example: `  vsnat debug pprof profile --for 30s > cpu.pb.gz && go tool pprof -top cpu.pb.gz
  vsnat debug pprof goroutine --text`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		RunE: func(c *cobra.Command, args []string) error {
			if span < 0 || span%time.Second != 0 || span > control.MaxProfile {
				return usageError{fmt.Errorf("--for %v is not a number of seconds up to %v", span, control.MaxProfile), "for example --for 30s"}
			}
			if !text && terminal(c.OutOrStdout()) {
				return hinted{fmt.Errorf("a profile is not for terminals"), "write it to a file with >, or read it with --text"}
			}
			return r.client().Profile(c.Context(), args[0], span, text, c.OutOrStdout())
		},
	}
	c.Flags().DurationVar(&span, "for", 0, "how long profile and trace take (default 10s)")
	c.Flags().BoolVar(&text, "text", false, "as text (not profile and trace)")
	return c
}

// terminal reports whether somebody may be reading what is written.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
