// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Frames are received through a ring that is shared with the kernel (PACKET_RX_RING,
// TPACKET_V2). It copies a frame into the ring when the frame arrives, where without a
// ring it would keep a reference to it, wake us, and have another processor copy it and
// give its memory back. Of a frame that is longer than a slot there is the beginning
// only, and the whole of it waits to be received by a system call, as all would without a
// ring (PACKET_COPY_THRESH). Frames are read in the order of the slots, so that long and
// short ones do not overtake each other.
//
// What is in a slot is copied once more, to where the caller may keep it. The slot is the
// kernel's again then; otherwise a ring would have to be as long as all that is on its way.

const (
	// receiveSlot is in bytes. What a long frame has of it is copied for nothing, and a
	// ring of large slots is pushed out of the processors' caches as it goes round.
	receiveSlot  = 512
	receiveSlots = 4096
	// receiveBlock is how much of it has to be contiguous in the machine's memory.
	receiveBlock = 64 << 10
	// receiveAddress is where a slot has its link address (TPACKET_ALIGN).
	receiveAddress = (unix.SizeofTpacket2Hdr + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)
)

// receiveRing is a ring of slots. The kernel goes through them in the same order as we do.
type receiveRing struct {
	memory []byte
	head   int // the slot that is read next

	failed unix.Errno // to be told before anything else is read

	dry   bool   // nothing came since the last look at drops
	drops uint64 // then

	answer [2]uint32 // what getsockopt writes
	size   uint32
}

// openReceiveRing gives a socket that is not bound yet a ring.
func openReceiveRing(fd int) (*receiveRing, error) {
	for _, o := range []option{
		{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_COPY_THRESH", unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.code, o.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	request := unix.TpacketReq{
		Block_size: receiveBlock, Block_nr: receiveSlots * receiveSlot / receiveBlock,
		Frame_size: receiveSlot, Frame_nr: receiveSlots,
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return nil, fmt.Errorf("set PACKET_RX_RING: %w", err)
	}
	memory, err := unix.Mmap(fd, 0, receiveSlots*receiveSlot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		// A socket that has a ring delivers by no other way.
		_ = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{})
		return nil, err
	}
	return &receiveRing{memory: memory}, nil
}

// close gives the memory back, without which the kernel keeps the socket open.
func (r *receiveRing) close() { _ = unix.Munmap(r.memory) }

// slot is the slot i after the one that is read next.
func (r *receiveRing) slot(i int) []byte {
	at := (r.head + i) % receiveSlots * receiveSlot
	return r.memory[at : at+receiveSlot : at+receiveSlot]
}

// release gives the next n slots back to the kernel.
func (r *receiveRing) release(n int) {
	for i := range n {
		atomic.StoreUint32(status(r.slot(i)), unix.TP_STATUS_KERNEL)
	}
	r.head = (r.head + n) % receiveSlots
	r.dry = false
}

// A slot's header (struct tpacket2_hdr).
func slotWhole(slot []byte) int { return int(binary.NativeEndian.Uint32(slot[4:])) } // bytes of the frame
func slotBytes(slot []byte) int { return int(binary.NativeEndian.Uint32(slot[8:])) } // that are here
func slotFrame(slot []byte) int { return int(binary.NativeEndian.Uint16(slot[12:])) }

// readRing is Read by the ring. An error number comes without frames.
func (q *packetQueue) readRing(fd int, b []Frame) (int, unix.Errno) {
	r, in := q.arrivals, q.in
	if errno := r.failed; errno != 0 {
		r.failed = 0
		return 0, errno
	}
	b = b[:min(len(b), BatchSize)]
	var n, total int
	var cut, lost uint64
	for n < len(b) && (total < cached || n < fewest) {
		slot := r.slot(0)
		s := atomic.LoadUint32(status(slot))
		if s&unix.TP_STATUS_USER == 0 {
			break
		}
		if s&unix.TP_STATUS_COPY != 0 {
			waiting := r.run(len(b)-n, total)
			got, errno := in.receiveAt(fd, n, waiting)
			if errno != 0 && errno != unix.EAGAIN {
				if n == 0 {
					return 0, errno
				}
				r.failed = errno
				break
			}
			for i := range b[n : n+got] {
				f := &b[n+i]
				in.frame(n+i, f)
				describe(r.slot(i), f)
				f.Truncated = in.messages[n+i].Hdr.Flags&unix.MSG_TRUNC != 0 || len(f.Data) < slotWhole(r.slot(i))
				total += len(f.Data)
				if f.Truncated {
					cut++
				}
			}
			if got == 0 {
				q.receiveErrors.Add(1)
			}
			r.release(max(got, 1))
			n += got
			continue
		}
		if size := slotBytes(slot); size < slotWhole(slot) {
			lost++ // the receive buffer was full, so the whole was not kept
		} else {
			in.take(n, slot, size, &b[n])
			describe(slot, &b[n])
			total += size
			n++
		}
		r.release(1)
	}
	if n > 0 {
		q.receivedFrames.Add(uint64(n))
		q.receivedBytes.Add(uint64(total))
		q.truncated.Add(cut)
	}
	if lost > 0 {
		q.kernelDrops.Add(lost)
	}
	return n, 0
}

// Ready implements Looker, for the queue's one reader.
func (q *packetQueue) Ready() (ready, known bool) {
	if _, ok := q.hold(); !ok {
		return false, false
	}
	defer q.release()
	if q.arrivals == nil {
		return false, false
	}
	return atomic.LoadUint32(status(q.arrivals.slot(0)))&unix.TP_STATUS_USER != 0, true
}

// run counts the long frames that are next, of at most most and of as many bytes as are
// read at once if there are total already.
func (r *receiveRing) run(most, total int) int {
	n := 0
	for n < most && (total < cached || n < fewest) {
		slot := r.slot(n)
		const long = unix.TP_STATUS_USER | unix.TP_STATUS_COPY
		if atomic.LoadUint32(status(slot))&long != long {
			break
		}
		total += slotWhole(slot)
		n++
	}
	return n
}

// take copies the frame of a slot to where message i would have it.
func (r *receiveBatch) take(i int, slot []byte, size int, f *Frame) {
	mac := slotFrame(slot)
	to := r.slots[i*slotSize:][:OffloadSize+MaxFrame]
	end := copy(to, slot[mac-OffloadSize:mac+size])
	f.Data = to[OffloadSize:end:len(to)]
	f.Offload = DecodeOffload(to)
	f.Truncated = false
}

// describe tells of a frame what its slot says. Of a long one nothing else does: with the
// frame the kernel keeps neither its link address nor its length.
func describe(slot []byte, f *Frame) {
	f.Kind = Kind((*unix.RawSockaddrLinklayer)(unsafe.Pointer(&slot[receiveAddress])).Pkttype)
	f.Tagged = *status(slot)&unix.TP_STATUS_VLAN_VALID != 0
}

// receiveAt is recvmmsg for n messages from number at.
func (r *receiveBatch) receiveAt(fd, at, n int) (int, unix.Errno) {
	for i := range r.messages[at : at+n] {
		r.armMessage(at + i)
	}
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&r.messages[at])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// blocked reports whether the ring delivers no more. The kernel gives up a slot, and with
// it the ring, when the offload header cannot express what is to be put there, such as a
// super-packet of SCTP: the slot stays marked as one that is being filled (tpacket_rcv in
// net/packet/af_packet.c, since Linux 5.6 and in the stable series of that time). All that
// comes is dropped then. To be called when the ring is empty, more than once.
func (q *packetQueue) blocked(fd int) bool {
	r := q.arrivals
	if r.ask(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) == 0 {
		q.kernelDrops.Add(uint64(r.answer[1])) // struct tpacket_stats; asking resets it
	}
	drops := q.kernelDrops.Load()
	blocked := r.dry && drops != r.drops
	r.dry, r.drops = true, drops
	return blocked
}

// withoutRing receives by system calls from now on. What waits is lost.
func (q *packetQueue) withoutRing(fd int) unix.Errno {
	q.arrivals.close()
	q.arrivals = nil
	q.receiveErrors.Add(1)
	err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{})
	errno, _ := err.(unix.Errno)
	return errno
}

// socketError takes the error that the socket keeps for who asks next.
func (r *receiveRing) socketError(fd int) unix.Errno {
	if errno := r.ask(fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
		return errno
	}
	return unix.Errno(r.answer[0])
}

// ask is getsockopt.
func (r *receiveRing) ask(fd, level, option int) unix.Errno {
	r.size = uint32(unsafe.Sizeof(r.answer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&r.answer)), uintptr(unsafe.Pointer(&r.size)), 0)
	return errno
}
