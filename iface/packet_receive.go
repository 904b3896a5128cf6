// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// slotSize is the distance of two receive slots: the offload header and the
// largest frame, brought to a stride that spreads the headers of a batch over
// the sets of the processor's caches (a multiple of the page size would put all
// of them into the same few).
const slotSize = (OffloadSize+MaxFrame+63)/64*64 + 64

// receiveBatch is the memory of recvmmsg, laid out once: message i points at
// address i, control i and slot i.
type receiveBatch struct {
	messages  [BatchSize]unix.Mmsghdr
	vectors   [BatchSize]unix.Iovec
	addresses [BatchSize]unix.RawSockaddrLinklayer
	controls  [BatchSize]control
	slots     []byte
	used      int // messages the kernel has written to since they were armed
	most      int // messages that the next call may fill

	bound unix.RawSockaddrLinklayer // where getsockname answers
}

// cached is how many bytes are read at once, and fewest how many frames, however
// large. What is read is copied out of slots that are used again with the next
// batch: as long as they stay in a processor's own cache, this costs a fraction of
// what it does otherwise, which is more than the system calls that large batches
// save.
const (
	cached = 512 << 10
	fewest = 8
)

// nextBatch says how many frames to read at once after a batch of n.
func nextBatch(n int, bytes uint64) int {
	if uint64(n)*cached >= BatchSize*bytes {
		return BatchSize
	}
	return max(fewest, int(uint64(n)*cached/bytes))
}

// control is a control message buffer with room for the one message that
// PACKET_AUXDATA produces.
type control struct {
	header unix.Cmsghdr
	aux    unix.TpacketAuxdata
	_      [4]byte // CMSG_SPACE rounds up
}

func newReceiveBatch() *receiveBatch {
	r := &receiveBatch{slots: make([]byte, BatchSize*slotSize), used: BatchSize, most: BatchSize}
	for i := range r.messages {
		r.vectors[i].Base = &r.slots[i*slotSize]
		r.vectors[i].SetLen(OffloadSize + MaxFrame)
		h := &r.messages[i].Hdr
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.addresses[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
	}
	return r
}

// arm puts back what the kernel overwrites: the lengths are its input as well.
func (r *receiveBatch) arm() {
	for i := range r.messages[:r.used] {
		r.armMessage(i)
	}
	r.used = 0
}

func (r *receiveBatch) armMessage(i int) {
	h := &r.messages[i].Hdr
	h.Namelen = unix.SizeofSockaddrLinklayer
	h.SetControllen(int(unsafe.Sizeof(control{})))
	h.Flags = 0
}

// frame describes message i, which the kernel has filled.
func (r *receiveBatch) frame(i int, f *Frame) {
	m := &r.messages[i]
	slot := r.slots[i*slotSize:][:OffloadSize+MaxFrame]
	end := max(int(m.Len), OffloadSize)
	// The capacity ends with the slot, so that nothing written to a frame can
	// reach the next one.
	f.Data = slot[OffloadSize:end:len(slot)]
	f.Offload = DecodeOffload(slot)
	f.Kind = Kind(r.addresses[i].Pkttype)
	f.Truncated = m.Hdr.Flags&unix.MSG_TRUNC != 0
	f.Tagged = false
	c := &r.controls[i]
	if m.Hdr.Controllen >= uint64(unix.CmsgLen(int(unsafe.Sizeof(c.aux)))) &&
		c.header.Level == unix.SOL_PACKET && c.header.Type == unix.PACKET_AUXDATA {
		f.Tagged = c.aux.Status&unix.TP_STATUS_VLAN_VALID != 0
		f.Truncated = f.Truncated || c.aux.Snaplen < c.aux.Len
	}
}

// Read implements Queue.
func (q *packetQueue) Read(b []Frame) (int, error) {
	fd, ok := q.hold()
	if !ok {
		return 0, q.errClosed
	}
	defer q.release()

	if q.gone {
		return 0, q.errGone
	}
	var failed error
	// Each round consumes what it fails on: an error of the socket, or a frame.
	for range BatchSize {
		n, errno := q.receive(fd, b)
		switch errno {
		case 0:
			q.down = failed != nil
			return n, failed
		case unix.EAGAIN:
			if q.down && q.removed(fd) {
				failed = q.errGone
			}
			return 0, failed
		case unix.EINTR:
		case unix.ENETDOWN:
			// Reported once by the kernel, and all that it reports when the link
			// is removed. What was received before may still be waiting.
			q.down, failed = true, q.errDown
			if q.removed(fd) {
				failed = q.errGone
			}
		default:
			// EINVAL: a frame with offloads that the header cannot express.
			q.receiveErrors.Add(1)
		}
	}
	return 0, failed
}

// receive fills b by the ring, or by a system call where there is none.
func (q *packetQueue) receive(fd int, b []Frame) (int, unix.Errno) {
	if q.arrivals == nil {
		n, errno := q.in.receive(fd, min(len(b), q.in.most))
		if errno == 0 {
			q.deliver(b[:n])
		}
		return n, errno
	}
	n, errno := q.readRing(fd, b)
	if n > 0 || errno != 0 {
		return n, errno
	}
	if errno := q.arrivals.socketError(fd); errno != 0 {
		return 0, errno
	}
	if q.blocked(fd) {
		return 0, q.withoutRing(fd)
	}
	return 0, unix.EAGAIN
}

// removed reports whether the socket has lost its link for good: the kernel then
// sets the index it is bound to to -1, and no call for receiving says so
// (packet_notifier and packet_recvmsg in net/packet/af_packet.c).
func (q *packetQueue) removed(fd int) bool {
	size := uint32(unix.SizeofSockaddrLinklayer)
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd),
		uintptr(unsafe.Pointer(&q.in.bound)), uintptr(unsafe.Pointer(&size)))
	q.gone = errno == 0 && q.in.bound.Ifindex < 0
	return q.gone
}

// receive is recvmmsg. It is a system call that Go's scheduler knows about: while
// the kernel copies up to 4 MiB, other goroutines may run.
func (r *receiveBatch) receive(fd, n int) (int, unix.Errno) {
	if n == 0 {
		return 0, unix.EAGAIN
	}
	r.arm()
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&r.messages)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		// The kernel may have written to the message it failed on.
		r.used = min(1, n)
		return 0, errno
	}
	r.used = min(int(got)+1, BatchSize)
	return int(got), 0
}

func (q *packetQueue) deliver(b []Frame) {
	var total, truncated uint64
	for i := range b {
		q.in.frame(i, &b[i])
		total += uint64(len(b[i].Data))
		if b[i].Truncated {
			truncated++
		}
	}
	q.in.most = nextBatch(len(b), total)
	q.receivedFrames.Add(uint64(len(b)))
	q.receivedBytes.Add(total)
	if truncated > 0 {
		q.truncated.Add(truncated)
	}
}
