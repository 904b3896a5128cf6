// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// fragmentOf makes a fragment of any length at any place.
func fragmentOf(t testing.TB, proto layers.IPProtocol, id uint16, offset int, more bool, data []byte) []byte {
	b := serialize(t, ipLayer(proto), gopacket.Payload(data))
	binary.BigEndian.PutUint16(b[4:], id)
	w := uint16(offset / 8)
	if more {
		w |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], w)
	return fixHeader(b)
}

// FAULTS 22.
func TestTinyFirstFragmentIsDropped(t *testing.T) {
	segment := tcpPacket(t, 100, func(_ *layers.IPv4, tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 180}}}
	})[20:]
	datagram := udpPacket(t, 100, nil)[20:]
	echo := icmpPacket(t, 8, 0, 1, pattern(100))[20:]
	for n := 8; n <= 48; n += 8 {
		want := ReasonNone
		if n < 24 {
			want = ReasonFragmentTiny
		}
		wantReason(t, "TCP", fragmentOf(t, 6, 1, 0, true, segment[:n]), want)
		wantReason(t, "UDP", fragmentOf(t, 17, 1, 0, true, datagram[:n]), ReasonNone)
		wantReason(t, "ICMP", fragmentOf(t, 1, 1, 0, true, echo[:n]), ReasonNone)
	}
	segment[12] = 15 << 4 // 60 bytes of header
	wantReason(t, "TCP options split", fragmentOf(t, 6, 1, 0, true, segment[:56]), ReasonFragmentTiny)
	wantReason(t, "TCP options whole", fragmentOf(t, 6, 1, 0, true, segment[:64]), ReasonNone)
	segment[12] = 4 << 4
	wantReason(t, "TCP data offset", fragmentOf(t, 6, 1, 0, true, segment[:56]), ReasonTCPHeader)
}

// FAULTS 23.
func TestFragmentInsideTheTCPHeaderIsDropped(t *testing.T) {
	for offset := 8; offset <= 64; offset += 8 {
		want := ReasonNone
		if offset < 20 {
			want = ReasonFragmentTiny
		}
		wantReason(t, "TCP", fragmentOf(t, 6, 1, offset, false, pattern(64)), want)
		wantReason(t, "UDP", fragmentOf(t, 17, 1, offset, false, pattern(64)), ReasonNone)
	}
}

// FAULTS 25.
func TestImpossibleFragmentIsDropped(t *testing.T) {
	for _, row := range []struct {
		name   string
		offset int
		more   bool
		length int
		want   Reason
	}{
		{"ping of death", 65528, false, 100, ReasonFragment},
		{"one byte too long", 65512, false, 4, ReasonFragment},
		{"the longest", 65512, false, 3, ReasonNone},
		{"no data", 1480, true, 0, ReasonFragment},
		{"no data in the last", 1480, false, 0, ReasonFragment},
		{"not a multiple of eight", 1480, true, 1479, ReasonFragment},
		{"not a multiple of eight in the first", 0, true, 1479, ReasonFragment},
		{"not a multiple of eight in the last", 1480, false, 1479, ReasonNone},
	} {
		wantReason(t, row.name, fragmentOf(t, 17, 1, row.offset, row.more, udpPacket(t, 3000, nil)[20:20+row.length]), row.want)
	}
}

// FAULTS 28.
func TestFragmentWithDontFragmentIsAFragment(t *testing.T) {
	b := fragmentOf(t, 17, 1, 0, true, udpPacket(t, 3000, nil)[20:20+1480])
	b[6] |= 0x40
	p := mustParse(t, &Packet{Data: fixHeader(b)})
	if !p.isFragment() || (p.fragOffset != 0) || !p.dontFragment || p.kind != kindUDP || p.udpLen != 3008 {
		t.Errorf("%+v", p)
	}
}

func TestLaterFragmentHasNoPorts(t *testing.T) {
	for _, proto := range []layers.IPProtocol{1, 6, 17} {
		p := mustParse(t, &Packet{Data: fragmentOf(t, proto, 77, 1480, true, pattern(64))})
		if p.kind != kindFragment || !(p.fragOffset != 0) || p.fragOffset != 1480 || p.id != 77 ||
			p.tuple.Src.Port != 0 || p.tuple.Dst.Port != 0 {
			t.Errorf("%+v", p)
		}
	}
	if p := mustParse(t, &Packet{Data: fragmentOf(t, 47, 77, 1480, true, pattern(64))}); p.kind != kindOther {
		t.Errorf("GRE: %+v", p)
	}
}

func TestFragmentWithOffloadIsDropped(t *testing.T) {
	b := fragmentOf(t, 17, 1, 0, true, udpPacket(t, 3000, nil)[20:20+1480])
	for _, o := range []Offload{
		{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 6},
		{GSOType: GSOUDPL4, GSOSize: 1000},
	} {
		var p parsed
		if r := p.parse(&Packet{Data: b, Offload: o}); r != ReasonFragment {
			t.Errorf("%+v: %v", o, r)
		}
	}
}
