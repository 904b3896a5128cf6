// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/importer"
)

type importOptions struct {
	from     string
	configID string
	strict   bool
}

func newImportCommand() *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import FILE...",
		Short: "Make a configuration of those of keepalived, ipvsadm and iptables",
		Long: `Reads keepalived.conf, the output of ipvsadm-save and that of iptables-save, and
prints one configuration that says the same. What cannot be carried over is told
on standard error, a line each: file, line, what, and why. Nothing is changed. "-"
reads standard input.

Lines of a keepalived.conf that hold on one host alone (@NAME) are left out, unless
--config-id says which one it is, as it does for keepalived itself.

With --strict the status is 1 if there is anything of that kind.`,
		Example: `  vsnat import /etc/keepalived/keepalived.conf > vsnat.yaml
  ipvsadm-save -n | vsnat import -
  vsnat import ipvs.rules iptables.rules > vsnat.yaml && vsnat config check vsnat.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.read(c, args) },
	}
	var names []string
	for _, k := range importer.Kinds() {
		names = append(names, string(k))
	}
	c.Flags().StringVar(&o.from, "from", string(importer.Auto), "whose configuration it is: "+strings.Join(names, ", "))
	c.Flags().StringVar(&o.configID, "config-id", "", "host whose lines of a keepalived.conf hold")
	c.Flags().BoolVar(&o.strict, "strict", false, "fail if something cannot be carried over")
	return c
}

func (o *importOptions) read(c *cobra.Command, files []string) error {
	kind := importer.Kind(o.from)
	if !slices.Contains(importer.Kinds(), kind) {
		return usageError{fmt.Errorf("nothing can be imported from %q", o.from), "see vsnat import --help"}
	}
	i := importer.New()
	i.ConfigID = o.configID
	for _, name := range files {
		f, err := readImported(c, name, kind)
		if err != nil {
			return err
		}
		if err := i.Read(f); err != nil {
			return hinted{err, "--from says whose configuration it is"}
		}
	}
	text, notes := i.Result()
	for _, n := range notes {
		fmt.Fprintln(c.ErrOrStderr(), printable(n.String()))
	}
	if _, err := c.OutOrStdout().Write(text); err != nil {
		return err
	}
	if o.strict && len(notes) > 0 {
		return withStatus(exitFailed, nil)
	}
	return nil
}

// readImported reads a file, or standard input, of which there is one.
func readImported(c *cobra.Command, name string, kind importer.Kind) (importer.File, error) {
	if name != "-" {
		return importer.ReadFile(name, kind)
	}
	text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), config.MaxFile+1))
	if err == nil && len(text) > config.MaxFile {
		err = fmt.Errorf("standard input is longer than %d MiB", config.MaxFile>>20)
	}
	return importer.File{Name: "standard input", Text: text, Kind: kind}, err
}
