// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Poller sleeps until one of a shard's queues can be read. It is level-triggered:
// a queue that was not read empty is reported again. Add, Remove and Wait belong
// to one goroutine; Wake and Close may be called by any.
type Poller struct {
	epoll  int
	events [BatchSize]unix.EpollEvent
	count  [8]byte // of wakes, as last read

	mu   sync.Mutex // keeps Wake off a descriptor that Close has closed
	wake int        // eventfd, -1 once closed
	one  [8]byte    // what Wake writes
}

// wakeID marks the eventfd among the ids in the kernel's table; ids of callers
// are not negative.
const wakeID = -1

// NewPoller returns a poller that watches nothing yet.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("poller: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("poller: eventfd: %w", err)
	}
	p := &Poller{epoll: epoll, wake: wake}
	binary.NativeEndian.PutUint64(p.one[:], 1)
	if err := p.add(wake, wakeID); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Add watches fd and reports it as id, from 0 to 2^31-1.
func (p *Poller) Add(fd, id int) error {
	if id < 0 || id > math.MaxInt32 {
		return fmt.Errorf("poller: id %d is out of range", id)
	}
	return p.add(fd, id)
}

// add stores the id where epoll would have the descriptor: the kernel gives back
// those 64 bits as they are.
func (p *Poller) add(fd, id int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(id)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("poller: watch descriptor %d: %w", fd, err)
	}
	return nil
}

// Remove stops watching fd. A descriptor that is closed leaves by itself.
func (p *Poller) Remove(fd int) error {
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return fmt.Errorf("poller: forget descriptor %d: %w", fd, err)
	}
	return nil
}

// Wait sleeps until a queue is readable, Wake is called or the timeout is over,
// and writes the ids of readable queues (also of those with an error to report)
// to ids. It returns how many, 0 after Wake or a timeout. A timeout of 0 only
// looks, a negative one is endless; others are rounded up to a millisecond.
func (p *Poller) Wait(ids []int, timeout time.Duration) (int, error) {
	room := min(len(ids)+1, len(p.events)) // one more for the eventfd
	ready, err := unix.EpollWait(p.epoll, p.events[:room], milliseconds(timeout))
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("poller: epoll_wait: %w", err)
	}
	n := 0
	for _, event := range p.events[:ready] {
		if event.Fd == wakeID {
			p.drain()
			continue
		}
		if n < len(ids) {
			ids[n] = int(event.Fd)
			n++
		}
	}
	return n, nil
}

func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// Wake ends a Wait under way, or the next one if there is none. Several calls
// before that Wait count as one.
func (p *Poller) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake < 0 {
		return
	}
	// EAGAIN means that the counter is full: a wake is pending already.
	unix.Write(p.wake, p.one[:])
}

func (p *Poller) drain() {
	unix.Read(p.wake, p.count[:])
}

// Close releases the poller's own descriptors, not the queues'. Wait must not be
// under way; Wake may.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake < 0 {
		return nil
	}
	unix.Close(p.wake)
	p.wake = -1
	return unix.Close(p.epoll)
}
