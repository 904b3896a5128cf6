// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A Runner has another process run programs, one that was started before the
// director gave up its capabilities, and that itself has given up everything: it is
// another user, if it may be, without any capability and without a way to gain one.
// They speak JSON over its standard input and output. When the director ends, however
// it ends, the other one kills what still runs and ends too.
//
// Its methods may be called by any goroutine.
type Runner struct {
	cmd  *exec.Cmd
	to   io.WriteCloser
	out  chan request
	gone chan struct{} // closed when the process has ended
	note string

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan reply
}

// A request has a program run, or one killed that runs.
type request struct {
	ID      uint64
	Program Program
	Timeout time.Duration
	Kill    bool
}

type reply struct {
	ID uint64
	Ran
	Error string // it could not be started
}

// identity is who the other process is to become, the first thing that it is told.
// What it answers is why it could not, or nothing.
type identity struct{ UID, GID int }

// StartRunner starts argv, which must call ServeRunner, and has it become a user, by
// name or number. Where the process has no right to, or its user namespace does not
// know the user, programs run as the user that it is; Note says so.
func StartRunner(argv []string, name string) (*Runner, error) {
	r := &Runner{out: make(chan request, 64), gone: make(chan struct{}), waiting: make(map[uint64]chan reply)}
	who, err := lookUp(name)
	if err != nil {
		return nil, err
	}
	from, err := r.start(argv)
	if err != nil {
		return nil, fmt.Errorf("the process that runs scripts: %w", err)
	}
	replies := json.NewDecoder(from)
	var cannot string
	if err := errors.Join(json.NewEncoder(r.to).Encode(who), replies.Decode(&cannot)); err != nil {
		_ = r.to.Close()
		return nil, fmt.Errorf("the process that runs scripts: %w", errors.Join(err, r.cmd.Wait()))
	}
	if cannot != "" {
		r.note = fmt.Sprintf("scripts run as user %d without capabilities, since they cannot be those of %s: %s", os.Geteuid(), name, cannot)
	}
	go r.write()
	go r.read(replies)
	return r, nil
}

func lookUp(name string) (identity, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return identity{}, fmt.Errorf("script-user: there is no user %s", name)
		}
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID); err != nil {
		return identity{}, fmt.Errorf("script-user %s: %w", name, err)
	}
	return identity{uid, gid}, nil
}

func (r *Runner) start(argv []string) (io.Reader, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// Of its own group: what ends the director by a signal of the terminal lets it
	// clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.cmd, r.to = cmd, to
	return from, nil
}

// Note says what is not as it was asked for; "" if all is.
func (r *Runner) Note() string { return r.note }

func (r *Runner) write() {
	to := json.NewEncoder(r.to)
	for {
		select {
		case q := <-r.out:
			if to.Encode(q) != nil {
				return
			}
		case <-r.gone:
			return
		}
	}
}

func (r *Runner) read(replies *json.Decoder) {
	for {
		var a reply
		if replies.Decode(&a) != nil {
			break
		}
		r.mu.Lock()
		c := r.waiting[a.ID]
		delete(r.waiting, a.ID)
		r.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	_ = r.cmd.Wait() // its status says nothing that its end does not
	close(r.gone)
}

var errNoRunner = errors.New("the process that runs scripts has ended: restart the director")

// Run runs a program until the context's deadline, which it must have, and then
// kills it with its process group.
func (r *Runner) Run(ctx context.Context, p Program) (Ran, error) {
	end, ok := ctx.Deadline()
	if !ok {
		return Ran{}, errors.New("a program needs a time to end")
	}
	answer := make(chan reply, 1)
	r.mu.Lock()
	r.last++
	id := r.last
	r.waiting[id] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, id)
		r.mu.Unlock()
	}()
	q := request{ID: id, Program: p, Timeout: time.Until(end)}
	select {
	case r.out <- q:
	case <-r.gone:
		return Ran{}, errNoRunner
	case <-ctx.Done():
		return Ran{}, errors.New("too many programs at once")
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return a.Ran, errors.New(a.Error)
		}
		return a.Ran, nil
	case <-r.gone:
		return Ran{}, errNoRunner
	case <-ctx.Done():
		select {
		case r.out <- request{ID: id, Kill: true}:
		case <-r.gone:
		}
		return Ran{Killed: true}, nil
	}
}

// Close ends the process, and with it every program.
func (r *Runner) Close() {
	_ = r.to.Close()
	<-r.gone
}
