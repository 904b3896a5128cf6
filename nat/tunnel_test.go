// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// tunnelEnd does what the server's end of a tunnel does, slowly: it puts outer
// fragments together and returns the packets inside, in order.
func tunnelEnd(t *testing.T, list []Generated, mtu int) (inner [][]byte) {
	t.Helper()
	parts := map[uint32][]byte{} // of each identification, header and payload so far
	for _, g := range list {
		b := g.Packet.Data
		if len(b) > mtu {
			t.Fatalf("%d bytes on a way of %d", len(b), mtu)
		}
		headerLen, id, offset, more := 20, uint32(binary.BigEndian.Uint16(b[4:])), int(binary.BigEndian.Uint16(b[6:])&0x1fff)*8, b[6]&0x20 != 0
		whole := offset == 0 && !more
		if b[0]>>4 == 6 {
			headerLen, whole = 40, b[6] != 44
			if !whole {
				id, offset, more = binary.BigEndian.Uint32(b[44:]), int(binary.BigEndian.Uint16(b[42:])&^7), b[43]&1 != 0
				b = slices.Concat(b[:40], b[48:]) // as if there were no such header
				b[6] = g.Packet.Data[40]
			}
		} else if slowSum(b[:20]) != 0xffff {
			t.Fatalf("outer checksum: % x", b[:20])
		}
		if !whole {
			have := parts[id]
			if offset == 0 {
				have = b[:headerLen:headerLen]
			}
			if len(have) != headerLen+offset || more && (len(b)-headerLen)%8 != 0 {
				t.Fatalf("fragment at %d, %d bytes are there", offset, len(have)-headerLen)
			}
			parts[id] = append(have, b[headerLen:]...)
			if more {
				continue
			}
			b = parts[id]
			delete(parts, id)
			if b[0]>>4 == 4 {
				b[6], b[7] = 0, 0
				binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			} else {
				binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
			}
		}
		if got := decodePacket(b, Offload{}); !agrees(got, got) || bytes.Contains([]byte(got), []byte("damaged")) || bytes.Contains([]byte(got), []byte("gresum=bad")) {
			t.Fatalf("the server's end of the tunnel got %s", got)
		}
		p := innerPacket(b)
		if p == nil {
			t.Fatalf("nothing inside: % x", b)
		}
		inner = append(inner, p)
	}
	if len(parts) != 0 {
		t.Fatalf("%d datagrams are not whole", len(parts))
	}
	return inner
}

// TestTunnelCarriesPackets sends packets of all sizes through tunnels of every kind
// on ways of many MTUs. What comes out at the server's end is the packet that went
// in, one hop older.
func TestTunnelCarriesPackets(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, dst := range []string{"10.0.0.4:80", "[fd00:10::4]:80"} {
		for _, kind := range []string{"tunnel ipip", "tunnel gre", "tunnel gre checksum yes", "gue 6080", "gue 6080 checksum yes"} {
			s := newScript(t, kind)
			for _, service := range []string{"udp 192.168.88.23:80", "udp [2001:db8:88::23]:80"} {
				s.step("service", service+" sched rr")
				s.step("server", dst+" method tunnel "+kind)
			}
			for range 300 {
				mtu := 1340 + r.IntN(9000)
				size := r.IntN(1400)
				text := fmt.Sprintf("udp 192.168.88.21:%d > 192.168.88.23:80 data=%d id=%d", 1+r.IntN(60000), size+r.IntN(20000), r.IntN(65536))
				if r.IntN(2) == 0 {
					text = fmt.Sprintf("udp [2001:db8:88::21]:%d > [2001:db8:88::23]:80 data=%d ext=dest", 1+r.IntN(60000), min(size, mtu-120))
				}
				s.step("mtu", fmt.Sprintf("1 %d", mtu))
				s.dirty = true
				f := s.forwarder()
				f.Begin(s.now)
				b, off := encodePacket(text)
				want := bytes.Clone(b)
				if want[0]>>4 == 6 {
					want[7]--
				} else {
					ipv4Header(want).setTTL(63)
					ipv4Header(want).computeChecksum()
				}
				p := Packet{Data: b, Offload: off, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}
				if v := f.Forward(&p); v.Action != Hold {
					t.Fatalf("%s, MTU %d: %v", text, mtu, v)
				}
				got := tunnelEnd(t, f.Outbox(), mtu)
				if len(got) != 1 || !bytes.Equal(got[0], want) {
					t.Fatalf("%s by %s, MTU %d:\nwant % x\ngot  % x", text, kind, mtu, want, got)
				}
			}
			s.f.Close()
		}
	}
}

// TestTunnelSegments sends super-packets through a tunnel. What comes out carries the
// same stream, with good checksums.
func TestTunnelSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	s := newScript(t, "segments")
	for _, service := range []string{"tcp 192.168.88.23:80", "tcp [2001:db8:88::23]:80", "udp 192.168.88.23:80", "udp [2001:db8:88::23]:80"} {
		s.step("service", service+" sched rr")
		s.step("server", "10.0.0.4:80 method tunnel")
	}
	for _, open := range []string{"tcp 192.168.88.21:40000 > 192.168.88.23:80 S", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 S"} {
		s.arrive("", open)
	}
	f := s.forwarder()
	for range 2000 {
		proto, size, length, cut := []string{"tcp", "udp"}[r.IntN(2)], 1+r.IntN(1400), r.IntN(30000), 1500
		if length > size*500 {
			continue
		}
		ends := "192.168.88.21:40000 > 192.168.88.23:80"
		if r.IntN(2) == 0 {
			ends = "[2001:db8:88::21]:40000 > [2001:db8:88::23]:80"
		}
		text := fmt.Sprintf("%s %s", proto, ends)
		if proto == "tcp" {
			text += fmt.Sprintf(" FPA seq=%d ack=7", r.Uint32())
		}
		b, off := encodePacket(fmt.Sprintf("%s data=%d gso=%d sum=partial", text, length, size))
		if proto == "udp" {
			off.GSOType = GSOUDPL4
		} else {
			b[off.ChecksumStart+13] |= flagCWR
			off.GSOType |= GSOECN
		}
		headers := int(off.ChecksumStart) + 8
		if proto == "tcp" {
			headers += 12
		}
		in := bytes.Clone(b)
		if headers+size > 1480 {
			continue
		}
		f.Begin(s.now)
		if v := f.Forward(&Packet{Data: b, Offload: off, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}); v.Action != Hold {
			t.Fatalf("%s data=%d gso=%d: %v", text, length, size, v)
		}
		got := tunnelEnd(t, f.Outbox(), cut)
		if want := max(1, (length+size-1)/size); len(got) != want {
			t.Fatalf("%s: %d segments, want %d", text, len(got), want)
		}
		var stream []byte
		for i, p := range got {
			l4, last := p[off.ChecksumStart:], i == len(got)-1
			payload := p[headers:]
			if !rightSum(p) || !last && len(payload) != size || p[0]>>4 == 4 && be16(p, 4) != be16(in, 4)+uint16(i) {
				t.Fatalf("%s: segment %d: % x", text, i, p)
			}
			if proto == "tcp" {
				seq, first := binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(in[off.ChecksumStart+4:])
				want := flagACK
				if last {
					want |= flagFIN | flagPSH
				}
				if i == 0 {
					want |= flagCWR
				}
				if seq != first+uint32(len(stream)) || l4[13] != want {
					t.Fatalf("%s: segment %d: seq %d, flags %#x, want %#x", text, i, seq-first, l4[13], want)
				}
			}
			stream = append(stream, payload...)
		}
		if !bytes.Equal(stream, in[headers:]) {
			t.Fatalf("%s: the stream changed", text)
		}
	}
	s.f.Close()
}

// TestSegmenterRefuses: an offload that says nothing useful makes no packets.
func TestSegmenterRefuses(t *testing.T) {
	s := newScript(t, "refuses")
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.4:80 method tunnel")
	f := s.forwarder()
	for _, off := range []Offload{
		{GSOType: GSOTCPv4},
		{GSOType: GSOTCPv4, GSOSize: 65535},
		{GSOType: GSOUDPL4, GSOSize: 1000},
		{GSOType: 9, GSOSize: 1000},
	} {
		b, _ := encodePacket("tcp 192.168.88.21:40000 > 192.168.88.23:80 S data=3000 df")
		f.Begin(s.now)
		if v := f.Forward(&Packet{Data: b, Offload: off}); v.Action != Drop || v.Reason != ReasonTooBig {
			t.Errorf("%+v: %v", off, v)
		}
		for _, g := range f.Outbox() {
			if g.Packet.Data[9] != protoICMP {
				t.Errorf("%+v: sent % x", off, g.Packet.Data)
			}
		}
	}
	s.f.Close()
}

// TestWaysThatAreNone: direct routing needs link addresses, a tunnel an address to
// start at. Without them the client is told that the server can't be reached.
func TestWaysThatAreNone(t *testing.T) {
	for _, row := range []struct {
		name   string
		method string
		change func(s *script)
	}{
		{"direct routing by a port without link addresses", "route", func(s *script) { s.ports[1].L3 = true }},
		{"tunnel from nowhere", "tunnel", func(s *script) { s.ports[1].Addrs = nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newScript(t, row.name)
			row.change(s)
			s.step("service", "udp 192.168.88.23:80 sched rr")
			s.step("server", "10.0.0.4:80 method "+row.method)
			f := s.forwarder()
			f.Begin(s.now)
			b, _ := encodePacket("udp 192.168.88.21:40000 > 192.168.88.23:80 data=9")
			v := f.Forward(&Packet{Data: b, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}})
			list := f.Outbox()
			if v.Action != Drop || v.Reason != ReasonNoRoute || len(list) != 1 {
				t.Fatalf("%+v, %d made", v, len(list))
			}
			want := "icmp 192.168.88.23 > 192.168.88.21 host-unreachable (udp 192.168.88.21:40000 > 192.168.88.23:80)"
			if got := decodePacket(list[0].Packet.Data, Offload{}); !agrees(want, got) {
				t.Error(got)
			}
			s.f.Close()
		})
	}
}

// TestOutboxFullOfTunnel: a packet whose parts do not all find room leaves in no part.
func TestOutboxFullOfTunnel(t *testing.T) {
	s := newScript(t, "full")
	s.step("service", "udp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.4:80 method tunnel")
	f := s.forwarder()
	f.Begin(s.now)
	sent := 0
	for {
		b, _ := encodePacket("udp 192.168.88.21:40000 > 192.168.88.23:80 data=60000")
		v := f.Forward(&Packet{Data: b})
		if v.Action == Drop {
			if v.Reason != ReasonOutboxFull {
				t.Fatal(v)
			}
			break
		}
		sent++
	}
	if got := tunnelEnd(t, f.Outbox(), 1500); len(got) != sent || sent < 10 {
		t.Errorf("%d packets, %d of them arrive", sent, len(got))
	}
	s.f.Close()
}
