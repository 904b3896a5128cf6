// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendAttempts is how often one Write may try again because the transmit queue or
// the send buffer is full. With the processor yielded in between this gives a
// driver some tens of microseconds, and never holds up receiving for longer.
const sendAttempts = 16

// sendBatch is the memory of sendmmsg, laid out once: each message has two
// parts, its offload header here and the frame where it is.
type sendBatch struct {
	messages [BatchSize]unix.Mmsghdr
	vectors  [BatchSize][2]unix.Iovec
	headers  [BatchSize][OffloadSize]byte
	segments [BatchSize]bool // message i is a super-packet

	// On a link without link headers the kernel may not know the protocol of
	// what we send, so each message names it; Ethernet frames need no address.
	addresses [BatchSize]unix.RawSockaddrLinklayer
	named     bool
}

func newSendBatch(layer Layer, index int) *sendBatch {
	s := &sendBatch{named: layer == Network}
	for i := range s.messages {
		s.vectors[i][0].Base = &s.headers[i][0]
		s.vectors[i][0].SetLen(OffloadSize)
		h := &s.messages[i].Hdr
		h.Iov = &s.vectors[i][0]
		h.SetIovlen(2)
		if s.named {
			s.addresses[i] = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(index)}
			h.Name = (*byte)(unsafe.Pointer(&s.addresses[i]))
			h.Namelen = unix.SizeofSockaddrLinklayer
		}
	}
	return s
}

// load prepares the frames that can be sent and returns how many those are.
func (s *sendBatch) load(b []Frame) int {
	n := 0
	for i := range b {
		f := &b[i]
		if f.Truncated || len(f.Data) == 0 {
			continue
		}
		o := f.Offload
		if !o.Segmented() {
			// Only a hint, but one the kernel checks against the length.
			o.HeaderLen = 0
		}
		o.Encode(s.headers[n][:])
		s.segments[n] = o.Segmented()
		s.vectors[n][1].Base = unsafe.SliceData(f.Data)
		s.vectors[n][1].SetLen(len(f.Data))
		if s.named {
			s.addresses[n].Protocol = networkOrder(unix.ETH_P_IP)
			if f.Data[0]>>4 == 6 {
				s.addresses[n].Protocol = networkOrder(unix.ETH_P_IPV6)
			}
		}
		n++
	}
	return n
}

// unload drops the references to the callers' memory.
func (s *sendBatch) unload(n int) {
	for i := range n {
		s.vectors[i][1].Base = nil
	}
}

// send is sendmmsg for the messages from first up to end. It stops at the first
// that fails, and reports the reason only when nothing went before it.
func (s *sendBatch) send(fd, first, end int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&s.messages[first])), uintptr(end-first), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Write implements Queue.
func (q *packetQueue) Write(b []Frame) (int, error) {
	fd, ok := q.hold()
	if !ok {
		return 0, q.errClosed
	}
	defer q.release()

	sent, attempts := 0, sendAttempts
	for len(b) > 0 {
		part := b[:min(len(b), BatchSize)]
		b = b[len(part):]
		if q.ring != nil && q.ring.takes(part) {
			n := q.writeRing(part)
			sent += n
			if part = part[n:]; len(part) == 0 {
				continue
			}
		}
		n, err := q.writeBatch(fd, part, &attempts)
		sent += n
		if err != nil {
			q.sendDrops.Add(uint64(len(b)))
			return sent, err
		}
	}
	return sent, nil
}

// writeRing sends the first frames of b through the ring and returns how many; the
// others are for writeBatch, which tells why.
func (q *packetQueue) writeRing(b []Frame) int {
	n := q.ring.send(b)
	var bytes uint64
	for i := range b[:n] {
		bytes += uint64(len(b[i].Data))
	}
	q.sentFrames.Add(uint64(n))
	q.sentBytes.Add(bytes)
	return n
}

// writeBatch sends up to BatchSize frames. attempts is what is left of the
// caller's patience.
func (q *packetQueue) writeBatch(fd int, b []Frame, attempts *int) (int, error) {
	loaded := q.out.load(b)
	defer q.out.unload(loaded)
	var (
		sent    int
		bytes   uint64
		drops   uint64
		refused = uint64(len(b) - loaded)
		failed  error
		twice   bool // message i has failed before for a reason of its own
	)
	for i := 0; i < loaded; {
		n, errno := q.out.send(fd, i, loaded)
		if errno == 0 {
			for _, m := range q.out.messages[i : i+n] {
				bytes += uint64(m.Len) - OffloadSize
			}
			sent += n
			i += n
			twice = false
			continue
		}
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN: // the send buffer is full, for every frame alike
			if again(attempts) {
				continue
			}
			drops += uint64(loaded - i)
			i = loaded
		case unix.ENOBUFS: // the transmit queue is full, or has no use for this frame
			if q.out.segments[i] && q.queued(fd) || again(attempts) {
				continue
			}
			drops++
			i++
		case unix.ENXIO, unix.ENODEV:
			q.gone, failed = true, q.errGone
			drops += uint64(loaded - i)
			i = loaded
		default:
			// The error may be an older one that the socket kept for whichever
			// call came next. The second time it is the frame's own.
			if !twice {
				twice = true
				continue
			}
			twice = false
			if errno == unix.ENETDOWN {
				failed = q.errDown
				drops += uint64(loaded - i)
				i = loaded
				break
			}
			refused++ // EINVAL, EMSGSIZE: no use in trying
			i++
		}
	}
	q.sentFrames.Add(uint64(sent))
	q.sentBytes.Add(bytes)
	if drops > 0 {
		q.sendDrops.Add(drops)
	}
	if refused > 0 {
		q.sendRefused.Add(refused)
	}
	return sent, failed
}

// queued gives up bypassing the queueing discipline, and reports whether that
// changed anything. On the bypass the kernel drops each super-packet that the
// device cannot segment (__dev_direct_xmit in net/core/dev.c); the ordinary way
// segments it in software.
func (q *packetQueue) queued(fd int) bool {
	if !q.direct {
		return false
	}
	q.direct = false
	if q.ring != nil {
		_ = unix.SetsockoptInt(q.ring.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 0)
	}
	return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 0) == nil
}

// again yields the processor to whatever empties the queue, as long as there are
// attempts left.
func again(attempts *int) bool {
	if *attempts == 0 {
		return false
	}
	*attempts--
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	return true
}
