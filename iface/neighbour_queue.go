// SPDX-License-Identifier: Apache-2.0

package iface

// The frames that wait for a neighbour's answer.
//
// One queue for all, oldest first, in copies. Two bounds keep one silent
// neighbour from hurting another: maxQueuedEach frames for one neighbour, beyond
// which the newest is refused; and maxQueued frames and maxQueuedBytes for all,
// beyond which the oldest makes room. A neighbour that lives answers within
// milliseconds, so what is oldest waits for one that most likely does not.
//
// A frame leaves by an answer (release), by silence (fail), or by being pushed
// out. Whoever wants the frames of one neighbour walks the queue: maxQueued at most,
// once per answer.

const (
	maxQueuedEach  = 48 // a datagram of 64 KiB in Ethernet frames, which come at once, is 45
	maxQueued      = 1024
	maxQueuedBytes = 4 << 20

	// Buffers come in two sizes: for ordinary frames, and for super-packets.
	smallBuffer = 2048
	largeBuffer = MaxFrame
)

type queuedFrame struct {
	owner  *neighbour
	buffer []byte // of smallBuffer or largeBuffer
	length int
	off    Offload

	prev, next *queuedFrame
}

// frameQueue is the queue with its spare buffers, which never hold more than
// the queue itself once did.
type frameQueue struct {
	head, tail   *queuedFrame
	frames       int
	bytes        int // of the buffers in the queue
	small, large [][]byte
}

// take returns a buffer for length bytes.
func (q *frameQueue) take(length int) []byte {
	free, size := &q.small, smallBuffer
	if length > smallBuffer {
		free, size = &q.large, largeBuffer
	}
	if last := len(*free) - 1; last >= 0 {
		b := (*free)[last]
		*free = (*free)[:last]
		return b
	}
	return make([]byte, size)
}

func (q *frameQueue) append(owner *neighbour, frame []byte, off Offload) {
	f := &queuedFrame{owner: owner, buffer: q.take(len(frame)), length: len(frame), off: off, prev: q.tail}
	copy(f.buffer, frame)
	if q.tail != nil {
		q.tail.next = f
	} else {
		q.head = f
	}
	q.tail = f
	q.frames++
	q.bytes += len(f.buffer)
	owner.queued++
}

// remove takes a frame out; its buffer is free again, and the content stays
// until the next append.
func (q *frameQueue) remove(f *queuedFrame) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		q.head = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		q.tail = f.prev
	}
	q.frames--
	q.bytes -= len(f.buffer)
	f.owner.queued--
	if len(f.buffer) == smallBuffer {
		q.small = append(q.small, f.buffer)
	} else {
		q.large = append(q.large, f.buffer)
	}
}

// drain takes out the frames of one neighbour, oldest first.
func (q *frameQueue) drain(owner *neighbour, each func(frame []byte, off Offload)) {
	for f := q.head; f != nil && owner.queued > 0; {
		next := f.next
		if f.owner == owner {
			each(f.buffer[:f.length], f.off)
			q.remove(f)
		}
		f = next
	}
}

// push keeps a copy of a frame for e, or tells that it can not.
func (n *Neighbours) push(e *neighbour, frame []byte, off Offload) bool {
	if e.queued >= maxQueuedEach || len(frame) > largeBuffer {
		return false
	}
	size := smallBuffer
	if len(frame) > smallBuffer {
		size = largeBuffer
	}
	for n.queue.frames >= maxQueued || n.queue.bytes+size > maxQueuedBytes {
		n.queue.remove(n.queue.head)
		n.stats.QueueDisplaced++
	}
	n.queue.append(e, frame, off)
	return true
}

// release sends what waits for e to mac.
func (n *Neighbours) release(e *neighbour, mac [6]byte, send SendFunc) {
	from := n.ports[e.key.port].MAC
	n.queue.drain(e, func(frame []byte, off Offload) {
		address(frame, mac, from)
		send(e.key.port, frame, off)
	})
}
