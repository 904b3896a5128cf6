// SPDX-License-Identifier: Apache-2.0

package iface

import "testing"

// Large frames are read a few at a time, small ones as many as go.
func TestBatchesOfLargeFramesAreShort(t *testing.T) {
	for _, c := range []struct{ frames, length, want int }{
		{1, 60, BatchSize}, {BatchSize, 60, BatchSize}, {BatchSize, 1514, BatchSize}, {0, 0, BatchSize},
		{BatchSize, cached / BatchSize, BatchSize}, {fewest, cached / 16, 16}, {3, cached / 16, 16},
		{1, MaxFrame, fewest}, {BatchSize, MaxFrame, fewest},
	} {
		if got := nextBatch(c.frames, uint64(c.frames)*uint64(c.length)); got != c.want {
			t.Errorf("after %d frames of %d bytes: %d at once, not %d", c.frames, c.length, got, c.want)
		}
	}
}
