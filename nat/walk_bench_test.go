// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A rig forwards packets that are made by patching templates, so that what is
// measured is the Forwarder.
type rig struct {
	f      *Forwarder
	rules  *Rules
	now    conntrack.Time
	buffer [2048]byte
}

func newRig(tb testing.TB, maxConns int) *rig {
	tb.Helper()
	r := NewRules()
	must := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	for proto, port := range map[uint8]uint16{ProtoTCP: 80, ProtoUDP: 53} {
		for _, vip := range []netip.Addr{benchVIP4, benchVIP6} {
			k := ServiceKey{Proto: proto, Addr: vip, Port: port}
			must(r.AddService(ServiceSpec{ServiceKey: k, Scheduler: "rr"}))
			for i := range 8 {
				server := netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)})
				if vip.Is6() {
					server = netip.MustParseAddr(fmt.Sprintf("fd00:10::%d", 2+i))
				}
				must(r.AddServer(k, ServerSpec{Addr: server, Port: benchPort, Weight: 1}))
			}
		}
	}
	must(r.AddSNAT(SNATSpec{From: netip.MustParsePrefix("10.0.0.0/16"), To: benchVIP4}))
	must(r.AddSNAT(SNATSpec{From: netip.MustParsePrefix("fd00:10::/64"), To: benchVIP6}))
	r.SetPorts([]PortInfo{
		{Index: 0, MTU: 1500, Up: true},
		{Index: 1, MTU: 1500, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}},
	})
	r.SetRoutes([]Route{
		{Dst: netip.MustParsePrefix("10.0.0.0/16"), Port: 1},
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: 0},
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.168.88.1"), Port: 0},
		{Dst: netip.MustParsePrefix("fd00:10::/64"), Port: 1},
		{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::88:1"), Port: 0},
	})
	r.Publish()
	f, err := NewForwarder(ForwarderConfig{Rules: r, MaxConns: maxConns, Seed: [2]uint64{1, 2}})
	must(err)
	tb.Cleanup(func() { must(f.Close()) })
	g := &rig{f: f, rules: r, now: conntrack.Time(time.Hour)}
	f.Begin(g.now)
	return g
}

// template is a packet whose ends are to be set.
func template(text string) []byte { b, _ := encodePacket(text); return b }

// ends writes addresses and ports over a template of TCP or UDP and has the IP
// header be right. The transport checksum stays as wrong as it gets.
func ends(b []byte, src, dst uint32, sport, dport uint16) {
	binary.BigEndian.PutUint32(b[12:], src)
	binary.BigEndian.PutUint32(b[16:], dst)
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	ipv4Header(b).computeChecksum()
}

const (
	benchVirtual = 192<<24 | 168<<16 | 88<<8 | 23
	benchClients = 100 << 24
)

func (g *rig) forward(b []byte, in uint16) Verdict {
	n := copy(g.buffer[:], b)
	p := Packet{Data: g.buffer[:n], In: in, From: conntrack.LinkAddr{2, 0, 0, 0, 0, byte(in)}}
	return g.f.Forward(&p)
}

// batch ends a batch and begins the next, as a shard does.
func (g *rig) batch(d time.Duration) {
	g.now = g.now.Add(d)
	g.f.Sweep(128)
	g.f.Begin(g.now)
}

// BenchmarkForwardNew opens connections in a table that is full of half-open
// ones: each costs an eviction, a schedule and an insert, as in a SYN flood.
func BenchmarkForwardNew(b *testing.B) {
	for _, kind := range []struct{ name, syn string }{
		{"tcp4", "tcp 192.168.88.21:1 > 192.168.88.23:80 S seq=1 mss=1460"},
		{"tcp6", "tcp [2001:db8:c::1]:1 > [2001:db8:88::23]:80 S seq=1 mss=1440"},
	} {
		b.Run(kind.name, func(b *testing.B) {
			g := newRig(b, 100_000)
			syn := template(kind.syn)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if ipHeader(syn).is6() {
					binary.BigEndian.PutUint32(syn[20:], uint32(i))
				} else {
					ends(syn, uint32(benchClients+i&0xffffff), benchVirtual, uint16(1024+i>>24), 80)
				}
				if v := g.forward(syn, 0); v.Action != Forward {
					b.Fatal(v.Reason)
				}
				if i%64 == 63 {
					g.batch(time.Microsecond)
				}
			}
		})
	}
}

// BenchmarkForwardSNATNew opens outbound flows, each with a mapping of its own.
func BenchmarkForwardSNATNew(b *testing.B) {
	g := newRig(b, 30_000)
	first := template("udp 10.0.0.2:1 > 203.0.113.9:53 data=20")
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		ends(first, uint32(10<<24+2+i>>12&0xfff), 203<<24|113<<8|9, uint16(1024+i&0xfff), 53)
		if v := g.forward(first, 1); v.Action != Forward {
			b.Fatal(v.Reason)
		}
		if i%64 == 63 {
			g.batch(time.Microsecond)
		}
	}
}

// BenchmarkForwardDrop is packets that nobody waits for.
func BenchmarkForwardDrop(b *testing.B) {
	for _, kind := range []struct{ name, packet string }{
		{"tcp4", "tcp 192.168.88.21:1 > 192.168.88.23:80 A seq=1"},
		{"tcp6", "tcp [2001:db8:88::21]:1 > [2001:db8:88::23]:80 A seq=1"},
		{"checksum4", "tcp 192.168.88.21:1 > 192.168.88.23:80 S ipsum=bad"},
	} {
		b.Run(kind.name, func(b *testing.B) {
			g := newRig(b, 1000)
			stranger := template(kind.packet)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if v := g.forward(stranger, 0); v.Action != Drop {
					b.Fatal(v.Action)
				}
				if i%64 == 63 {
					g.batch(time.Microsecond)
				}
			}
		})
	}
}

// BenchmarkForwardPast is what direct routing and tunnels take, with segments as they
// are on the wire and with super-packets, which a tunnel has to cut.
func BenchmarkForwardPast(b *testing.B) {
	for _, method := range []string{"route", "tunnel"} {
		for size, packet := range map[string]string{"segment": "data=1400", "super-packet": "data=64400 gso=1400 sum=partial"} {
			b.Run(method+"/"+size, func(b *testing.B) {
				s := newScript(&testing.T{}, "bench")
				s.step("service", "tcp 192.168.88.23:80 sched rr")
				s.step("server", "10.0.0.2:80 method "+method)
				s.arrive("", "tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq=1")
				data, off := encodePacket("tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=2 ack=2 df ttl=255 " + packet)
				p := Packet{From: conntrack.LinkAddr{2, 0, 0, 0, 0, 21}}
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					p.Data, p.Offload = data, off
					data[8], data[10], data[11] = 255, 0, 0
					ipv4Header(data).computeChecksum()
					s.f.Begin(s.now)
					if v := s.f.Forward(&p); v.Action == Drop || v.Action == Pass {
						b.Fatal(v)
					}
					s.f.Outbox()
				}
				s.f.Close()
			})
		}
	}
}
