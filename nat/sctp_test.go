// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// The test vectors of RFC 3720 appendix B.4, and the usual one, for both ways to
// compute the sum.
func TestCRC32cVectors(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[i] = byte(i), byte(31-i)
	}
	for _, v := range []struct {
		data []byte
		want uint32
	}{
		{make([]byte, 32), 0x8a9136aa},
		{slices.Repeat([]byte{0xff}, 32), 0x62a8ab43},
		{up, 0x46dd794e},
		{down, 0x113fdb5c},
		{[]byte("123456789"), 0xe3069283},
	} {
		if got := slowCRC32c(v.data); got != v.want {
			t.Errorf("bit by bit, % x: %#08x, want %#08x", v.data, got, v.want)
		}
		if len(v.data) < sctpHeaderLen {
			continue
		}
		zeroed := slices.Clone(v.data)
		clear(zeroed[8:12])
		if got, want := checksumSCTP(v.data), slowCRC32c(zeroed); got != want {
			t.Errorf("% x: %#08x, want %#08x", v.data, got, want)
		}
	}
}

// TestSCTPPortsKeepTheChecksum: for every length, and with whatever error it had.
func TestSCTPPortsKeepTheChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(132, 1))
	b := make([]byte, 65535)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	lengths := []int{255, 256, 257, 511, 512, 513, 9000, 32767, 32768, 65279, 65280, 65281, 65532, 65535}
	for n := sctpHeaderLen; n < 1600; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		h := sctpHeader(slices.Clone(b[:n]))
		h.setChecksum(checksumSCTP(h))
		wrong := r.Uint32() * uint32(n%3) // every third is right
		h.setChecksum(h.checksum() ^ wrong)
		for range 2 {
			src, dst := uint16(r.Uint32()), uint16(r.Uint32())
			h.replacePorts(src, dst, n)
			if h.srcPort() != src || h.dstPort() != dst {
				t.Fatalf("ports %d > %d, want %d > %d", h.srcPort(), h.dstPort(), src, dst)
			}
			if got := h.checksum() ^ checksumSCTP(h); got != wrong {
				t.Fatalf("%d bytes: the error is %#08x, was %#08x", n, got, wrong)
			}
		}
		before := h.checksum()
		h.replacePorts(h.srcPort(), h.dstPort(), n)
		if h.checksum() != before {
			t.Fatalf("%d bytes: the same ports change the checksum", n)
		}
		h.replacePorts(^h.srcPort(), 1, 0)
		if h.checksum() != before {
			t.Fatalf("%d bytes: a checksum that is not there was changed", n)
		}
	}
}

// TestSCTPOfFragments puts datagrams together again that left in fragments: the
// checksum of the first is right for all, whatever the length and the order.
func TestSCTPOfFragments(t *testing.T) {
	r := rand.New(rand.NewPCG(132, 2))
	for _, v6 := range []bool{false, true} {
		s := newScript(t, "fragments")
		client, service, server, header := "192.168.88.21:40000", "192.168.88.23:80", "10.0.0.2:8080", 20
		if v6 {
			client, service, server, header = "[2001:db8:88::21]:40000", "[2001:db8:88::23]:80", "[fd00:10::2]:8080", 40
		}
		s.step("service", "sctp "+service)
		s.step("server", server)
		s.arrive("", "sctp "+client+" > "+service+" INIT")
		s.verdict = nil
		for i := range 200 {
			whole, _ := encodePacket(fmt.Sprintf("sctp %s > %s DATA tag=5 data=%d", client, service, 1500+r.IntN(6000)))
			wrong := i%4 == 0
			if wrong {
				whole[header+9] ^= 1
			}
			var parts [][]byte
			for at := 0; at < len(whole)-header; {
				rest := len(whole) - header - at
				n := 16 + 8*r.IntN(150)
				last := rest-n < 8 // gopacket takes no shorter ones
				if last {
					n = rest
				}
				if v6 {
					part := slices.Concat(whole[:40], whole[40+at:40+at+n])
					parts = append(parts, extended(part, destination(1, 4, 0, 0, 0, 0), fragmentExtension(uint32(i), at, !last)))
				} else {
					parts = append(parts, ipv4Part(whole, uint16(i), at, n, !last))
				}
				at += n
			}
			r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			s.f.Begin(s.now)
			var out [][]byte
			for k, b := range parts {
				p := Packet{Data: b, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 21}}
				v := s.f.Forward(&p)
				if k < len(parts)-1 && v.Action != Hold || v.Action == Drop {
					t.Fatalf("fragment %d: %s %s", k, v.Action, v.Reason)
				}
				if v.Action == Forward {
					out = append(out, p.Data)
				}
			}
			for _, g := range s.f.Outbox() {
				out = append(out, g.Packet.Data)
			}
			var data []byte
			if v6 {
				data = reassemble6(t, out)
			} else {
				data = reassemble(t, out)
			}
			if len(data) != len(whole)-header || be16(data, 2) != 8080 || sctpSumOK(data) == wrong {
				t.Fatalf("datagram %d of %d bytes in %d fragments: %d bytes arrive, to port %d, the sum is right: %v",
					i, len(whole)-header, len(parts), len(data), be16(data, 2), sctpSumOK(data))
			}
		}
		s.f.Close()
	}
}

// ipv4Part is the fragment of a datagram that has n bytes of its data from at on.
func ipv4Part(whole []byte, id uint16, at, n int, more bool) []byte {
	b := slices.Concat(whole[:20], whole[20+at:20+at+n])
	binary.BigEndian.PutUint16(b[4:], id)
	word := uint16(at / 8)
	if more {
		word |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], word)
	repair(b)
	return b
}

// TestSCTPParse: what is read of each kind of packet.
func TestSCTPParse(t *testing.T) {
	for _, row := range []struct {
		text      string
		chunk     uint8
		tag, init uint32
		reflected bool
		opens     bool
	}{
		{"INIT init=5", sctpInit, 0, 5, false, true},
		{"INIT-ACK tag=5 init=6", sctpInitAck, 5, 6, false, false},
		{"DATA+ABORT tag=5", 0, 5, 0, false, false},
		{"ABORT tag=5", sctpAbort, 5, 0, false, false},
		{"ABORT/T tag=5", sctpAbort, 5, 0, true, false},
		{"SHUTDOWN-COMPLETE/T tag=5", sctpShutdownComplete, 5, 0, true, false},
		{"SACK/T tag=5", 3, 5, 0, false, false},
		{"COOKIE-ECHO+DATA tag=5 data=1", sctpCookieEcho, 5, 0, false, false},
		{"COOKIE-ECHO+ABORT/T tag=5", sctpAbort, 5, 0, true, false},
		{"COOKIE-ACK+ABORT tag=5", sctpAbort, 5, 0, false, false},
		{"COOKIE-ACK+SACK+ABORT tag=5", sctpCookieAck, 5, 0, false, false},
	} {
		b, _ := encodePacket("sctp 192.168.88.21:40000 > 192.168.88.23:80 " + row.text)
		p := mustParse(t, &Packet{Data: b})
		if p.kind != kindSCTP || p.chunk != row.chunk || p.tag != row.tag || p.initiate != row.init ||
			p.reflected != row.reflected || p.opens() != row.opens || p.sctpLen() != len(b)-20 {
			t.Errorf("%s: %+v", row.text, p)
		}
	}
	// A chunk that says to be longer than the packet, or shorter than itself.
	for _, length := range []uint16{0, 3, 0xffff} {
		b, _ := encodePacket("sctp 192.168.88.21:40000 > 192.168.88.23:80 COOKIE-ECHO+ABORT tag=5")
		binary.BigEndian.PutUint16(b[20+12+2:], length)
		if p := mustParse(t, &Packet{Data: b}); p.chunk != sctpCookieEcho {
			t.Errorf("length %d: chunk %d", length, p.chunk)
		}
	}
	for n := range 32 { // an INIT cut at every length
		b, _ := encodePacket("sctp 192.168.88.21:40000 > 192.168.88.23:80 INIT init=5")
		b = b[:20+n]
		repair(b)
		want := ReasonSCTPHeader
		if n >= 16 {
			want = ReasonSCTPTag
		}
		if n >= 20 {
			want = ReasonNone
		}
		wantReason(t, fmt.Sprintf("INIT of %d bytes", n), b, want)
	}
	b, _ := encodePacket("frag 192.168.88.21 > 192.168.88.23 proto=132 off=16 data=20")
	if p := mustParse(t, &Packet{Data: b}); p.kind != kindFragment {
		t.Errorf("a later fragment is of kind %d", p.kind)
	}
	b, off := encodePacket("sctp 192.168.88.21:40000 > 192.168.88.23:80 DATA tag=5 sum=partial")
	off.ChecksumOffset = tcpChecksumOffset
	var p parsed
	if r := p.parse(&Packet{Data: b, Offload: off}); r != ReasonSCTPHeader {
		t.Errorf("a checksum in the wrong place: %s", r)
	}
}

// TestQuotedSCTPOfAFragment: what the checksum of a first fragment covers is not
// quoted, so that it stays as it is.
func TestQuotedSCTPOfAFragment(t *testing.T) {
	for _, more := range []string{"", " mf"} {
		b, _ := encodePacket("sctp 192.168.88.23:80 > 192.168.88.21:40000 DATA tag=11 data=100" + more)
		r, q := quoteReason(t, icmpPacket(t, 11, 0, 0, b))
		if r != ReasonNone || q.kind != kindSCTP || q.tag != 11 || q.tuple.Src.Port != 80 || q.tuple.Dst.Port != 40000 {
			t.Errorf("%s: %s %+v", more, r, q)
		}
		if more == "" && q.sctpLen != len(b)-20 || more != "" && q.sctpLen != 0 {
			t.Errorf("%s: the checksum covers %d bytes", more, q.sctpLen)
		}
		r, q = quoteReason(t, icmpPacket(t, 11, 0, 0, b[:31])) // one byte of it is missing
		if r != ReasonNone || q.sctpLen != 0 {
			t.Errorf("%s, cut: %s, the checksum covers %d bytes", more, r, q.sctpLen)
		}
	}
}

func BenchmarkSCTPPorts(b *testing.B) {
	for _, n := range []int{64, 1480, 65515} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := sctpHeader(make([]byte, n))
			for i := range b.N {
				h.replacePorts(uint16(i), 80, n)
			}
		})
		b.Run(fmt.Sprint(n, "/twice"), func(b *testing.B) { // what reading it twice would cost
			h := sctpHeader(make([]byte, n))
			for i := range b.N {
				old := checksumSCTP(h)
				h.setSrcPort(uint16(i))
				h.setChecksum(h.checksum() ^ old ^ checksumSCTP(h))
			}
		})
	}
}
