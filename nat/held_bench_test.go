// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"testing"
	"time"
)

// BenchmarkHeld is what is done to a million connections between batches, and the
// longest that it keeps a packet waiting: their listing in pages, and their end by time.
func BenchmarkHeld(b *testing.B) {
	held := population{1_000_000, ProtoTCP, false}
	g := newRig(b, held.n)
	held.fill(b, g)

	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		var longest stopwatch
		for b.Loop() {
			seen := 0
			for q := (ConnQuery{}); q.Cursor >= 0; {
				longest.start()
				page := g.f.Conns(q)
				longest.stop()
				seen, q.Cursor = seen+len(page.Conns), page.Next
			}
			if seen != held.n {
				b.Fatal(seen)
			}
		}
		longest.report(b, held.n, "worst-page-ns")
	})

	b.Run("expire", func(b *testing.B) {
		b.ReportAllocs()
		var longest stopwatch
		for b.Loop() {
			b.StopTimer()
			if g.f.table.Len() == 0 {
				held.fill(b, g)
			}
			g.now = g.now.Add(time.Hour)
			g.f.Begin(g.now)
			b.StartTimer()
			for more := true; more; {
				longest.start()
				more = g.f.Sweep(sweepMost)
				longest.stop()
			}
			if left := g.f.table.Len(); left != 0 {
				b.Fatal(left)
			}
		}
		longest.report(b, held.n, "worst-call-ns")
	})
}

// A stopwatch keeps the longest of many times.
type stopwatch struct {
	begin   time.Time
	longest time.Duration
}

func (s *stopwatch) start() { s.begin = time.Now() }
func (s *stopwatch) stop()  { s.longest = max(s.longest, time.Since(s.begin)) }

// report says how long each of n connections took in a round of b, and the longest.
func (s *stopwatch) report(b *testing.B, n int, unit string) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/conn")
	b.ReportMetric(float64(s.longest.Nanoseconds()), unit)
}
