// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A held lab goes on after the command that built it: its outer process is a
// daemon, and its worker serves a socket in the run directory over which other
// commands run programs in it (remote.go). A user has one at a time, which a lock
// on the base directory ensures; the lock ends with the outer process.

// heldDir and heldSocket are names in the base and the run directory.
const (
	heldDir    = "up"
	heldSocket = "lab.sock"
)

// ErrHeld is returned when this user has a held lab already.
var ErrHeld = errors.New("a lab is up already\nhint: vsnat lab status, vsnat lab down")

// ErrNoneHeld is returned when this user has no held lab.
var ErrNoneHeld = errors.New("no lab is up\nhint: vsnat lab up")

// startWithin is how long a held lab may take until it answers.
const startWithin = 20 * time.Second

// Up starts this program as the daemon of a held lab, with the arguments of a
// command that calls Hold, and returns when that lab answers. Meanwhile, what it
// prints is copied to progress. When it ends instead, that is the error.
func Up(ctx context.Context, progress io.Writer, args ...string) error {
	// Without a name, since the daemon outlives the reader of a pipe, and writing
	// to that would end it.
	var output *os.File
	err := lockBase(func(base string) (err error) {
		if output, err = os.CreateTemp(base, "progress-"); err != nil {
			return err
		}
		return os.Remove(output.Name())
	})
	if err != nil {
		return err
	}
	defer output.Close()

	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()

	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var shown int64
	for {
		more, _ := io.Copy(progress, io.NewSectionReader(output, shown, 1<<20))
		shown += more
		select {
		case <-ended:
			io.Copy(progress, io.NewSectionReader(output, shown, 1<<20))
			return fmt.Errorf("the lab ended with status %d instead of staying up",
				exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)))
		case <-ctx.Done():
			cmd.Process.Signal(unix.SIGTERM)
			<-ended
			return fmt.Errorf("the lab did not come up: %w", context.Cause(ctx))
		case <-tick.C:
		}
		r, err := Open()
		if err != nil {
			continue
		}
		_, err = r.Report()
		r.Close()
		if err == nil {
			io.Copy(progress, io.NewSectionReader(output, shown, 1<<20))
			return nil
		}
	}
}

// Hold is Enter for the daemon of a held lab. What an earlier one may have left,
// whose processes were all killed at once, it removes.
func Hold() (Place, error) {
	if os.Getenv(roleVariable) != "" {
		return Enter("")
	}
	place := Place{Status: exitFailure}
	err := lockBase(func(base string) (err error) {
		dir := filepath.Join(base, heldDir)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		place, err = Enter(dir)
		return err
	})
	return place, err
}

// lockBase calls f with the base directory while this process holds the lock of
// held labs. If another lab's end removed the directory before the lock was had,
// it begins again.
func lockBase(f func(base string) error) error {
	base, err := baseDir()
	if err != nil {
		return err
	}
	d, err := os.Open(base)
	if errors.Is(err, os.ErrNotExist) {
		return lockBase(f)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrHeld
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", base, err)
	}

	locked, err := d.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(base); err != nil || !os.SameFile(locked, there) {
		return lockBase(f)
	}
	return f(base)
}

// Serve answers the commands of a held lab in the run directory of place until
// one of them asks for the end, or ctx does.
func (c *Cluster) Serve(ctx context.Context, place Place) error {
	path := filepath.Join(place.Dir, heldSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(ctx, func() { l.Close() })

	s := server{cluster: c, started: time.Now(), end: end}
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.serve(conn)
	}
}
