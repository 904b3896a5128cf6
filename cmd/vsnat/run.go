// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director"
)

type runOptions struct {
	remote *remote
	run    runFunc
	file   string
}

func newRunCommand(r *remote, run runFunc) *cobra.Command {
	o := runOptions{remote: r, run: run}
	c := &cobra.Command{
		Use:   "run",
		Short: "Be the director: serve until a signal comes",
		Long: `Serves what the configuration says until SIGTERM or SIGINT, and then gives
everything back to the host. SIGHUP (or vsnat reload) reads the configuration
again; connections of what stays are not touched.

Without a configuration it starts empty, to be filled with vsnat service add
or ipvsadm.`,
		Example: `  vsnat run -c /etc/vsnat.yaml
  vsnat run --socket /tmp/lab.sock`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.serve(c) },
	}
	c.Flags().StringVarP(&o.file, "config", "c", "", "configuration file")
	return c
}

func (o *runOptions) serve(c *cobra.Command) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	defer func() { signal.Stop(hangup); close(hangup) }()
	reload := make(chan struct{}, 1)
	go func() {
		for range hangup {
			select {
			case reload <- struct{}{}:
			default: // one is waiting already, and will read the newest file
			}
		}
	}()
	return o.run(c.Context(), director.Options{
		ConfigFile: o.file,
		Socket:     o.remote.socket,
		Reload:     reload,
		Version:    version(),
		Reaper:     reaperArgs(),
		Scripts:    scriptsArgs(),
	})
}
