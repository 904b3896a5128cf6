// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// labSteps prints what the lab does, a line for each step, and remembers whether
// one has failed.
type labSteps struct {
	out    io.Writer
	live   bool // out is a terminal: a step is shown while it runs
	failed bool
}

func newLabSteps(out io.Writer) *labSteps {
	s := &labSteps{out: out}
	if f, ok := out.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		s.live = err == nil
	}
	return s
}

// do runs one step. f returns what to say of its success; its error is printed
// with the step's name and returned.
func (s *labSteps) do(name string, f func() (string, error)) error {
	if s.live {
		fmt.Fprintf(s.out, "  … %s", name)
	}
	detail, err := f()
	if s.live {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
	if err != nil {
		s.failed = true
		fmt.Fprintf(s.out, "  ✗ %s: %s\n", name, indentRest(err.Error()))
		return err
	}
	if detail != "" {
		detail = ": " + detail
	}
	fmt.Fprintf(s.out, "  ✓ %s%s\n", name, detail)
	return nil
}

// section opens a part of the output.
func (s *labSteps) section(format string, args ...any) {
	fmt.Fprintf(s.out, "\n"+format+"\n", args...)
}

// line prints a line of a part.
func (s *labSteps) line(format string, args ...any) {
	fmt.Fprintf(s.out, "    "+format+"\n", args...)
}

// indentRest puts the lines after the first under the step they belong to.
func indentRest(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ")
}
