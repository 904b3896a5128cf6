// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A frame is in the first bucket whose bound is not below its time.
func TestLatencyBuckets(t *testing.T) {
	bounds := Latency{}.Bounds()
	for _, d := range []time.Duration{0, 1, 3999, 4000, 4001, 8000, 8001, time.Millisecond, 65536 * time.Microsecond, 65537 * time.Microsecond, time.Hour} {
		var l Latency
		l.add(conntrack.Time(d), 3)
		want := 0
		for want < len(bounds) && bounds[want] < d.Seconds() {
			want++
		}
		if l.Buckets[want] != 3 || l.Sum != 3*conntrack.Time(max(d, 1)) {
			t.Errorf("%v: %v, sum %v; want bucket %d", d, l.Buckets, l.Sum, want)
		}
	}
}

// What a batch took is counted for each of its frames.
func TestLatencyOfBatches(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	before := r.shard.latency
	r.feed(wan, syn(1000), syn(1001), syn(1002))
	var frames uint64
	for i, n := range r.shard.latency.Buckets {
		frames += n - before.Buckets[i]
	}
	if frames != 3 || r.shard.latency.Sum <= before.Sum {
		t.Errorf("%d frames took %v", frames, time.Duration(r.shard.latency.Sum-before.Sum))
	}
}
