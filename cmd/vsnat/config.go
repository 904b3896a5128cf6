// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
)

func newConfigCommand() *cobra.Command {
	return newGroup("config", "Write and check configurations",
		"  vsnat config init > vsnat.yaml\n  vsnat config check vsnat.yaml",
		newConfigInitCommand(), newConfigCheckCommand(), newConfigSchemaCommand())
}

type configInitOptions struct{ reference bool }

func newConfigInitCommand() *cobra.Command {
	var o configInitOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Print a configuration to start from",
		Long: `Prints the configuration of a small cluster, and below it every key there is
with its meaning, as comments. With --reference these are no comments, but a
configuration that says all there is to say.`,
		Example: "  vsnat config init > vsnat.yaml\n  vsnat config init --reference | less",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text := config.Minimal() + "\n" + commented(config.Reference())
			if o.reference {
				text = config.Reference()
			}
			_, err := io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().BoolVar(&o.reference, "reference", false, "print every key there is, and what it means")
	return c
}

// commented makes a comment of each line of a configuration that is none.
func commented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if word := strings.TrimSpace(line); word != "" && word[0] != '#' {
			b.WriteByte('#')
		}
		b.WriteString(line)
	}
	return b.String()
}

func newConfigCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a configuration is right, and where it is not",
		Long: `Reads a configuration as vsnat run would, with the files that it includes and the
environment, and tells everything that is wrong with it, each with file, line and
column. "-" reads standard input. The status is 0 if it is right and 1 if not.`,
		Example: "  vsnat config check vsnat.yaml && vsnat reload",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := readConfig(c, args[0])
			if err != nil {
				return err
			}
			servers := 0
			for _, s := range cfg.Services {
				servers += len(s.Servers)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is right: %s, %s, %s\n", printable(args[0]),
				plural(len(cfg.Services), "service"), plural(servers, "server"), plural(len(cfg.SNAT), "SNAT rule"))
			return err
		},
	}
}

// readConfig reads a file, or standard input for "-".
func readConfig(c *cobra.Command, path string) (*config.Config, error) {
	if path != "-" {
		return config.Read(path)
	}
	return config.ReadFrom("standard input", c.InOrStdin())
}

func newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON Schema of the configuration, for editors",
		Long: `Prints a JSON Schema of the configuration. An editor that knows it completes keys,
explains them and marks mistakes. Editors with the YAML language server look for it
where a first line of the configuration says:

  # yaml-language-server: $schema=vsnat.schema.json`,
		Example: "  vsnat config schema > vsnat.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}
