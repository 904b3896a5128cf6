// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The pipe to the reaper carries one JSON value per line: what is to be undone as
// of now, or reaperDone. Its end without that means that we died. The reaper says
// reaperReady when no signal but a deadly one ends it any more.
const (
	reaperDone  = `"done"`
	reaperReady = "ready\n"
)

// tunHostReaper is the child that puts the host back when we die.
type tunHostReaper struct {
	command *exec.Cmd
	pipe    io.WriteCloser
}

// startTUNHostReaper gives the child the lock as well, so that nobody opens a
// TUNHost before it is done. It has a session of its own: what ends our process
// group does not end it.
func startTUNHostReaper(argv []string, lock *os.File) (*tunHostReaper, error) {
	command := exec.Command(argv[0], argv[1:]...)
	command.Stderr = os.Stderr
	command.ExtraFiles = []*os.File{lock}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, errIn := command.StdinPipe()
	out, errOut := command.StdoutPipe()
	err := errors.Join(errIn, errOut)
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the process that cleans up after a crash: %w", err)
	}
	r := &tunHostReaper{command: command, pipe: pipe}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != reaperReady {
		r.abandon()
		return nil, fmt.Errorf("%s, which is to clean up after a crash, says %q", argv[0], line)
	}
	return r, nil
}

func (r *tunHostReaper) tell(u tunHostUndo) error {
	b, err := json.Marshal(u)
	if err == nil {
		_, err = r.pipe.Write(append(b, '\n'))
	}
	return err
}

// dismiss ends the reaper without work and waits for it.
func (r *tunHostReaper) dismiss() error {
	_, err := io.WriteString(r.pipe, reaperDone+"\n")
	r.pipe.Close()
	if wait := r.command.Wait(); err == nil && wait != nil {
		return fmt.Errorf("the process that cleans up after a crash: %w", wait)
	}
	return nil
}

// abandon lets the reaper do its work, as if we had died, and waits for it.
func (r *tunHostReaper) abandon() {
	r.pipe.Close()
	_ = r.command.Wait() // it has reported its own error
}

// ReapTUNHost is the whole work of the process that TUNHostOptions.Reaper names, on
// its standard input and output: it says that it is ready, reads until the process
// that started it closes a TUNHost or dies, and in the latter case puts the host
// back. It must run in the network namespace of that process and needs the same
// rights. Interrupts and requests to terminate are ignored: it ends soon after its
// parent.
func ReapTUNHost(in io.Reader, out io.Writer) error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if _, err := io.WriteString(out, reaperReady); err != nil {
		return err
	}
	var last []byte
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // a line without its end was not finished, nor was anything done upon it
			if !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
		if string(line) == reaperDone+"\n" {
			return nil
		}
		last = line
	}
	if last == nil {
		return nil
	}
	undo := newTUNHostUndo()
	if err := json.Unmarshal(last, &undo); err != nil {
		return err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	return undo.run(handle)
}
