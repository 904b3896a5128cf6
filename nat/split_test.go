// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
)

// reassemble has gopacket put fragments together and returns the data of the
// datagram, or nil if it is not whole.
func reassemble(t testing.TB, fragments [][]byte) []byte {
	t.Helper()
	d := ip4defrag.NewIPv4Defragmenter()
	for _, b := range fragments {
		ip, err := d.DefragIPv4(decodeFragment(t, b))
		if err != nil {
			t.Fatalf("gopacket: %v", err)
		}
		if ip != nil {
			return ip.Payload
		}
	}
	return nil
}

func decodeFragment(t testing.TB, b []byte) *layers.IPv4 {
	t.Helper()
	ip := new(layers.IPv4)
	if err := ip.DecodeFromBytes(append([]byte(nil), b...), gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("gopacket: %v in % x", err, b)
	}
	if int(ip.Length) != len(b) || slowSum(b[:int(ip.IHL)*4]) != 0xffff {
		t.Fatalf("bad header % x of a fragment of %d bytes", b[:20], len(b))
	}
	return ip
}

// splitAll cuts a packet for mtu.
func splitAll(t testing.TB, pkt Packet, mtu int) (out [][]byte) {
	t.Helper()
	s, r := newSplitter(&pkt, mtu)
	if r != ReasonNone {
		t.Fatalf("mtu %d: %v", mtu, r)
	}
	for {
		b := make([]byte, mtu)
		n := s.next(b)
		if n == 0 {
			return out
		}
		out = append(out, b[:n])
	}
}

// The kernel as director of a segment of 1500 bytes towards an MTU of 1300.
func TestPacketIsCutAsTheKernelDoes(t *testing.T) {
	b := tcpPacket(t, 1460, func(ip *layers.IPv4, _ *layers.TCP) { ip.Id = 0x7002 })
	parts := splitAll(t, Packet{Data: b}, 1300)
	if len(parts) != 2 || len(parts[0]) != 1300 || len(parts[1]) != 220 {
		t.Fatalf("%d fragments", len(parts))
	}
	a, z := decodeFragment(t, parts[0]), decodeFragment(t, parts[1])
	if a.FragOffset != 0 || a.Flags != layers.IPv4MoreFragments || a.Id != 0x7002 ||
		z.FragOffset*8 != 1280 || z.Flags != 0 || z.Id != 0x7002 || z.TTL != a.TTL {
		t.Errorf("%+v\n%+v", a, z)
	}
}

func TestFragmentsReassembleAtEveryMTU(t *testing.T) {
	whole := udpPacket(t, 3001, nil)
	for mtu := 68; mtu < 3100; mtu += 3 {
		parts := splitAll(t, Packet{Data: whole}, mtu)
		for _, b := range parts {
			if len(b) > mtu {
				t.Fatalf("mtu %d: fragment of %d bytes", mtu, len(b))
			}
		}
		if len(parts) == 1 {
			if !bytes.Equal(parts[0], whole) {
				t.Fatalf("mtu %d: a packet that fits was changed", mtu)
			}
			continue
		}
		if got := reassemble(t, parts); !bytes.Equal(got, whole[20:]) {
			t.Fatalf("mtu %d: %d fragments do not make the datagram", mtu, len(parts))
		}
	}
}

func TestFragmentIsCutAgain(t *testing.T) {
	whole := udpPacket(t, 9000, nil)
	var parts [][]byte
	for i, b := range splitAll(t, Packet{Data: whole}, 1500) {
		parts = append(parts, splitAll(t, Packet{Data: b}, 1400-100*i)...)
	}
	if got := reassemble(t, parts); !bytes.Equal(got, whole[20:]) {
		t.Fatalf("%d fragments do not make the datagram", len(parts))
	}
}

func TestOptionsAreCopiedByTheirBit(t *testing.T) {
	// Record route travels in the first fragment only, router alert in all.
	b := withOptions(t, []byte{7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0, 130, 3, 9, 0})
	b = append(b, pattern(500)...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	fixHeader(b)
	parts := splitAll(t, Packet{Data: b}, 200)
	if parts[0][0] != 4<<4|9 || !bytes.Equal(parts[0][20:36], b[20:36]) {
		t.Errorf("first: % x", parts[0][:36])
	}
	want := []byte{148, 4, 0, 0, 130, 3, 9, 0}
	for _, p := range parts[1:] {
		if p[0] != 4<<4|7 || !bytes.Equal(p[20:28], want) {
			t.Errorf("later: % x", p[:36])
		}
	}
	// gopacket's reassembly takes every header for one of 20 bytes.
	var got []byte
	for _, p := range parts {
		ip := decodeFragment(t, p)
		if int(ip.FragOffset)*8 != len(got) {
			t.Fatalf("offset %d, want %d", ip.FragOffset*8, len(got))
		}
		got = append(got, ip.Payload...)
	}
	if !bytes.Equal(got, b[36:]) {
		t.Error("the data changed")
	}
}

func TestPartialChecksumIsCompletedBeforeCutting(t *testing.T) {
	for _, whole := range [][]byte{tcpPacket(t, 1400, nil), udpPacket(t, 1401, nil)} {
		b := append([]byte(nil), whole...)
		o := makePartial(b)
		if got := reassemble(t, splitAll(t, Packet{Data: b, Offload: o}, 576)); !bytes.Equal(got, whole[20:]) {
			t.Error("the checksum is not the full one")
		}
	}
	// A super-datagram stands for one datagram in fragments.
	whole := udpPacket(t, 30000, nil)
	b := append([]byte(nil), whole...)
	o := makePartial(b)
	o.GSOType, o.GSOSize = GSOUDP, 1480
	if got := reassemble(t, splitAll(t, Packet{Data: b, Offload: o}, 1400)); !bytes.Equal(got, whole[20:]) {
		t.Error("the super-datagram came to harm")
	}
}

func TestWhatCannotBeCutIsRefused(t *testing.T) {
	b := tcpPacket(t, 1400, nil)
	for name, row := range map[string]struct {
		pkt Packet
		mtu int
	}{
		"segments":     {Packet{Data: b, Offload: Offload{GSOType: GSOTCPv4, GSOSize: 500}}, 1000},
		"datagrams":    {Packet{Data: b, Offload: Offload{GSOType: GSOUDPL4, GSOSize: 500}}, 1000},
		"MTU of 67":    {Packet{Data: b}, 67},
		"MTU of 0":     {Packet{Data: b}, 0},
		"bad checksum": {Packet{Data: b, Offload: Offload{NeedsChecksum: true, ChecksumStart: 1439}}, 1000},
	} {
		if s, r := newSplitter(&row.pkt, row.mtu); r != ReasonTooBig || s.next(make([]byte, 1500)) != 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// FAULTS 6.
func TestSuperPacketIsMeasuredByItsSegments(t *testing.T) {
	segment := tcpPacket(t, 14480, func(_ *layers.IPv4, tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{{OptionType: 8, OptionLength: 10, OptionData: make([]byte, 8)}}
	})
	datagram := udpPacket(t, 14480, nil)
	for _, row := range []struct {
		name string
		data []byte
		gso  uint8
		size uint16
		mtu  int
		want bool
	}{
		{"TCP, exact", segment, GSOTCPv4, 1448, 1500, true},
		{"TCP with ECN, exact", segment, GSOTCPv4 | GSOECN, 1448, 1500, true},
		{"TCP, one too many", segment, GSOTCPv4, 1449, 1500, false},
		{"TCP, smaller MTU", segment, GSOTCPv4, 1448, 1499, false},
		{"TCP, no size", segment, GSOTCPv4, 0, 1500, false},
		{"TCP, no super-packet", segment, GSONone, 1448, 1500, false},
		{"TCP, no super-packet, jumbo", segment, GSONone, 0, len(segment), true},
		{"UDP segments, exact", datagram, GSOUDPL4, 1472, 1500, true},
		{"UDP segments, one too many", datagram, GSOUDPL4, 1473, 1500, false},
		{"UDP fragments, exact", datagram, GSOUDP, 1480, 1500, true},
		{"unknown", datagram, 9, 100, 1500, false},
	} {
		pkt := Packet{Data: row.data, Offload: Offload{GSOType: row.gso, GSOSize: row.size}}
		if got := mustParse(t, &pkt).gsoFits(&pkt, row.mtu); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestCuttingAllocatesNothing(t *testing.T) {
	pkt := Packet{Data: udpPacket(t, 3000, nil)}
	b := make([]byte, 1500)
	if n := testing.AllocsPerRun(100, func() {
		s, _ := newSplitter(&pkt, 576)
		for s.next(b) > 0 {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
