// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed vsnat.service
var unitTemplate string

type unitOptions struct{ binary, config string }

func newInstallUnitCommand() *cobra.Command {
	var o unitOptions
	c := &cobra.Command{
		Use:   "install-unit",
		Short: "Print a unit that has systemd run the director",
		Long: `Prints a unit of systemd for this binary: it is told when the director serves,
when it reloads and that it is alive, and gives it three capabilities and nothing
else of root. Nothing is written; the place for it is below /etc/systemd/system.`,
		Example: `  vsnat install-unit > /etc/systemd/system/vsnat.service
  systemctl daemon-reload
  systemctl enable --now vsnat`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := o.unit()
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVar(&o.binary, "binary", "", "path of vsnat (default: of this one)")
	c.Flags().StringVarP(&o.config, "config", "c", "/etc/vsnat/vsnat.yaml", "configuration file")
	return c
}

// unit is the unit with both paths filled in.
func (o *unitOptions) unit() (string, error) {
	binary := o.binary
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return "", fmt.Errorf("where this program is: %w", err)
		}
	}
	for _, path := range []string{binary, o.config} {
		if !filepath.IsAbs(path) {
			return "", usageError{fmt.Errorf("%q is no absolute path", path), "systemd runs the service in no folder of yours"}
		}
		if strings.ContainsAny(path, " \t\n\"'\\%$") {
			return "", usageError{fmt.Errorf("%q cannot stand in a unit as it is", path), "choose a path without spaces, quotes, %, $ and backslashes"}
		}
	}
	return strings.NewReplacer("@binary@", binary, "@config@", o.config).Replace(unitTemplate), nil
}
