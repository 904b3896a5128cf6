// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/test/memory"
)

// A population is connections of one protocol and family in the middle of their
// lives, put into the table directly, so that ten million of them take seconds.
type population struct {
	n     int
	proto uint8
	six   bool
}

const benchPort = 8080 // of all servers

var (
	benchVIP4, benchVIP6 = netip.MustParseAddr("192.168.88.23"), netip.MustParseAddr("2001:db8:88::23")
	benchFrom            = conntrack.LinkAddr{2, 0, 0, 0, 0, 1}
)

// conn is the i-th of them.
func (p *population) conn(i int) conntrack.Conn {
	c := conntrack.Conn{
		Client:  conntrack.Endpoint{Addr: conntrack.AddrFrom4([4]byte{100, byte(i >> 18), byte(i >> 10), byte(i >> 2)}), Port: uint16(1024 + i&3)},
		Virtual: conntrack.EndpointFrom(netip.AddrPortFrom(benchVIP4, 80)),
		Dest:    conntrack.Endpoint{Addr: conntrack.AddrFrom4([4]byte{10, 0, 0, byte(2 + i%8)}), Port: benchPort},
		Proto:   p.proto, State: conntrack.Established, Flags: conntrack.Replied,
		Hop: benchFrom, InsidePort: 1,
	}
	if p.proto == ProtoUDP {
		c.State, c.Virtual.Port = conntrack.UDP, 53
	}
	if p.six {
		c.Client.Addr = conntrack.AddrFrom(netip.MustParseAddr("2001:db8:c::"))
		binary.BigEndian.PutUint32(c.Client.Addr[12:], uint32(i>>2))
		c.Virtual.Addr = conntrack.AddrFrom(benchVIP6)
		c.Dest.Addr = conntrack.AddrFrom(netip.MustParseAddr(fmt.Sprintf("fd00:10::%d", 2+i%8)))
	}
	return c
}

// fill puts them into the table of a rig.
func (p *population) fill(tb testing.TB, g *rig) {
	servers := make(map[conntrack.Endpoint]uint32)
	for _, v := range g.rules.Services() {
		if v.Proto == p.proto {
			for _, d := range v.Servers {
				servers[conntrack.Endpoint{Addr: conntrack.AddrFrom(d.Addr), Port: d.Port}] = d.Slot
			}
		}
	}
	for i := range p.n {
		c := p.conn(i)
		c.Server = servers[c.Dest]
		if i < 8 && g.f.snap.server[c.Server].dest != c.Dest {
			tb.Fatal("no such server: ", c.Dest)
		}
		entry, outcome := g.f.table.Insert(&c, g.now, 15*time.Minute)
		if outcome != conntrack.Inserted {
			tb.Fatal(i, outcome)
		}
		g.f.table.SetClass(entry, conntrack.ClassHeld)
	}
}

// shortPacket is a packet without payload to speak of, in a cache line.
type shortPacket [64]byte

// packets returns a packet each for many of the connections, at random, in the order in
// which they are to be sent.
func (p *population) packets(dir conntrack.Direction) (list []shortPacket, length int) {
	r := rand.New(rand.NewPCG(1, 2))
	list = make([]shortPacket, min(max(p.n&^63, 4096), 1<<20)) // whole batches
	order := r.Perm(p.n)
	for i := range list {
		c := p.conn(order[i%p.n])
		src, dst := c.Client, c.Virtual
		if dir == conntrack.Outbound {
			src, dst = c.Dest, c.Client
		}
		b := list[i][:]
		at := ipv4HeaderLen
		if p.six {
			at = ipv6HeaderLen
		}
		length = at + tcpHeaderLen
		if p.proto == ProtoUDP {
			length = at + udpHeaderLen
		}
		if p.six {
			writeIPv6(b[:at], p.proto, &src.Addr, &dst.Addr)
			ipv6Header(b).setPayloadLen(length - at)
		} else {
			writeIPv4(b[:at], p.proto, &src.Addr, &dst.Addr, 0, ipv4DontFragment, 0)
			ipv4Header(b).setTotalLen(length)
			ipv4Header(b).setTTL(64)
			ipv4Header(b).computeChecksum()
		}
		l4 := b[at:]
		binary.BigEndian.PutUint16(l4, src.Port)
		binary.BigEndian.PutUint16(l4[2:], dst.Port)
		if p.proto == ProtoTCP {
			t := tcpHeader(l4)
			t.setHeaderLen(tcpHeaderLen)
			t.setFlags(flagACK)
			t.setSeq(1000)
			t.setAck(1000)
			t.setChecksum(1)
		} else {
			binary.BigEndian.PutUint16(l4[4:], uint16(length-at))
			binary.BigEndian.PutUint16(l4[6:], 1)
		}
	}
	return list, length
}

// BenchmarkForwardHit is a packet of a connection in its middle, each of another one, at
// random, in full batches, and, where it says so, in batches of one. What a batch costs
// between two calls of the system is included.
func BenchmarkForwardHit(b *testing.B) {
	for _, n := range []int{16, 1_000, 100_000, 1_000_000, 10_000_000} {
		for _, kind := range []population{{n, ProtoTCP, false}, {n, ProtoTCP, true}, {n, ProtoUDP, false}, {n, ProtoUDP, true}} {
			if n > 1000 && kind.proto == ProtoUDP || n > 1_000_000 && kind.six {
				continue
			}
			name := strings.ToLower(protoNames[kind.proto]) + map[bool]string{false: "4", true: "6"}[kind.six]
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				memory.Need(b, int64(n)*200)
				g := newRig(b, n)
				kind.fill(b, g)
				for _, dir := range []conntrack.Direction{conntrack.Inbound, conntrack.Outbound} {
					packets, length := kind.packets(dir)
					b.Run(dir.String(), func(b *testing.B) { g.hits(b, packets, length, uint16(dir), 64) })
					if kind.proto == ProtoTCP && !kind.six {
						b.Run(dir.String()+"-alone", func(b *testing.B) { g.hits(b, packets, length, uint16(dir), 1) })
					}
				}
			})
		}
	}
}

var protoNames = map[uint8]string{ProtoTCP: "TCP", ProtoUDP: "UDP"}

// hits forwards the packets again and again, in batches of a size as a shard does.
func (g *rig) hits(b *testing.B, packets []shortPacket, length int, in uint16, size int) {
	b.ReportAllocs()
	b.ReportMetric(float64(g.f.table.Bytes())/float64(g.f.table.Cap()), "B/conn")
	var slots [64]shortPacket
	batch := slots[:size]
	p := Packet{From: benchFrom, In: in}
	for at := 0; at < b.N; at += size {
		copy(batch, packets[at%len(packets):])
		if size > 1 {
			for i := range batch {
				g.f.Ahead(batch[i][:length])
			}
		}
		for i := range batch {
			p.Data = batch[i][:length]
			if v := g.f.Forward(&p); v.Action != Forward {
				b.Fatal(v.Action, v.Reason)
			}
		}
		g.batch(time.Microsecond)
	}
}
