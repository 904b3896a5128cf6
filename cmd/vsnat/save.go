// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newSaveCommand(r *remote) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "save",
		Short: "Print what the director serves now as a configuration",
		Long: `Prints the running configuration, with every change made since the start, as a
file that vsnat run reads. With --file it replaces that file, whole or not at
all; comments in the old one are lost.`,
		Example: "  vsnat save > running.yaml\n  vsnat save --file /etc/vsnat.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := r.client().Config(c.Context())
			if err != nil {
				return err
			}
			if file != "" {
				return replaceFile(file, text)
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "replace this file")
	return c
}

// replaceFile writes to a temporary name beside path and renames it when it
// is safely on disk. The mode of a file that was there stays.
func replaceFile(path, text string) (err error) {
	mode := fs.FileMode(0o644)
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return hinted{fmt.Errorf("%s is not a file", path), "give the path of a configuration file"}
	case err == nil:
		mode = info.Mode().Perm()
	}
	// A link keeps leading to its file.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".vsnat-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
