// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Messages go to standard error, each line with the program's name before it:
// what is wrong, without a capital and a full stop, and on a line of its own
// the next step.
//
//	vsnat: vsnat.yaml:4:16: unknown scheduler "rrr"
//	vsnat: hint: did you mean rr? one of: dh, fo, lblc, lblcr, lc, mh, nq, ovf, rr, sed, sh, twos, wlc, wrr

// Exit statuses. Commands may choose another (ExitStatus).
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that is not understood.
type usageError struct {
	error
	hint string
}

func (e usageError) Hint() string    { return e.hint }
func (e usageError) ExitStatus() int { return exitUsage }
func (e usageError) Unwrap() error   { return e.error }

// hinted is any other error with a next step.
type hinted struct {
	error
	hint string
}

func (e hinted) Hint() string  { return e.hint }
func (e hinted) Unwrap() error { return e.error }

// execute runs one command line and tells what went wrong.
func execute(ctx context.Context, root *cobra.Command, args []string, std streams) int {
	// What fails before a command's own code was not understood: flags and
	// the number of arguments.
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetArgs(args[min(1, len(args)):])
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if local := (interface{ Hint() string })(nil); !understood && !errors.As(err, &local) {
		err = usageError{err, "see " + c.CommandPath() + " --help"}
	}
	report(std.err, err)
	var chosen interface{ ExitStatus() int }
	if errors.As(err, &chosen) {
		return chosen.ExitStatus()
	}
	return exitFailed
}

// report tells an error and its hint.
func report(w io.Writer, err error) {
	var wrong *config.Error
	if errors.As(err, &wrong) {
		for _, p := range wrong.Problems {
			say(w, p.String(), p.Hint)
		}
		if wrong.More > 0 {
			say(w, fmt.Sprintf("and %d more", wrong.More), "")
		}
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the one who pressed ^C knows
	}
	hint := ""
	var local interface{ Hint() string }
	var refused *control.Error
	switch {
	case errors.As(err, &local):
		hint = local.Hint()
	case errors.As(err, &refused):
		hint = refused.Hint
	}
	say(w, err.Error(), hint)
}

// say writes a message and its hint, neither of which can command a terminal.
// A message of several lines, as a director tells of its configuration file,
// may have hints of its own.
func say(w io.Writer, message, hint string) {
	for line := range strings.SplitSeq(message, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(w, "vsnat: %s\n", printable(line))
		}
	}
	if hint != "" {
		fmt.Fprintf(w, "vsnat: hint: %s\n", printable(hint))
	}
}

// printable is a text with everything that is not a visible character written
// as an escape: names and reasons may come from the network.
func printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(fmt.Sprintf("%+q", r), "'"))
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }
