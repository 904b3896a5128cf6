// SPDX-License-Identifier: Apache-2.0

package iface

// Watching the topology.
//
// A notification is only a reason to look: what it says is not applied, the
// whole topology is read again and compared. That is immune to lost and to
// missing messages (the kernel does not announce the IPv4 routes that go with a
// link), and a burst of them (a bridge with a hundred ports) is one reading,
// coalesceTime after its first message. When the socket overflows (ENOBUFS) the
// kernel keeps the subscription and drops messages, which is one more reason to look.
//
// One goroutine does it all, the one that calls Run. The sockets belong to the
// namespace of the thread that opened them, and stay there.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// coalesceTime from the first notification of a burst to the reading.
	coalesceTime = 50 * time.Millisecond
	// rereadTime until a failed reading is tried again.
	rereadTime = time.Second
	// rereadAttempts before a reading that goes on failing ends the watch.
	rereadAttempts = 10
	// watchBuffer is asked for as receive buffer, in bytes; the kernel may give less.
	watchBuffer = 1 << 20
)

// TopologyWatcher holds the sockets of a watch. Close may be called by any
// goroutine, all else by one.
type TopologyWatcher struct {
	handle *netlink.Handle
	events *nl.NetlinkSocket
	closed atomic.Bool
	// reading keeps Close from taking the handle away under Read.
	reading sync.Mutex
}

// OpenTopologyWatcher subscribes in the namespace that the calling thread is in
// (a goroutine that entered another one has locked its thread). The watcher stays
// bound to it. No privilege is needed.
func OpenTopologyWatcher() (*TopologyWatcher, error) {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch links and routes: open a netlink socket: %w", err)
	}
	// A small buffer overflows sooner, which costs a reading and nothing else.
	_ = unix.SetsockoptInt(events.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUF, watchBuffer)

	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("watch links and routes: open a netlink socket: %w", err)
	}
	return &TopologyWatcher{handle: handle, events: events}, nil
}

// Close ends Run, and releases the sockets. A second Close does nothing.
func (w *TopologyWatcher) Close() error {
	if w.closed.CompareAndSwap(false, true) {
		w.events.Close()
		w.reading.Lock()
		defer w.reading.Unlock()
		w.handle.Close()
	}
	return nil
}

// Read reads the topology now; after Close net.ErrClosed.
func (w *TopologyWatcher) Read() (Topology, error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	// A closed handle would open a new socket, in whatever namespace it finds itself.
	if w.closed.Load() {
		return Topology{}, net.ErrClosed
	}
	return readTopology(w.handle)
}

// Run calls changed at once and then after each change until ctx is done or
// Close is called: nil. It closes the watcher. An error: the kernel stopped
// answering. No goroutine is left when it returns.
func (w *TopologyWatcher) Run(ctx context.Context, changed func(Topology)) error {
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	defer w.Close()

	var last Topology
	first, failures := true, 0
	for {
		now, err := w.Read()
		if w.closed.Load() || ctx.Err() != nil {
			return nil
		}
		wait := time.Duration(0)
		switch {
		case err == nil:
			failures = 0
			if first || !now.Equal(last) {
				first, last = false, now
				changed(now)
			}
		default:
			failures++
			if failures >= rereadAttempts {
				return fmt.Errorf("watch links and routes: %w", err)
			}
			wait = rereadTime
		}
		if err := w.await(last, wait); err != nil {
			if w.closed.Load() || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch links and routes: %w", err)
		}
	}
}

// await returns when there is a reason to read: coalesceTime after the first
// notification that may matter, or when limit (0: none) is over.
func (w *TopologyWatcher) await(last Topology, limit time.Duration) error {
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	for burst := false; ; {
		if !until.IsZero() {
			left := time.Until(until)
			if left <= 0 {
				return nil
			}
			timeout := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
			if err := w.events.SetReceiveTimeout(&timeout); err != nil {
				return err
			}
		} else if err := w.events.SetReceiveTimeout(&unix.Timeval{}); err != nil {
			return err
		}

		messages, from, err := w.events.Receive()
		switch {
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
		default:
			return err
		}
		// Another process may send to our socket; only the kernel is believed.
		if err == nil && (from.Pid != nl.PidKernel || !slices.ContainsFunc(messages, last.mayMatter)) {
			continue
		}
		if !burst {
			burst, until = true, time.Now().Add(coalesceTime)
		}
	}
}

// mayMatter tells whether a notification can change the topology. Neighbours
// come and go all the time on a busy host; only permanent ones, and what was
// one, are a reason to read.
func (t Topology) mayMatter(m syscall.NetlinkMessage) bool {
	if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
		return true
	}
	// struct ndmsg: family, 3 bytes of padding, ifindex, state, flags, type.
	if len(m.Data) < unix.SizeofNdMsg {
		return false
	}
	link := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	if binary.NativeEndian.Uint16(m.Data[8:])&netlink.NUD_PERMANENT != 0 {
		return true
	}
	attributes, err := nl.ParseRouteAttr(m.Data[unix.SizeofNdMsg:])
	if err != nil {
		return true
	}
	for _, a := range attributes {
		if a.Attr.Type != netlink.NDA_DST {
			continue
		}
		ip, _ := netip.AddrFromSlice(a.Value)
		return slices.ContainsFunc(t.Permanent, func(e NeighbourEntry) bool { return e.Link == link && e.Addr == ip.Unmap() })
	}
	return false
}
