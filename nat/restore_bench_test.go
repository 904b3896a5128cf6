// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// heldConns is how many connections are written down and restored.
const heldConns = 1 << 17

func heldSite(b *testing.B) []*Forwarder {
	b.Helper()
	s := newScript(new(testing.T), "held")
	s.max = heldConns
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:8080")
	f := s.forwarder()
	f.Begin(s.now)
	for i := range heldConns {
		client := conntrack.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
		r := conntrack.Record{Conn: conntrack.Conn{
			Client: conntrack.Endpoint{Addr: client, Port: 40000}, Virtual: endpoint("192.168.88.23:80"), Dest: endpoint("10.0.0.2:8080"),
			Proto: ProtoTCP, State: conntrack.Established, Flags: conntrack.Replied,
			Window: [2]conntrack.Window{{End: uint32(i), Flags: conntrack.WindowSeen}, {Ack: uint32(i), Flags: conntrack.WindowAcked}},
		}, Class: conntrack.ClassHeld, Left: 900e9}
		if c, why := f.resume(&r, nil, nil); c == nil {
			b.Fatal(why)
		}
	}
	return []*Forwarder{f}
}

func BenchmarkSave(b *testing.B) {
	all := heldSite(b)
	bytes := 0
	for b.Loop() {
		bytes = 0
		if err := Save(all, all[0].now, func(_ RecordKind, body []byte) error { bytes += 3 + len(body); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytes)/heldConns, "B/conn")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/heldConns, "ns/conn")
	_ = all[0].Close() // only memory
}

func BenchmarkRestore(b *testing.B) {
	all := heldSite(b)
	var kinds []RecordKind
	var bodies [][]byte
	if err := Save(all, all[0].now, func(k RecordKind, body []byte) error {
		kinds, bodies = append(kinds, k), append(bodies, append([]byte(nil), body...))
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		for i := range all[0].table.Extent() {
			if c := all[0].table.At(i); c != nil {
				all[0].table.Remove(c, conntrack.Deleted)
			}
		}
		b.StartTimer()
		r := NewRestoration(all, 0)
		for i, k := range kinds {
			r.Take(k, bodies[i])
		}
		if r.Conns != heldConns {
			b.Fatal(fmt.Sprint(r.Restored))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/heldConns, "ns/conn")
	_ = all[0].Close() // only memory
}
