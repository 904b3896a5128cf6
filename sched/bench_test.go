// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkSchedule is the choice of a server for a connection that opens, and its end,
// so that the load stays as it is: each of another client, to one of many addresses.
func BenchmarkSchedule(b *testing.B) {
	requests := make([]Request, 4096)
	for i := range requests {
		requests[i] = *clientRequest(100<<24 + uint32(i)*7919)
		requests[i].Virtual = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 6), 1}), 80)
	}
	for _, n := range []int{3, 100, 1000} {
		for _, name := range Names() {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				p, _ := NewPool("rr") // which makes no table at each Add
				for i := range n {
					s := NewServer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), 1+i%3)
					for range 1 + i*7%5 { // nobody is idle
						s.ConnOpened()
						s.ConnActivated()
					}
					p.Add(s)
				}
				if err := p.SetScheduler(name); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					s := p.Schedule(&requests[i%len(requests)])
					if s == nil {
						b.Fatal("no server")
					}
					s.ConnOpened()
					s.ConnClosedInactive()
					i++
				}
			})
		}
	}
}
