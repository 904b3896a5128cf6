// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand writes the manual. It is there for those who make packages.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages into a folder",
		Long:    "Writes a manual page of section 8 for each command, made of what its --help says.",
		Example: "  vsnat man /usr/local/share/man/man8",
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("folder of the manual: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true // it dates each page
			header := doc.GenManHeader{Title: "VSNAT", Section: "8", Source: "vsnat " + version(), Manual: "vsnat", Date: built()}
			indentBlocks(root)
			if err := doc.GenManTree(root, &header, args[0]); err != nil {
				return fmt.Errorf("manual: %w", err)
			}
			return nil
		},
	}
}

// built is when this program was committed, so that the same source makes the same
// manual; today if nobody knows.
func built() *time.Time {
	now := time.Now()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return &now
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
			return &t
		}
	}
	return &now
}

// indentBlocks has lines that are indented in a help stay lines in the manual, whose
// Markdown wants four blanks.
func indentBlocks(c *cobra.Command) {
	var b strings.Builder
	for line := range strings.Lines(c.Long) {
		if strings.HasPrefix(line, "  ") {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	c.Long = b.String()
	for _, sub := range c.Commands() {
		indentBlocks(sub)
	}
}
