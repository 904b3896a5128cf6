// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

func TestSumEqualsReferenceAtEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 70000)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for n := range 600 {
		if got, want := fold(sum(b[n:2*n], 0)), slowSum(b[n:2*n]); got != want {
			t.Fatalf("length %d: %#04x, want %#04x", n, got, want)
		}
	}
	for _, n := range []int{1499, 1500, 9001, 65535, 65536, 70000} {
		if got, want := fold(sum(b[:n], 0)), slowSum(b[:n]); got != want {
			t.Fatalf("length %d: %#04x, want %#04x", n, got, want)
		}
	}
}

// A carry must not get lost when every word is the largest.
func TestSumOfOnesKeepsItsCarries(t *testing.T) {
	b := make([]byte, 300)
	for i := range b {
		b[i] = 0xff
	}
	for n := range len(b) {
		if got, want := fold(sum(b[:n], 0)), slowSum(b[:n]); got != want {
			t.Fatalf("length %d: %#04x, want %#04x", n, got, want)
		}
	}
}

func TestSumGoesOnWhereAnotherEnded(t *testing.T) {
	b := pattern(1001)
	for cut := 0; cut < len(b); cut += 2 {
		if got, want := fold(sum(b[cut:], sum(b[:cut], 0))), slowSum(b); got != want {
			t.Fatalf("cut at %d: %#04x, want %#04x", cut, got, want)
		}
	}
}

func TestUpdateVectorsOfRFC1624(t *testing.T) {
	for _, v := range []struct{ check, old, new, want uint16 }{
		{0xdd2f, 0x5555, 0x3285, 0x0000}, // RFC 1141's short form gives 0xffff
		{0x0000, 0xffff, 0x0000, 0x0000},
		{0x0000, 0x0000, 0xffff, 0x0000},
	} {
		if got := update16(v.check, v.old, v.new); got != v.want {
			t.Errorf("%#04x, %#04x to %#04x: %#04x, want %#04x", v.check, v.old, v.new, got, v.want)
		}
	}
}

func TestUpdateEqualsRecomputation(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 63)
	for range 20000 {
		for i := range b {
			// Few different bytes, so that the two zeros meet often.
			b[i] = []byte{0, 0, 0xff, 0xff, 1, 0xfe, byte(r.Uint32())}[r.IntN(7)]
		}
		b[0] |= 1 // a packet is never all zero
		check := ^slowSum(b)
		at := 2 + 2*r.IntN(30)
		old, new := binary.BigEndian.Uint16(b[at:]), uint16(r.Uint32())
		binary.BigEndian.PutUint16(b[at:], new)
		if got, want := update16(check, old, new), ^slowSum(b); got != want {
			t.Fatalf("%#04x to %#04x: %#04x, want %#04x", old, new, got, want)
		}
	}
}

// randomAddr is an IPv4 or an IPv6 address.
func randomAddr(r *rand.Rand, v4 bool) (a conntrack.Addr) {
	for i := range a {
		a[i] = byte(r.Uint32())
	}
	if v4 {
		copy(a[:12], []byte{10: 0xff, 11: 0xff})
	}
	return a
}

// pseudoBytes is the pseudo-header as the RFCs draw it.
func pseudoBytes(src, dst conntrack.Addr, v4 bool, proto uint8, length int) []byte {
	if v4 {
		b := append(append([]byte(nil), src[12:]...), dst[12:]...)
		return append(b, 0, proto, byte(length>>8), byte(length))
	}
	b := append(append([]byte(nil), src[:]...), dst[:]...)
	return append(b, byte(length>>24), byte(length>>16), byte(length>>8), byte(length), 0, 0, 0, proto)
}

func TestDeltaEqualsRecomputation(t *testing.T) {
	for _, row := range []struct {
		name    string
		v4      bool
		proto   uint8
		length  int
		partial bool
	}{
		{"TCP over IPv4", true, protoTCP, 520, false},
		{"TCP over IPv6", false, protoTCP, 520, false},
		{"TCP, odd length", true, protoTCP, 521, false},
		{"TCP, partial", true, protoTCP, 1300, true},
		{"UDP over IPv4", true, protoUDP, 100, false},
		{"UDP over IPv6", false, protoUDP, 101, false},
		{"UDP, partial", false, protoUDP, 101, true},
		{"UDP, empty", true, protoUDP, 8, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			field := tcpChecksumOffset
			if row.proto == protoUDP {
				field = udpChecksumOffset
			}
			for range 1000 {
				b := make([]byte, row.length)
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				src, dst := randomAddr(r, row.v4), randomAddr(r, row.v4)
				newSrc, newDst := randomAddr(r, row.v4), randomAddr(r, row.v4)
				compute := func(src, dst conntrack.Addr) uint16 {
					b[field], b[field+1] = 0, 0
					pseudo := pseudoBytes(src, dst, row.v4, row.proto, len(b))
					if row.partial {
						return slowSum(pseudo)
					}
					c := ^slowSum(append(pseudo, b...))
					if c == 0 && row.proto == protoUDP {
						return 0xffff
					}
					return c
				}
				check := compute(src, dst)

				var d delta
				d.replaceAddress(&src, &newSrc)
				d.replaceAddress(&dst, &newDst)
				for at := 0; at < 4; at += 2 {
					port := uint16(r.Uint32())
					d.replacePort(binary.BigEndian.Uint16(b[at:]), port)
					binary.BigEndian.PutUint16(b[at:], port)
				}
				got := d.applyFull(check)
				switch {
				case row.partial:
					got = d.applyPartial(check)
				case row.proto == protoUDP:
					got = d.applyUDP(check)
				}
				if want := compute(newSrc, newDst); got != want {
					t.Fatalf("%#04x became %#04x, want %#04x", check, got, want)
				}
			}
		})
	}
}

// FAULTS 33, 34, 35: whatever the field was, the distance from the right value
// stays; a right one stays right; and a UDP sender that computed none is left
// alone.
func TestWrongChecksumStaysWrongByTheSameError(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	distance := func(field, right uint16) int {
		return (int(field) - int(right) + 2*0xffff) % 0xffff
	}
	for round := range 4 {
		b := pattern(60 + round)
		src, dst, to := randomAddr(r, true), randomAddr(r, true), randomAddr(r, true)
		binary.BigEndian.PutUint16(b[tcpChecksumOffset:], 0)
		right := ^slowSum(append(pseudoBytes(src, dst, true, protoTCP, len(b)), b...))
		var d delta
		d.replaceAddress(&dst, &to)
		d.replacePort(binary.BigEndian.Uint16(b[2:]), 8080)
		binary.BigEndian.PutUint16(b[2:], 8080)
		rightAfter := ^slowSum(append(pseudoBytes(src, to, true, protoTCP, len(b)), b...))

		for check := range 1 << 16 {
			full := d.applyFull(uint16(check))
			if a, b := distance(uint16(check), right), distance(full, rightAfter); a != b {
				t.Fatalf("%#04x became %#04x: error %d became %d", check, full, a, b)
			}
			udp := d.applyUDP(uint16(check))
			switch {
			case check == 0 && udp != 0:
				t.Fatalf("UDP without a checksum got %#04x", udp)
			case check != 0 && udp == 0:
				t.Fatalf("UDP checksum %#04x became none", check)
			case check != 0 && udp != full && !(full == 0 && udp == 0xffff):
				t.Fatalf("UDP %#04x became %#04x, TCP %#04x", check, udp, full)
			}
		}
		if got := d.applyFull(right); got != rightAfter {
			t.Fatalf("right %#04x became %#04x, want %#04x", right, got, rightAfter)
		}
	}
}

// FAULTS 35.
func TestComputedZeroIsSentAsOnes(t *testing.T) {
	// From the source port that brings the sum to zero.
	b := udpPacket(t, 4, nil)
	port := binary.BigEndian.Uint16(b[20:])
	check := binary.BigEndian.Uint16(b[26:])
	want := uint16(uint32(port)+uint32(check)) + uint16((uint32(port)+uint32(check))>>16)
	var d delta
	udpHeader(b[20:]).replaceSrcPort(want, &d)
	udpHeader(b[20:]).apply(d)
	if got := binary.BigEndian.Uint16(b[26:]); got != 0xffff {
		t.Fatalf("checksum %#04x, want 0xffff", got)
	}
	sound(t, b)
	if got := transportChecksum(ptr(addr(hostClient)), ptr(addr(hostVirtual)), protoUDP, zeroed(b[20:], 6)); got != 0xffff {
		t.Fatalf("computed anew %#04x, want 0xffff", got)
	}
}

func ptr[T any](v T) *T { return &v }

// zeroed is a copy of b with the two bytes at offset at cleared.
func zeroed(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at], b[at+1] = 0, 0
	return b
}

func TestTransportChecksumEqualsGopacket(t *testing.T) {
	for n := range 70 {
		for _, b := range [][]byte{tcpPacket(t, n, nil), udpPacket(t, n, nil)} {
			field := tcpChecksumOffset
			if b[9] == protoUDP {
				field = udpChecksumOffset
			}
			got := transportChecksum(ptr(addr(hostClient)), ptr(addr(hostVirtual)), b[9], zeroed(b[20:], field))
			if want := binary.BigEndian.Uint16(b[20+field:]); got != want {
				t.Fatalf("protocol %d, %d bytes: %#04x, want %#04x", b[9], n, got, want)
			}
		}
	}
}

// makePartial leaves only the sum of the pseudo-header in the checksum field,
// as a virtual network card does.
func makePartial(b []byte) Offload {
	n := int(b[0]&15) * 4
	field := tcpChecksumOffset
	if b[9] == protoUDP {
		field = udpChecksumOffset
	}
	var src, dst conntrack.Addr
	copy(src[12:], b[12:16])
	copy(dst[12:], b[16:20])
	binary.BigEndian.PutUint16(b[n+field:], slowSum(pseudoBytes(src, dst, true, b[9], len(b)-n)))
	return Offload{NeedsChecksum: true, ChecksumStart: uint16(n), ChecksumOffset: uint16(field)}
}

// FAULTS 7.
func TestPartialChecksumIsCompleted(t *testing.T) {
	for n := range 70 {
		for _, whole := range [][]byte{tcpPacket(t, n, nil), udpPacket(t, n, nil)} {
			b := append([]byte(nil), whole...)
			pkt := Packet{Data: b, Offload: makePartial(b)}
			if !completeOffload(&pkt) || pkt.Offload != (Offload{}) {
				t.Fatal("not completed")
			}
			if string(b) != string(whole) {
				t.Fatalf("% x\nwant % x", b, whole)
			}
		}
	}
}

func TestPartialChecksumOutsideThePacketIsRefused(t *testing.T) {
	b := tcpPacket(t, 0, nil)
	want := string(b)
	for _, o := range [][2]uint16{{20, 19}, {39, 0}, {65535, 65535}, {40, 0}, {0, 39}} {
		if completeChecksum(b, o[0], o[1]) {
			t.Errorf("start %d offset %d accepted", o[0], o[1])
		}
	}
	if string(b) != want {
		t.Error("the packet was changed")
	}
}

func TestHeaderViewsKeepTheHeaderChecksum(t *testing.T) {
	b := tcpPacket(t, 9, func(ip *layers.IPv4, _ *layers.TCP) {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	})
	h := ipv4Header(b)
	for range 63 {
		h.decrementTTL()
		if slowSum(b[:24]) != 0xffff || !h.checksumOK() {
			t.Fatalf("wrong after ttl %d", h.ttl())
		}
	}
	var d delta
	h.replaceSource(ptr(addr(hostServer)), &d)
	h.replaceDestination(ptr(addr(hostClient)), &d)
	tcp := tcpHeader(b[24:])
	tcp.replaceSrcPort(8080, &d)
	tcp.replaceDstPort(1, &d)
	tcp.apply(d)
	p := sound(t, b)
	ip, seg := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ip.SrcIP.Equal(hostServer) || !ip.DstIP.Equal(hostClient) || ip.TTL != 1 || seg.SrcPort != 8080 || seg.DstPort != 1 {
		t.Errorf("rewritten to %v", p)
	}
}
