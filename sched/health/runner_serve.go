// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The other process of a Runner.

// ServeRunner becomes another user, has giveUp take every capability and the way to
// one, and runs what it is asked to on from, until that ends.
func ServeRunner(from io.Reader, to io.Writer, giveUp func() error) error {
	requests, replies := json.NewDecoder(from), json.NewEncoder(to)
	var who identity
	if err := requests.Decode(&who); err != nil {
		return fmt.Errorf("nobody says who to become: %w", err)
	}
	cannot := become(who)
	if err := giveUp(); err != nil {
		return err
	}
	var programs kin
	if err := programs.adopt(); err != nil {
		return fmt.Errorf("adopting orphans: %w", err)
	}
	if err := replies.Encode(cannot); err != nil {
		return err
	}
	s := runnerServer{to: replies, running: make(map[uint64]context.CancelFunc)}
	ctx, cancel := context.WithCancel(context.Background())
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGCHLD)
	s.group.Go(func() { programs.watch(ctx, ends) })
	for {
		var q request
		if requests.Decode(&q) != nil {
			break // the director has ended
		}
		if q.Kill {
			s.kill(q.ID)
			continue
		}
		once, stop := context.WithTimeout(ctx, q.Timeout)
		s.mu.Lock()
		s.running[q.ID] = stop
		s.mu.Unlock()
		s.group.Go(func() {
			s.answer(programs.run(once, q))
			s.kill(q.ID)
		})
	}
	cancel()
	s.group.Wait()
	programs.bury(ends)
	return nil
}

// become changes the user, or says why not.
func become(who identity) (cannot string) {
	if who.UID == os.Geteuid() {
		return ""
	}
	// In this order, since the last takes the right to the others.
	for _, step := range []func() error{
		func() error { return syscall.Setgroups([]int{}) },
		func() error { return syscall.Setgid(who.GID) },
		func() error { return syscall.Setuid(who.UID) },
	} {
		if err := step(); err != nil {
			return err.Error()
		}
	}
	return ""
}

type runnerServer struct {
	group sync.WaitGroup

	mu      sync.Mutex // of all below
	to      *json.Encoder
	running map[uint64]context.CancelFunc
}

func (s *runnerServer) answer(a reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.to.Encode(a) // nobody is there to be told
}

func (s *runnerServer) kill(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stop := s.running[id]; stop != nil {
		stop()
		delete(s.running, id)
	}
}

// drainWithin is how long the rest of a program's output is waited for: another
// process that has left the group may hold the pipe.
const drainWithin = 100 * time.Millisecond

// run runs one program, until the context's end at the latest.
func (k *kin) run(ctx context.Context, q request) (a reply) {
	a.ID = q.ID
	var output head
	cmd := exec.Command(q.Program.Argv[0], q.Program.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, q.Program.Env...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = drainWithin
	if err := k.start(cmd); err != nil {
		a.Error = err.Error()
		return a
	}
	pid := cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() { k.kill(pid) })
	err := cmd.Wait()
	a.Killed = !stop()
	k.ended(pid)
	if state := cmd.ProcessState; state != nil {
		if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			a.Signal = int(w.Signal())
		}
		a.Status = max(state.ExitCode(), 0)
	} else if err != nil {
		a.Error = err.Error()
	}
	a.Output = output.text()
	return a
}

// head keeps the first MaxOutput bytes that are written to it.
type head struct {
	mu sync.Mutex // a copy may be under way when Wait gives up
	b  []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), MaxOutput-len(h.b))]...)
	return len(p), nil
}

func (h *head) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}
