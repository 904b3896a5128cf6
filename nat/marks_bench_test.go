// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkNewByMark is the first packet of a connection to a service by mark,
// and one of a connection that is there, with so many rules in front of its own.
func BenchmarkNewByMark(b *testing.B) {
	for _, c := range []struct {
		name  string
		rules int
		wide  bool
	}{{"one address", 0, false}, {"a network", 0, true}, {"1000 addresses", 1000, false}, {"100 networks", 100, true}, {"1000 networks", 1000, true}} {
		for _, first := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/first=%v", c.name, first), func(b *testing.B) {
				g := newRig(b, 1<<16)
				k := markKey(1, true)
				must := func(err error) {
					if err != nil {
						b.Fatal(err)
					}
				}
				must(g.rules.AddService(ServiceSpec{ServiceKey: k, Scheduler: "rr"}))
				must(g.rules.AddServer(k, ServerSpec{Addr: netip.MustParseAddr("10.0.0.2"), Weight: 1}))
				bits := 32
				if c.wide {
					bits = 30
				}
				for i := range c.rules {
					p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 6), byte(i << 2)}), bits)
					must(g.rules.AddMark(MarkRule{Mark: 1, Proto: ProtoTCP, To: p}))
				}
				p := netip.MustParsePrefix("192.168.88.24/32")
				if c.wide {
					p = netip.MustParsePrefix("192.168.88.24/29")
				}
				must(g.rules.AddMark(MarkRule{Mark: 1, Proto: ProtoTCP, To: p}))
				g.rules.Publish()
				syn := template("tcp 100.64.0.1:40000 > 192.168.88.24:80 S seq=1")
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					n := uint32(0)
					if first {
						n = uint32(i)
					}
					if i%64 == 0 {
						g.now = g.now.Add(time.Millisecond)
						g.f.Begin(g.now)
						g.f.Sweep(64)
					}
					ends(syn, benchClients+n, benchVirtual+1, 40000, 80)
					if v := g.forward(syn, 0); v.Action != Forward {
						b.Fatal(v.Action, v.Reason)
					}
				}
			})
		}
	}
}
