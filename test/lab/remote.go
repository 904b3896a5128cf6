// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// On the socket of a held lab the client sends one byte, with the descriptors of
// its standard input, output and error beside it, then a request, and for a
// running command any number of signals; all JSON. The server sends one answer.

const (
	opExec   = "exec"
	opReport = "report"
	opDown   = "down"
)

// A request asks a held lab for one thing.
type request struct {
	Op   string
	Node string   `json:",omitempty"`
	Argv []string `json:",omitempty"`
	Env  []string `json:",omitempty"`
	Dir  string   `json:",omitempty"`
}

// A forward is a signal for the running command.
type forward struct{ Signal syscall.Signal }

// An answer ends a request.
type answer struct {
	Status int     // of the command, as a shell would report it
	Error  string  `json:",omitempty"`
	Report *Report `json:",omitempty"`
}

// A Report says what a held lab consists of.
type Report struct {
	Started  time.Time
	Config   Config
	Socket   string // the director's control socket
	Director string // "running, process 12", "ended with status 1"
	Nodes    []NodeReport
}

// A NodeReport is one node of a Report.
type NodeReport struct {
	Name  string
	Links []string // "eth0 192.168.88.20/24"
}

// A Remote is a connection to the held lab of this user, for one call of Exec,
// Report or Down.
type Remote struct{ conn *net.UnixConn }

// Open connects to the held lab of this user. The error says if there is none.
func Open() (*Remote, error) {
	base := basePath()
	if err := checkBase(base); errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoneHeld
	} else if err != nil {
		return nil, err
	}
	path := filepath.Join(base, heldDir, heldSocket)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNoneHeld
	}
	if err != nil {
		return nil, fmt.Errorf("ask the lab: %w", err)
	}
	return &Remote{conn}, nil
}

// Close ends the connection, and a command that still runs over it.
func (r *Remote) Close() error { return r.conn.Close() }

// Exec runs a program in a node, with the standard files, environment and working
// directory of this process, and returns its status. Signals that this process
// gets meanwhile reach the program's process group.
func (r *Remote) Exec(node string, argv []string) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append(forwarded, unix.SIGWINCH)...)
	defer signal.Stop(signals)
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	go func() {
		for s := range signals {
			json.NewEncoder(r.conn).Encode(forward{s.(syscall.Signal)})
		}
	}()
	a, err := r.ask(request{Op: opExec, Node: node, Argv: argv, Env: os.Environ(), Dir: dir})
	return a.Status, err
}

// Report asks the lab what it is.
func (r *Remote) Report() (Report, error) {
	r.conn.SetDeadline(time.Now().Add(startWithin))
	a, err := r.ask(request{Op: opReport})
	if err != nil || a.Report == nil {
		return Report{}, errors.Join(err)
	}
	return *a.Report, nil
}

// Down ends the lab and returns when nothing of it is left.
func (r *Remote) Down() error {
	r.conn.SetDeadline(time.Now().Add(startWithin))
	if _, err := r.ask(request{Op: opDown}); err != nil {
		return err
	}
	for end := time.Now().Add(graceful + startWithin); ; time.Sleep(20 * time.Millisecond) {
		err := lockBase(func(base string) error {
			os.Remove(base) // if empty
			return nil
		})
		if !errors.Is(err, ErrHeld) {
			return err
		}
		if time.Now().After(end) {
			return errors.New("the lab was told to end but has not ended")
		}
	}
}

// ask sends a request and waits for the answer.
func (r *Remote) ask(q request) (answer, error) {
	files := unix.UnixRights(0, 1, 2)
	if _, _, err := r.conn.WriteMsgUnix([]byte{0}, files, nil); err != nil {
		return answer{}, fmt.Errorf("ask the lab: %w", err)
	}
	if err := json.NewEncoder(r.conn).Encode(q); err != nil {
		return answer{}, fmt.Errorf("ask the lab: %w", err)
	}
	var a answer
	if err := json.NewDecoder(r.conn).Decode(&a); err != nil {
		return answer{Status: exitFailure}, fmt.Errorf("the lab ended: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
