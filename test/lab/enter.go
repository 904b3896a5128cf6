// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The environment in which a lab's process finds its role and run directory. The
// worker forgets the role, so that a lab may be started within a lab.
const (
	roleVariable = "VSNAT_LAB_ROLE"
	dirVariable  = "VSNAT_LAB_DIR"

	roleInit   = "init"
	roleWorker = "worker"
)

// exitFailure is the status of an outer process or init that could not do its part.
const exitFailure = 125

// graceful is how long a lab may take to end after the first signal.
const graceful = 10 * time.Second

// forwarded are the signals that outer process and init pass on to the worker.
var forwarded = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
}

// A Place is where in a lab this process is, as Enter found it.
type Place struct {
	Inside bool   // the caller is the worker and goes on; else it exits with Status
	Status int    // of the worker, 128+n if it was ended by signal n
	Dir    string // the run directory, mode 0700; it is removed after the worker's end
}

// Enter takes the program into a lab. The process that calls it first starts the
// program again, with the same arguments, in namespaces of its own, waits for its
// end, and gets its status. In there Enter returns a Place that is Inside.
//
// dir is the run directory if the caller has made one; Enter removes it at the
// end. If it is empty, Enter makes one.
//
// Signals that the outer process receives reach the worker; the second interrupt,
// or 10 seconds after the first, ends the lab at once. Errors say which setting
// of the host forbids the namespaces, if one does.
func Enter(dir string) (Place, error) {
	switch os.Getenv(roleVariable) {
	case roleInit:
		status, err := runInit(os.Getenv(dirVariable))
		return Place{Status: status}, err
	case roleWorker:
		os.Unsetenv(roleVariable)
		return Place{Inside: true, Dir: os.Getenv(dirVariable)}, nil
	}

	if dir == "" {
		made, err := newRunDir()
		if err != nil {
			return Place{Status: exitFailure}, err
		}
		dir = made
	}
	status, err := runOuter(dir)
	return Place{Status: status}, errors.Join(err, removeRunDir(dir))
}

// Main is the TestMain of a package whose tests run in a lab: it enters one, and
// in there calls m.Run. A process that was called by the name vsnat or ipvsadm
// (commands of nodes find the test binary so) runs program instead, which may be
// nil. It returns the status to exit with.
func Main(m interface{ Run() int }, program func() int) int {
	if program != nil && isProgramName(os.Args[0]) {
		return program()
	}
	place, err := Enter("")
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return place.Status
	}
	if !place.Inside {
		return place.Status
	}
	return m.Run()
}

// RunDir returns the run directory of the lab that this process is in, or "" if it
// is in none. What is put there goes away with the lab.
func RunDir() string { return os.Getenv(dirVariable) }

// TB is what Start needs of a testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// Start builds a cluster for a test and takes it down after it. The test's
// package must have Main as its TestMain.
func Start(t TB, config Config) *Cluster {
	t.Helper()
	place := Place{Inside: true, Dir: os.Getenv(dirVariable)}
	if place.Dir == "" {
		t.Fatal("lab.Start needs lab.Main as TestMain")
	}
	c, err := Build(place, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("lab: %v", err)
		}
	})
	return c
}

// runOuter starts process 1 of the lab and waits for it.
func runOuter(dir string) (int, error) {
	// The pipe is never written to. Its writing end closes with this process,
	// however it dies.
	lifeline, held, err := os.Pipe()
	if err != nil {
		return exitFailure, err
	}
	defer held.Close()

	cmd := again(roleInit, dir)
	cmd.Stdin = os.Stdin
	cmd.ExtraFiles = []*os.File{lifeline}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		// Out of the terminal's foreground group: a Ctrl-C comes once, from here.
		Setpgid: true,
	}
	if !mayMakeNamespaces() {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}

	// Never given back: a signal that comes after the lab's end must not end this
	// process before the run directory is removed.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)

	err = cmd.Start()
	lifeline.Close()
	if err != nil {
		return exitFailure, explain(fmt.Errorf("new namespaces: %w", err))
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	var limit <-chan time.Time
	for {
		select {
		case s := <-signals:
			if limit != nil && s == unix.SIGINT {
				cmd.Process.Kill()
				continue
			}
			cmd.Process.Signal(s)
			if limit == nil && ends(s) {
				limit = time.After(graceful)
			}
		case <-limit:
			cmd.Process.Kill()
		case <-ended:
			return exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
		}
	}
}

// ends reports whether a signal asks the lab to end.
func ends(s os.Signal) bool { return s != unix.SIGUSR1 && s != unix.SIGUSR2 }

// again prepares this program to be started again in a role.
func again(role, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// mayMakeNamespaces reports whether the process has CAP_SYS_ADMIN and
// CAP_NET_ADMIN where it is, so that it needs no user namespace.
func mayMakeNamespaces() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&needed == needed
}

// exitStatus is the status that a shell would report.
func exitStatus(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}
