// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// BatchSize is the largest number of frames that one system call reads or
// writes. A longer slice handed to Read is filled only so far; a longer one
// handed to Write is sent in several calls.
const BatchSize = 64

// MaxFrame is the largest frame in bytes that a queue can deliver whole: the
// largest IPv4 packet behind an Ethernet header and one tag.
const MaxFrame = 65535 + 14 + 4

// Kind says to whom a frame was addressed on its link, as the kernel judged it
// (PACKET_HOST and the following of linux/if_packet.h).
type Kind uint8

// The kinds of frames. Frames of a port without link addresses are Host.
const (
	Host      Kind = unix.PACKET_HOST      // the link address of this port
	Broadcast Kind = unix.PACKET_BROADCAST // everyone on the link
	Multicast Kind = unix.PACKET_MULTICAST // a group
	OtherHost Kind = unix.PACKET_OTHERHOST // another station: a promiscuous port or a flooding switch
)

// String returns the word used in traces.
func (k Kind) String() string {
	switch k {
	case Host:
		return "host"
	case Broadcast:
		return "broadcast"
	case Multicast:
		return "multicast"
	}
	return "otherhost"
}

// Frame is one frame as it was read, or as it is to be written.
type Frame struct {
	// Data runs from the first byte of the link header (14 bytes of Ethernet),
	// or from the IP header on a port without one. It may be a super-packet of
	// up to 64 KiB.
	Data []byte
	// Offload describes what is still to be done to Data; zero for a plain
	// frame.
	Offload Offload
	// Kind is set by Read only.
	Kind Kind
	// Tagged is set by Read when the kernel took an 802.1Q or 802.1ad tag off
	// the frame: it came from another virtual LAN than Data would suggest.
	Tagged bool
	// Truncated is set by Read when Data is not the whole frame. Write refuses
	// such a frame.
	Truncated bool
}

// Queue is the seam between a port and a shard. One goroutine reads and writes;
// Close and Stats alone may be called by any goroutine at any time.
type Queue interface {
	// Read fills b, at most BatchSize frames of it, and returns how many; 0
	// and no error mean that nothing is there. It never blocks. Data is
	// borrowed until the next Read and may be written to in place. The first n
	// frames are valid also when an error comes with them.
	Read(b []Frame) (n int, err error)

	// Write sends the frames of b in order and returns how many went out; the
	// others were dropped and counted, not necessarily the last ones. It never
	// blocks. Data belongs to the caller again on return; a port that cannot
	// carry the offload header completes checksums in place. An error means
	// that the port itself failed (IsDown, IsGone, ErrClosed), not a frame.
	Write(b []Frame) (n int, err error)

	// SetFilter replaces the filter at once. Frames already waiting in the
	// queue were judged by the previous one.
	SetFilter(f Filter) error

	// FD is the descriptor that a Poller watches; it is readable when Read
	// has something to return. It stays the queue's.
	FD() int

	// Stats returns totals since the queue was opened.
	Stats() QueueStats

	// Close releases the descriptor. Later calls return ErrClosed. Frames
	// borrowed before stay readable.
	Close() error
}

// Looker is a Queue that may know without a system call whether there is something to read.
type Looker interface {
	// Ready reports whether Read would return frames. known is false if it takes a
	// Poller to tell, now or from now on. An error that Read would return is not told of.
	Ready() (ready, known bool)
}

// QueueStats counts frames and bytes since the queue was opened. A super-packet
// counts as one frame.
type QueueStats struct {
	ReceivedFrames uint64
	ReceivedBytes  uint64
	// KernelDrops counts frames that passed the filter but found the receive
	// buffer full.
	KernelDrops uint64
	// ReceiveErrors counts frames that the kernel could not describe and threw
	// away, such as encapsulated super-packets.
	ReceiveErrors uint64
	// Truncated counts frames delivered with the flag of that name.
	Truncated uint64

	SentFrames uint64
	SentBytes  uint64
	// SendDrops counts frames given up because the transmit queue stayed full
	// or the port failed.
	SendDrops uint64
	// SendRefused counts frames that can not be sent at all: longer than the
	// MTU, cut, or with an offload header that does not fit.
	SendRefused uint64
}

// Add adds what another queue counted.
func (s *QueueStats) Add(o QueueStats) {
	s.ReceivedFrames += o.ReceivedFrames
	s.ReceivedBytes += o.ReceivedBytes
	s.KernelDrops += o.KernelDrops
	s.ReceiveErrors += o.ReceiveErrors
	s.Truncated += o.Truncated
	s.SentFrames += o.SentFrames
	s.SentBytes += o.SentBytes
	s.SendDrops += o.SendDrops
	s.SendRefused += o.SendRefused
}

// The ways in which a port can fail. Errors of Read and Write wrap one of these
// together with the name of the port.
var (
	// ErrDown: the link is administratively down. The queue works again by
	// itself when the link comes up.
	ErrDown = errors.New("link is down")
	// ErrGone: the link was removed or left this network namespace. The queue
	// can only be closed.
	ErrGone = errors.New("link is gone")
	// ErrClosed: the queue was closed.
	ErrClosed = errors.New("queue is closed")
)

// IsDown reports whether err says that the link is down for now.
func IsDown(err error) bool { return errors.Is(err, ErrDown) }

// IsGone reports whether err says that the link no longer exists.
func IsGone(err error) bool { return errors.Is(err, ErrGone) }

// counters are the live QueueStats: added to once per batch by the shard, loaded
// by anyone.
type counters struct {
	receivedFrames, receivedBytes, kernelDrops, receiveErrors, truncated atomic.Uint64
	sentFrames, sentBytes, sendDrops, sendRefused                        atomic.Uint64
}

func (c *counters) load() QueueStats {
	return QueueStats{
		ReceivedFrames: c.receivedFrames.Load(),
		ReceivedBytes:  c.receivedBytes.Load(),
		KernelDrops:    c.kernelDrops.Load(),
		ReceiveErrors:  c.receiveErrors.Load(),
		Truncated:      c.truncated.Load(),
		SentFrames:     c.sentFrames.Load(),
		SentBytes:      c.sentBytes.Load(),
		SendDrops:      c.sendDrops.Load(),
		SendRefused:    c.sendRefused.Load(),
	}
}

// descriptor is a file descriptor that one goroutine uses and any goroutine may
// close. The lock is taken once per batch; without it the number could already
// belong to another file when a system call on its way uses it.
type descriptor struct {
	mu sync.RWMutex
	fd int // -1 once closed
}

// hold returns the descriptor and keeps it open until release; false when it is
// closed already, and then there is nothing to release.
func (d *descriptor) hold() (int, bool) {
	d.mu.RLock()
	if d.fd < 0 {
		d.mu.RUnlock()
		return -1, false
	}
	return d.fd, true
}

func (d *descriptor) release() { d.mu.RUnlock() }

// close waits for a call under way, which never blocks, runs last with the
// descriptor still open, and closes it. Only the first call does so.
func (d *descriptor) close(last func(fd int)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return ErrClosed
	}
	if last != nil {
		last(d.fd)
	}
	err := unix.Close(d.fd)
	d.fd = -1
	return err
}
