// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/ipvsadm"
)

func main() {
	os.Exit(program(os.Args, streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// program is the whole of vsnat: it runs one command line and returns the
// status to exit with: 0, 1 (it did not work), 2 (not understood) or what the
// command itself chose.
func program(args []string, std streams) int {
	// The name it was called by, not that of the file: one binary, four names.
	if len(args) > 0 && ipvsadm.IsName(filepath.Base(args[0])) {
		return runIpvsadm(args, "", std)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	// The second signal ends the program at once, as if it had not been caught.
	context.AfterFunc(ctx, stop)
	return execute(ctx, newRootCommand(std, director.Run), args, std)
}

// runIpvsadm is the ipvsadm personality; args[0] says which of the three tools.
// It has no signal handling of its own: a signal just ends it.
func runIpvsadm(args []string, socket string, std streams) int {
	return ipvsadm.Main(args, std.in, std.out, std.err, func() (ipvsadm.Director, error) {
		return ipvsadm.Adapt(context.Background(), control.NewClient(socket)), nil
	})
}
