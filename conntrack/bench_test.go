// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// benchTable holds n connections whose tuples come back in a scattered order.
func benchTable(b *testing.B, n int) (t *Table, arriving, leaving []Tuple) {
	b.Helper()
	t, err := NewTable(Config{MaxConns: n, Seed: [2]uint64{1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { t.Close() })

	arriving, leaving = make([]Tuple, n), make([]Tuple, n)
	for i := range n {
		c := numbered(i)
		if _, did := t.Insert(&c, 0, time.Hour); did != Inserted {
			b.Fatal(did)
		}
		arriving[i*7919%n] = Tuple{Src: c.Client, Dst: c.Virtual, Proto: c.Proto}
		leaving[i*7919%n] = Tuple{Src: c.Dest, Dst: c.Client, Proto: c.Proto}
	}

	return t, arriving, leaving
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

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		t, arriving, leaving := benchTable(b, n)
		missing := slices.Clone(arriving)
		for i := range missing {
			missing[i].Src.Port ^= 0x8000
		}
		for _, run := range []struct {
			name   string
			tuples []Tuple
			ours   Ours
			found  bool
		}{
			{"in", arriving, DstOurs, true},
			{"out", leaving, DstForeign, true},
			{"miss", missing, DstOurs, false},
		} {
			b.Run(fmt.Sprintf("%s/%d", run.name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if c, _ := t.Lookup(&run.tuples[i], run.ours); (c != nil) != run.found {
						b.Fatal("found:", c)
					}
					if i++; i == n {
						i = 0
					}
				}
			})
		}
	}
}

// BenchmarkInsert is a connection's whole life but its packets.
func BenchmarkInsert(b *testing.B) {
	const n = 1 << 20
	t, _ := NewTable(Config{MaxConns: n, Seed: [2]uint64{1, 2}})
	defer t.Close()
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

// BenchmarkSweep is what one expiry costs, and what one look at a connection
// that lives on does.
func BenchmarkSweep(b *testing.B) {
	const n = 1 << 18
	for _, life := range []time.Duration{time.Second, 24 * time.Hour} {
		b.Run(life.String(), func(b *testing.B) {
			t, _ := NewTable(Config{MaxConns: n, Seed: [2]uint64{1, 2}})
			defer t.Close()
			now := Time(0)
			b.ReportAllocs()
			done := 0
			for done < b.N {
				b.StopTimer()
				for i := range n {
					c := numbered(i)
					t.Insert(&c, now, life)
				}
				now = now.Add(wheelSlots * time.Duration(tick))
				b.StartTimer()
				t.Sweep(now, n)
				done += n
			}
		})
	}
}
