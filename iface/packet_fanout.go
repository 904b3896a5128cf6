// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A fanout is the queues of one link that divide what arrives there (PACKET_FANOUT_CBPF).
//
// A link that is down can not be divided by older kernels, and until it is, the first
// queue gets all, and the others have a filter that admits nothing: no frame is ever
// delivered twice, nor lost on the way from one to the other. The group has a program only
// when all of them admit what is theirs; without one the kernel gives all to the first.
//
// The kernel numbers the queues as they joined. When one is closed the last takes its
// number, and what comes then comes by the wrong queue, so that they are to be closed
// together. When the link goes down and comes back they keep their numbers.
type fanout struct {
	steering Steering
	size     int
	joined   atomic.Bool

	mu     sync.Mutex
	queues []*packetQueue // as many as size when all are open
}

// OpenPackets opens n queues that divide what arrives on a link by a steering. What is
// said of OpenPacket is true of each. The filter of all of them is that of the first
// queue: it is to be set there first, then on the others.
func OpenPackets(link Link, opts PacketOptions, steering Steering, n int) ([]Queue, error) {
	if n == 1 {
		q, err := OpenPacket(link, opts)
		if err != nil {
			return nil, err
		}
		return []Queue{q}, nil
	}
	g := &fanout{steering: steering, size: n}
	var queues []Queue
	fail := func(err error) ([]Queue, error) {
		for _, q := range queues {
			_ = q.Close() // the first error is the one to tell
		}
		return nil, err
	}
	for i := range n {
		q, err := openPacket(link, opts, g, i)
		if err != nil {
			return fail(err)
		}
		g.queues, queues = append(g.queues, q), append(queues, q)
	}
	for _, q := range g.queues {
		if err := q.SetFilter(opts.Filter); err != nil && !IsDown(err) {
			return fail(err)
		}
	}
	return queues, nil
}

// silence is the filter of a queue that is to get nothing.
var silence = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}}

// silent reports whether a queue is to get nothing yet.
func (q *packetQueue) silent() bool {
	return q.beside != nil && q.number > 0 && !q.beside.joined.Load()
}

// follow has the group divide by the addresses in f, after the last queue has f. Without
// all of its queues it is about to end.
func (g *fanout) follow(i int, f Filter) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i < g.size-1 || len(g.queues) < g.size {
		return nil
	}
	if err := g.divide(f); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

func (g *fanout) divide(f Filter) error {
	if !g.joined.Load() {
		if err := g.join(); err != nil {
			return err
		}
		g.joined.Store(true)
		for _, q := range g.queues[1:] {
			if err := q.admit(f); err != nil {
				return err
			}
		}
	}
	raw, err := g.steering.Assemble(f.Ours)
	if err != nil {
		return err
	}
	return g.queues[0].withFD(func(fd int) error {
		program := rawProgram(raw)
		err := unix.SetsockoptSockFprog(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
		if err != nil {
			return fmt.Errorf("port %s: set how queues divide what arrives: %w", g.queues[0].name, err)
		}
		return nil
	})
}

// join makes the queues a group of a number that nobody else has.
func (g *fanout) join() error {
	const how = unix.PACKET_FANOUT_CBPF | unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
	id := 0
	for i, q := range g.queues {
		err := q.withFD(func(fd int) error {
			if i > 0 {
				return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, id|how<<16)
			}
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, (how|unix.PACKET_FANOUT_FLAG_UNIQUEID)<<16); err != nil {
				if err != unix.EALREADY { // it is in the group since an earlier try
					return err
				}
			}
			value, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
			id = value & 0xffff
			return err
		})
		if err != nil && !(i > 0 && err == unix.EALREADY) {
			return fmt.Errorf("port %s: have %d queues divide what arrives: %w\nhint: until then one worker reads all and hands over; an older kernel needs the link to be up",
				q.name, g.size, err)
		}
	}
	return nil
}
