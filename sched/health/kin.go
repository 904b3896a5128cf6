// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kin are the programs that run, and all that comes of them. The process is the one
// that orphans come to (PR_SET_CHILD_SUBREAPER), so that nobody gets away by leaving
// its group or its parent (setsid, daemons):
//
//   - at the end of its time a program is stopped with all its descendants, and then
//     they are killed;
//   - what a program leaves behind when it ends is an orphan then. Nothing tells whose it
//     was, but it was not of a program that began later: it is killed as soon as none
//     runs that is older, and at once if none else does.
type kin struct {
	mu       sync.Mutex // held while a program is begun, until it is known
	programs map[int]uint64
}

// adopt has orphans come to this process.
func (k *kin) adopt() error {
	k.programs = make(map[int]uint64)
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// start begins a program, in a process group of its own.
func (k *kin) start(cmd *exec.Cmd) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	k.programs[cmd.Process.Pid] = begun(cmd.Process.Pid)
	return nil
}

// maxRounds bounds how often processes are looked for that have come meanwhile.
const maxRounds = 100

// kill kills a program that has not been waited for, with its group and descendants.
func (k *kin) kill(pid int) {
	stopped := make(map[int]bool)
	for n := 0; n < maxRounds; n++ {
		before := len(stopped)
		stop(pid, stopped)
		if len(stopped) == before {
			break // who is stopped begins no other
		}
	}
	// Negative: the group, whose number is that of its first process. Its number is
	// not given to another process while one of the group is left.
	_ = unix.Kill(-pid, unix.SIGKILL)
	for p := range stopped {
		_ = unix.Kill(p, unix.SIGKILL)
	}
}

// stop stops a process and then its descendants, those that are not in the set.
func stop(pid int, stopped map[int]bool) {
	if !stopped[pid] {
		stopped[pid] = true
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	for _, p := range children(strconv.Itoa(pid)) {
		stop(p, stopped)
	}
}

// ended forgets a program that has been waited for, and kills what it left behind.
func (k *kin) ended(pid int) {
	_ = unix.Kill(-pid, unix.SIGKILL)
	k.mu.Lock()
	delete(k.programs, pid)
	k.mu.Unlock()
	k.sweep()
}

// sweep buries orphans that have ended, and kills those that no program can miss. It
// reports whether there are some left.
func (k *kin) sweep() (left bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	oldest := ^uint64(0)
	for _, at := range k.programs {
		oldest = min(oldest, at)
	}
	for _, p := range children("self") {
		if _, known := k.programs[p]; known {
			continue
		}
		if begun(p) < oldest {
			_ = unix.Kill(p, unix.SIGKILL)
		}
		if gone, err := unix.Wait4(p, nil, unix.WNOHANG, nil); gone != p || err != nil {
			left = true
		}
	}
	return left
}

// watch sweeps each time that a child has ended, until the context's end.
func (k *kin) watch(ctx context.Context, ends <-chan os.Signal) {
	for {
		select {
		case <-ends:
			k.sweep()
		case <-ctx.Done():
			return
		}
	}
}

// lastTime is how long the last ones may take to end.
const lastTime = time.Second

// bury kills all that is left, when no program runs any more.
func (k *kin) bury(ends <-chan os.Signal) {
	over := time.After(lastTime)
	for k.sweep() {
		select {
		case <-ends:
		case <-over:
			return // they are dead, or will be: the kernel has them
		}
	}
}

// children are the processes that one has begun or adopted.
func children(of string) (list []int) {
	files, _ := filepath.Glob("/proc/" + of + "/task/*/children") // there is no bad pattern
	if len(files) == 0 {
		return childrenByParent(of)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for f := range bytes.FieldsSeq(text) {
			if p, err := strconv.Atoi(string(f)); err == nil {
				list = append(list, p)
			}
		}
	}
	return list
}

// childrenByParent is children for kernels that do not list them.
func childrenByParent(of string) (list []int) {
	if of == "self" {
		of = strconv.Itoa(os.Getpid())
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range processes {
		p, err := strconv.Atoi(filepath.Base(name))
		if err == nil && field(p, 4) == of {
			list = append(list, p)
		}
	}
	return list
}

// begun is when a process began, in ticks since the machine did; 0: it is gone.
func begun(pid int) uint64 {
	n, _ := strconv.ParseUint(field(pid, 22), 10, 64)
	return n
}

// field is one of /proc/PID/stat, counted as in proc(5), from the fourth on; "" if there
// is none.
func field(pid, n int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second one is the name, in parentheses, and may have any byte.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < n-2 {
		return ""
	}
	return string(fields[n-3])
}
