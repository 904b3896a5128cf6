// SPDX-License-Identifier: Apache-2.0

package iface

// SendByRing sends through the ring of a packet queue alone and returns how many of the
// first frames went out.
func SendByRing(q Queue, frames []Frame) int { return q.(*packetQueue).ring.send(frames) }

// OpenTUN creates a TUN device with one queue.
func OpenTUN(name string, mtu int) (*TUN, error) {
	queues, err := OpenTUNs(name, mtu, 1)
	if err != nil {
		return nil, err
	}
	return queues[0], nil
}

// ReceiveSlots is how many frames wait in the ring of a packet queue.
const ReceiveSlots = receiveSlots

// HasReceiveRing reports whether a packet queue receives by a ring.
func HasReceiveRing(q Queue) bool { return q.(*packetQueue).arrivals != nil }
