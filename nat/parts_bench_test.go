// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// The steps of a packet, each alone: what it costs to be read and to be rewritten, by
// the short way of hit and by the walk. What Forward takes beyond that is the table.

// partKinds are packets of which the walk knows everything from their headers.
var partKinds = []struct{ name, packet string }{
	{"tcp4", "tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=1 ack=1"},
	{"tcp6", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 A seq=1 ack=1"},
	{"udp4", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=9"},
	{"echo4", "icmp 192.168.88.21 > 192.168.88.23 echo-reply id=7 data=8"},
	{"echo6", "icmp 2001:db8:88::21 > 2001:db8:88::23 echo-reply id=7 data=8"},
}

func BenchmarkParse(b *testing.B) {
	for _, kind := range partKinds {
		data := template(kind.packet)
		b.Run("walk/"+kind.name, func(b *testing.B) {
			b.ReportAllocs()
			var h parsed
			for b.Loop() {
				p := Packet{Data: data}
				if r := h.parse(&p); r != ReasonNone {
					b.Fatal(r)
				}
			}
		})
		p := Packet{Data: data}
		if g := new(glimpse); g.look(&p) {
			b.Run("hit/"+kind.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !g.look(&p) {
						b.Fatal("is not common any more")
					}
				}
			})
		}
	}
}

// BenchmarkRewrite gives a packet to its server; that it is copied first is included.
func BenchmarkRewrite(b *testing.B) {
	for _, kind := range partKinds {
		data := template(kind.packet)
		g := newRig(b, 1)
		var h parsed
		p := Packet{Data: data}
		if r := h.parse(&p); r != ReasonNone {
			b.Fatal(r)
		}
		server := conntrack.Endpoint{Addr: conntrack.AddrFrom4([4]byte{10, 0, 0, 2}), Port: benchPort}
		if ipHeader(data).is6() {
			server.Addr = conntrack.AddrFrom(netip.MustParseAddr("fd00:10::2"))
		}
		c := conntrack.Conn{Client: h.tuple.Src, Virtual: h.tuple.Dst, Dest: server, Proto: h.proto}
		b.Run("walk/"+kind.name, func(b *testing.B) {
			b.ReportAllocs()
			p := Packet{Data: g.buffer[:len(data)]}
			w := way{port: 1, mtu: 1500}
			for b.Loop() {
				copy(g.buffer[:], data)
				if v := g.f.send(&p, &h, &c, conntrack.Inbound, &w); v.Action != Forward {
					b.Fatal(v.Action)
				}
			}
		})
		if s := new(glimpse); s.look(&p) {
			b.Run("hit/"+kind.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					copy(g.buffer[:], data)
					s.rewrite(g.buffer[:len(data)], conntrack.Inbound, &server, true)
				}
			})
		}
	}
}
