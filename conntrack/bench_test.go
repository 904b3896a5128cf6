// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/test/memory"
)

// benchTable has room for n connections.
func benchTable(b *testing.B, n int) *Table {
	b.Helper()
	t, err := NewTable(Config{MaxConns: n, Seed: [2]uint64{1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { t.Close() })
	return t
}

// fill inserts n connections.
func fill(b *testing.B, t *Table, n int, conn func(i int) Conn, now Time, life func(i int) time.Duration) {
	b.Helper()
	for i := range n {
		c := conn(i)
		if _, did := t.Insert(&c, now, life(i)); did != Inserted {
			b.Fatal(i, did)
		}
	}
}

// anHour is the life of connections whose end is of no interest.
func anHour(int) time.Duration { return time.Hour }

// tuples are of packets of n connections, of any at random.
func tuples(n int, conn func(i int) Conn) (arriving, leaving []Tuple) {
	r := rand.New(rand.NewPCG(1, 2))
	for range min(n, 1<<20) {
		c := conn(r.IntN(n))
		arriving = append(arriving, Tuple{Src: c.Client, Dst: c.Virtual, Proto: c.Proto})
		leaving = append(leaving, Tuple{Src: c.Dest, Dst: c.Client, Proto: c.Proto})
	}
	return arriving, leaving
}

// numbered is connection i of a service: another client endpoint for each.
func numbered(i int) Conn {
	return Conn{
		Client:  Endpoint{AddrFrom4([4]byte{100, 64 + byte(i>>22), byte(i >> 14 & 0xff), 7}), uint16(1024 + i&0x3fff)},
		Virtual: Endpoint{AddrFrom4([4]byte{192, 168, 88, 23}), 80},
		Dest:    Endpoint{AddrFrom4([4]byte{10, 0, 0, byte(2 + i%3)}), 80},
		Proto:   protoTCP,
	}
}

// lookups looks up one tuple after the other, again and again.
func lookups(b *testing.B, t *Table, tuples []Tuple, ours Ours, found bool) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if c, _ := t.Lookup(&tuples[i], ours); (c != nil) != found {
			b.Fatal("found:", c)
		}
		if i++; i == len(tuples) {
			i = 0
		}
	}
}

// BenchmarkLookup is in tables that are full; and what the collector of garbage makes
// of them, who is not to see them at all.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			memory.Need(b, int64(n)*200)
			t := benchTable(b, n)
			fill(b, t, n, numbered, 0, anHour)
			arriving, leaving := tuples(n, numbered)
			b.Run("in", func(b *testing.B) {
				lookups(b, t, arriving, DstOurs, true)
				b.ReportMetric(float64(t.Bytes())/float64(n), "B/conn")
			})
			b.Run("out", func(b *testing.B) { lookups(b, t, leaving, DstForeign, true) })
			missing := slices.Clone(arriving)
			for i := range missing {
				missing[i].Src.Port ^= 0x8000
			}
			b.Run("miss", func(b *testing.B) { lookups(b, t, missing, DstOurs, false) })
			if n >= 1_000_000 {
				b.Run("gc", collections)
			}
		})
	}
}

// collections reports how long a collection stops the world, usually and at worst.
func collections(b *testing.B) {
	runs := 0
	for b.Loop() {
		runtime.GC()
		runs++
	}
	var s debug.GCStats
	debug.ReadGCStats(&s)
	pauses := s.Pause[:min(runs, len(s.Pause))] // newest first; it remembers 256
	slices.Sort(pauses)
	b.ReportMetric(float64(pauses[len(pauses)/2]), "pause-ns")
	b.ReportMetric(float64(pauses[len(pauses)-1]), "worst-pause-ns")
}

// BenchmarkInsert is a connection's whole life but its packets.
func BenchmarkInsert(b *testing.B) {
	const n = 1 << 20
	t := benchTable(b, n)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c := numbered(i & (n - 1))
		if _, did := t.Insert(&c, Time(i), time.Hour); did == Inserted {
			i++
			continue
		}
		b.StopTimer()
		for j := range t.Cap() {
			if c := t.At(j); c != nil {
				t.Remove(c, Deleted)
			}
		}
		i = 0
		b.StartTimer()
	}
}

// BenchmarkSweep is a million connections that are all due, to be ended or, as new
// packets have come since, only to be looked at; and the longest of the calls.
func BenchmarkSweep(b *testing.B) {
	const n, budget = 1_000_000, 1024
	for name, more := range map[string]time.Duration{"end": 0, "live on": 1000 * time.Hour} {
		b.Run(name, func(b *testing.B) {
			t := benchTable(b, n)
			now, worst := Time(0), time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if t.Len() == 0 { // in the order of the deadlines they lie anywhere in memory
					fill(b, t, n, numbered, now, func(i int) time.Duration { return more + time.Duration(1+i*7919%900)*time.Second })
				}
				now = now.Add(wheelSlots * time.Duration(tick))
				b.StartTimer()
				for t.Due(now) {
					begin := time.Now()
					t.Sweep(now, budget)
					worst = max(worst, time.Since(begin))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/conn")
			b.ReportMetric(float64(worst.Nanoseconds()), "worst-call-ns")
		})
	}
}
