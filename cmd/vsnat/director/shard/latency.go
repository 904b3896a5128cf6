// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"math/bits"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// How long packets are in the director. The clock is read once a batch, when it was
// sent, and all frames of the batch count with the time since the reading before:
// that of the batch before, or of the moment the loop woke. So the reading from the
// socket is in it, and what another port of the same turn took before; what a frame
// waited in the kernel for the loop to wake is not.

const (
	// shortest is the bound of the first bucket; each next one is twice as long.
	shortest       = conntrack.Time(4 * time.Microsecond)
	latencyBuckets = 15 // up to 65 ms
)

// Latency counts frames by the time they took. The shard writes it.
type Latency struct {
	Buckets [latencyBuckets + 1]uint64 // the last one: longer
	Sum     conntrack.Time
}

// add counts frames that took d.
func (l *Latency) add(d conntrack.Time, frames int) {
	d = max(d, 1)
	l.Buckets[min(bits.Len64(uint64((d-1)/shortest)), latencyBuckets)] += uint64(frames)
	l.Sum += d * conntrack.Time(frames)
}

// took counts the frames of a batch that was sent.
func (s *Shard) took(frames int) {
	now := s.Clock()
	s.latency.add(now-s.looked, frames)
	s.looked = now
}

// merge adds what another shard counted.
func (l *Latency) merge(o *Latency) {
	for i, n := range o.Buckets {
		l.Buckets[i] += n
	}
	l.Sum += o.Sum
}

// Bounds are the upper bounds of the buckets in seconds.
func (Latency) Bounds() []float64 {
	list := make([]float64, latencyBuckets)
	for i := range list {
		list[i] = time.Duration(shortest << i).Seconds()
	}
	return list
}
