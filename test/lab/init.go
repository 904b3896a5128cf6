// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lifelineFD is where init finds the reading end of the outer process's pipe.
const lifelineFD = 3

// runInit is process 1 of the lab: it starts the worker, reaps orphans, and
// returns the worker's status. When the worker or the outer process has ended, it
// kills all others and removes the run directory; the kernel does the rest.
func runInit(dir string) (int, error) {
	unix.CloseOnExec(lifelineFD)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)

	if err := privateMounts(); err != nil {
		return exitFailure, explain(err)
	}
	cmd := again(roleWorker, dir)
	cmd.Stdin = os.Stdin
	if err := cmd.Start(); err != nil {
		return exitFailure, err
	}
	worker := cmd.Process.Pid

	// The others go first, or they might make files meanwhile. Two may come here at
	// once; neither goes on, to end the process, before the files are gone.
	clean := sync.OnceFunc(func() {
		unix.Kill(-1, unix.SIGKILL) // all in this PID namespace, but not process 1
		removeRunDir(dir)
	})
	go func() {
		io.Copy(io.Discard, os.NewFile(lifelineFD, "lifeline"))
		clean()
		os.Exit(128 + int(unix.SIGKILL))
	}()
	go func() {
		for s := range signals {
			// Not cmd.Process.Signal: that needs cmd.Wait to know of the end, and
			// the loop below waits for all.
			unix.Kill(worker, s.(syscall.Signal))
		}
	}()

	for {
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return exitFailure, fmt.Errorf("wait: %w", err)
		case pid == worker:
			clean()
			return exitStatus(w), nil
		}
	}
}

// privateMounts gives the lab a view of the processes of its own.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	// Where parts of the host's /proc are hidden (containers), the kernel refuses
	// a new one. The lab works with the host's: only process numbers look odd.
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", "/proc", "proc", flags, ""); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
