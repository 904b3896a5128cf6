// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// heap is how many bytes of the Go heap are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// FAULTS 86: whatever comes, a Forwarder has no more memory than it says from the
// beginning that it will have. The table's is mapped, once; the rest is counted here.
func TestMemoryIsKnown(t *testing.T) {
	s := newScript(t, "memory")
	s.max = 20_000
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:80")
	s.step("service", "udp 192.168.88.23:53 sched rr")
	s.step("server", "10.0.0.2:53")
	s.step("snat", "10.0.0.0/8 192.168.88.23")
	before := heap()
	f := s.forwarder()
	defer f.Close()
	// One of each that makes an entry, a mapping, a waiting fragment, an answer.
	var kinds []Packet
	for _, text := range []string{
		"tcp 192.168.88.21:40000 > 192.168.88.23:80 S", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=9",
		"udp 192.168.88.21:40000 > 192.168.88.23:53 data=1000 mf id=7", "udp 192.168.88.21:40000 > 192.168.88.23:99 data=9",
		"icmp 192.168.88.21 > 192.168.88.23 echo-request id=1 data=1000", "udp 10.0.0.2:4000 > 203.0.113.9:53 data=9",
	} {
		b, off := encodePacket(text)
		kinds = append(kinds, Packet{Data: b, Offload: off, From: conntrack.LinkAddr{2}})
	}
	kinds[len(kinds)-1].In = 1
	scratch := make([]byte, 2000)
	for i := range 200_000 {
		if i%64 == 0 {
			f.Begin(s.now)
		}
		p := kinds[i%len(kinds)]
		p.Data = scratch[:copy(scratch, p.Data)]
		ip := ipv4Header(p.Data)
		src := ip.src()
		binary.BigEndian.PutUint16(p.Data[14:], uint16(i/len(kinds)))
		if src != ip.src() {
			fixHeader(p.Data)
		}
		f.Forward(&p)
	}
	if n := f.Stats().Conns; n < s.max/2 {
		t.Errorf("only %d entries: that was no flood", n)
	}
	if took, said := heap()-before, f.bytes()-f.table.Bytes(); took > said+1<<20 { // and what the test itself took
		t.Errorf("%d bytes of memory beside the table, %d were announced", took, said)
	}
}
