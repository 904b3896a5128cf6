// SPDX-License-Identifier: Apache-2.0

package iface

// SendByRing sends through the ring of a packet queue alone and returns how many of the
// first frames went out.
func SendByRing(q Queue, frames []Frame) int { return q.(*packetQueue).ring.send(frames) }
