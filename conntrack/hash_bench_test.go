// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// BenchmarkChosenClients is look-ups among clients that were chosen so that hashes
// without a key put them into one bucket, or into a few: what they cost compared with
// clients at random, and the longest chain they make.
func BenchmarkChosenClients(b *testing.B) {
	const n = 1 << 17
	const buckets = n * 3 / 2 // of the table below
	r := rand.New(rand.NewPCG(3, 4))
	// The client whose address and port are these 48 bits.
	client := func(bits uint64) Endpoint {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(bits>>16))
		return Endpoint{AddrFrom4(a), uint16(bits)}
	}
	byExclusiveOr := func(addr uint64) Endpoint { return client(addr<<16 | (addr>>16^addr^40000)&0xffff) }
	seen := make(map[uint64]bool)
	random := func(int) Endpoint {
		bits := r.Uint64()>>16 | 1 // port 0 is looked for elsewhere
		for seen[bits] {
			bits = r.Uint64()>>16 | 1
		}
		seen[bits] = true
		return client(bits)
	}
	perLookup := 0.0 // of those at random
	for _, kind := range []struct {
		name   string
		client func(i int) Endpoint
	}{
		{"random", random},
		{"sequential", func(i int) Endpoint { return client(100<<40 + uint64(i)) }},
		{"one bucket by remainder", func(i int) Endpoint { return client(uint64(i+1)*buckets + 40000) }},
		{"one bucket by low bits", func(i int) Endpoint { return client(uint64(i+1)<<24 | 40000) }},
		{"one bucket by exclusive or", func(i int) Endpoint { return byExclusiveOr(uint64(100<<24 + i)) }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			conns := make([]Conn, n)
			for i := range conns {
				conns[i] = numbered(i)
				conns[i].Client = kind.client(i)
			}
			conn := func(i int) Conn { return conns[i] }
			t := benchTable(b, n)
			fill(b, t, n, conn, 0, anHour)
			arriving, _ := tuples(n, conn)
			lookups(b, t, arriving, DstOurs, true)
			took := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			if perLookup == 0 {
				perLookup = took
			}
			b.ReportMetric(took/perLookup, "x-random")
			b.ReportMetric(float64(longestChain(t)), "longest-chain")
		})
	}
}
