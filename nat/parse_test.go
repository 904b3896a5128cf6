// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// reasonOf parses a plain packet.
func reasonOf(b []byte) Reason {
	var p parsed
	return p.parse(&Packet{Data: b})
}

func wantReason(t *testing.T, what string, b []byte, want Reason) {
	t.Helper()
	if got := reasonOf(b); got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestSegmentIsRead(t *testing.T) {
	b := tcpPacket(t, 11, func(ip *layers.IPv4, tcp *layers.TCP) {
		ip.TOS, ip.Flags, ip.TTL = 0xb8, layers.IPv4DontFragment, 7
		tcp.PSH = true
		tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop}}
	})
	p := mustParse(t, &Packet{Data: b})
	want := parsed{
		tuple: conntrack.Tuple{
			Src:   conntrack.Endpoint{Addr: addr(hostClient), Port: 40000},
			Dst:   conntrack.Endpoint{Addr: addr(hostVirtual), Port: 80},
			Proto: protoTCP,
		},
		kind: kindTCP, proto: protoTCP, ttl: 7, tos: 0xb8, id: 0x1234, fragProto: protoTCP,
		headerLen: 20, totalLen: 55, l4: 20, dontFragment: true,
		flags: flagACK | flagPSH, scale: -1, window: 64240, seq: 5001, ack: 7001,
		dataOffset: 24, payload: 11,
	}
	if *p != want {
		t.Errorf("got  %+v\nwant %+v", *p, want)
	}
}

func TestWindowScaleIsReadFromSYNOnly(t *testing.T) {
	option := func(b ...byte) layers.TCPOption {
		return layers.TCPOption{OptionType: layers.TCPOptionKind(b[0]), OptionLength: uint8(len(b)), OptionData: b[2:]}
	}
	mss, scale := option(2, 4, 5, 180), option(3, 3, 7)
	for _, row := range []struct {
		name    string
		syn     bool
		options []layers.TCPOption
		want    int8
	}{
		{"SYN without options", true, nil, -1},
		{"SYN with a scale", true, []layers.TCPOption{mss, scale}, 7},
		{"SYN with a scale after padding", true, []layers.TCPOption{{OptionType: 1}, scale}, 7},
		{"SYN with too large a scale", true, []layers.TCPOption{option(3, 3, 200)}, 14},
		{"SYN with the end before the scale", true, []layers.TCPOption{{OptionType: 0}, scale}, -1},
		{"ACK with a scale", false, []layers.TCPOption{scale}, -1},
	} {
		b := tcpPacket(t, 0, func(_ *layers.IPv4, tcp *layers.TCP) {
			tcp.SYN, tcp.ACK, tcp.Options = row.syn, !row.syn, row.options
		})
		if got := mustParse(t, &Packet{Data: b}).scale; got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	// Options that lie about their length end the search; the segment passes.
	for _, lie := range [][]byte{{3, 0, 7, 0}, {3, 1, 7, 0}, {2, 200, 3, 3}, {1, 1, 1, 3}, {1, 1, 3, 3}} {
		b := tcpPacket(t, 0, func(_ *layers.IPv4, tcp *layers.TCP) {
			tcp.SYN, tcp.ACK, tcp.Options = true, false, []layers.TCPOption{mss}
		})
		copy(b[40:], lie)
		if got := mustParse(t, &Packet{Data: b}).scale; got != -1 {
			t.Errorf("options % x: %d, want -1", lie, got)
		}
	}
}

// FAULTS 1.
func TestShortPacketIsDropped(t *testing.T) {
	b := tcpPacket(t, 0, func(ip *layers.IPv4, _ *layers.TCP) {
		ip.Options = []layers.IPv4Option{{OptionType: 1}}
	})
	for n := range b {
		wantReason(t, "cut", b[:n:n], ReasonShort)
	}
	wantReason(t, "whole", b, ReasonNone)
}

// FAULTS 2.
func TestEthernetPaddingIsTrimmed(t *testing.T) {
	b := udpPacket(t, 1, nil)
	want := len(b)
	pkt := Packet{Data: append(b, make([]byte, 46-len(b))...)}
	p := mustParse(t, &pkt)
	if len(pkt.Data) != want || cap(pkt.Data) != want || p.totalLen != want || p.payload != 1 {
		t.Errorf("length %d, capacity %d, total %d, payload %d; want %d bytes", len(pkt.Data), cap(pkt.Data), p.totalLen, p.payload, want)
	}
}

// FAULTS 9.
func TestVersionAndHeaderLengthAreChecked(t *testing.T) {
	for v := range 16 {
		b := tcpPacket(t, 0, nil)
		b[0] = byte(v)<<4 | 5
		want := ReasonVersion
		switch v {
		case 4:
			want = ReasonNone
		case 6:
			want = ReasonShort
		}
		wantReason(t, "version", fixHeader(b), want)
	}
	for ihl := range 5 {
		b := tcpPacket(t, 0, nil)
		b[0] = 4<<4 | byte(ihl)
		wantReason(t, "header length", b, ReasonIPHeader)
	}
	for ihl := 11; ihl < 16; ihl++ {
		b := tcpPacket(t, 0, nil)
		b[0] = 4<<4 | byte(ihl)
		wantReason(t, "header length past the packet", b, ReasonShort)
	}
}

// FAULTS 10.
func TestTotalLengthIsChecked(t *testing.T) {
	whole := tcpPacket(t, 4, nil)
	for total := range 100 {
		b := append([]byte(nil), whole...)
		binary.BigEndian.PutUint16(b[2:], uint16(total))
		want := ReasonTCPHeader // ends inside the transport header
		switch {
		case total < 20:
			want = ReasonIPHeader
		case total > len(b):
			want = ReasonShort
		case total >= 40:
			want = ReasonNone
		}
		wantReason(t, "total length", fixHeader(b), want)
	}
}

// FAULTS 11.
func TestWrongHeaderChecksumIsDropped(t *testing.T) {
	for bit := range 20 * 8 {
		b := tcpPacket(t, 0, nil)
		b[bit/8] ^= 1 << (bit % 8)
		r := reasonOf(b)
		if r == ReasonNone {
			t.Errorf("bit %d flipped: accepted", bit)
		}
		if at := bit / 8; at == 1 || at >= 4 {
			if r != ReasonIPChecksum {
				t.Errorf("bit %d flipped: %v, want %v", bit, r, ReasonIPChecksum)
			}
		}
	}
	b := tcpPacket(t, 0, func(ip *layers.IPv4, _ *layers.TCP) {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	})
	b[22] ^= 1
	wantReason(t, "bit of an option flipped", b, ReasonIPChecksum)
}

// FAULTS 13.
func TestSourceRouteAndMalformedOptionsAreDropped(t *testing.T) {
	for name, o := range map[string][]byte{
		"loose source route":           {131, 7, 4, 10, 0, 0, 9, 0},
		"strict source route":          {137, 7, 4, 10, 0, 0, 9, 0},
		"source route after others":    {1, 148, 4, 0, 0, 131, 3, 4},
		"source route without length":  {1, 1, 1, 131},
		"length of zero":               {7, 0, 0, 0},
		"length of one":                {7, 1, 0, 0},
		"length past the header":       {7, 5, 4, 0},
		"no room for the length":       {1, 1, 1, 7},
		"length past, after an option": {148, 4, 0, 0, 68, 8, 5, 0},
	} {
		wantReason(t, name, withOptions(t, o), ReasonIPOptions)
	}
}

// FAULTS 14.
func TestHarmlessOptionsAreLeftAlone(t *testing.T) {
	for name, o := range map[string][]byte{
		"router alert":           {148, 4, 0, 0},
		"record route":           {7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"timestamp":              {68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"security":               {130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"padding":                {1, 1, 1, 1},
		"anything after the end": {0, 131, 200, 0},
		"the longest":            append([]byte{7, 39, 4}, make([]byte, 37)...),
	} {
		b := withOptions(t, o)
		pkt := Packet{Data: append([]byte(nil), b...)}
		p := mustParse(t, &pkt)
		if p.l4 != 20+len(o) || p.tuple.Dst.Port != 80 || !bytes.Equal(pkt.Data, b) {
			t.Errorf("%s: transport at %d, port %d", name, p.l4, p.tuple.Dst.Port)
		}
	}
}

// withOptions is a segment with these raw IP options.
func withOptions(t testing.TB, o []byte) []byte {
	b := tcpPacket(t, 3, nil)
	b = append(append(append([]byte(nil), b[:20]...), o...), b[20:]...)
	b[0] = 4<<4 | byte(5+len(o)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return fixHeader(b)
}

// FAULTS 15.
func TestImpossibleSourceIsDropped(t *testing.T) {
	for first := range 256 {
		b := tcpPacket(t, 0, nil)
		b[12] = byte(first)
		want := ReasonNone
		if first == 0 || first == 127 || first >= 224 {
			want = ReasonSource
		}
		wantReason(t, "source", fixHeader(b), want)
	}
	b := tcpPacket(t, 0, nil)
	copy(b[12:16], b[16:20])
	wantReason(t, "source is the destination", fixHeader(b), ReasonLand)
}

// FAULTS 18, 41, 42.
func TestWhatIsNotOursToJudgeIsAccepted(t *testing.T) {
	for name, b := range map[string][]byte{
		"congestion experienced": tcpPacket(t, 1, func(ip *layers.IPv4, _ *layers.TCP) { ip.TOS = 3 }),
		"reserved IP flag":       tcpPacket(t, 1, func(ip *layers.IPv4, _ *layers.TCP) { ip.Flags = layers.IPv4EvilBit }),
		"SYN with data":          tcpPacket(t, 9, func(_ *layers.IPv4, tcp *layers.TCP) { tcp.SYN, tcp.ACK = true, false }),
		"urgent":                 tcpPacket(t, 9, func(_ *layers.IPv4, tcp *layers.TCP) { tcp.URG, tcp.Urgent = true, 3 }),
		"unknown TCP option": tcpPacket(t, 9, func(_ *layers.IPv4, tcp *layers.TCP) {
			tcp.Options = []layers.TCPOption{{OptionType: 200, OptionLength: 4, OptionData: []byte{1, 2}}}
		}),
		"empty datagram": udpPacket(t, 0, nil), // FAULTS 37
	} {
		wantReason(t, name, b, ReasonNone)
	}
}

// FAULTS 19.
func TestUnknownProtocolHasNoPorts(t *testing.T) {
	for proto := range 256 {
		switch uint8(proto) {
		case protoTCP, protoUDP, protoSCTP, protoICMP:
			continue
		}
		for _, payload := range []int{0, 1, 40} {
			b := serialize(t, ipLayer(layers.IPProtocol(proto)), gopacket.Payload(pattern(payload)))
			p := mustParse(t, &Packet{Data: b})
			if p.kind != kindOther || p.tuple.Src.Port != 0 || p.tuple.Dst.Port != 0 || p.tuple.Proto != uint8(proto) {
				t.Errorf("protocol %d: %+v", proto, p)
			}
		}
	}
}

// FAULTS 32.
func TestTCPHeaderIsChecked(t *testing.T) {
	for offset := range 16 {
		b := tcpPacket(t, 20, nil)
		b[32] = byte(offset) << 4
		want := ReasonNone
		if offset < 5 || offset > 10 {
			want = ReasonTCPHeader
		}
		wantReason(t, "data offset", b, want)
	}
}

// FAULTS 36.
func TestUDPLengthIsChecked(t *testing.T) {
	for length := range 40 {
		b := udpPacket(t, 20, nil)
		binary.BigEndian.PutUint16(b[24:], uint16(length))
		want := ReasonNone
		if length < 8 || length > 28 {
			want = ReasonUDPHeader
		}
		wantReason(t, "UDP length", b, want)
	}
	for n := range 8 {
		b := udpPacket(t, 0, nil)[:20+n]
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		wantReason(t, "UDP header cut", fixHeader(b), ReasonUDPHeader)
	}
}

// FAULTS 38.
func TestIllegalTCPFlagsAreMarked(t *testing.T) {
	legal := map[uint8]bool{
		flagSYN: true, flagSYN | flagACK: true, flagACK: true,
		flagRST: true, flagRST | flagACK: true, flagFIN | flagACK: true,
	}
	for flags := range 256 {
		b := tcpPacket(t, 0, nil)
		b[33] = byte(flags)
		p := mustParse(t, &Packet{Data: b})
		core := uint8(flags) & (flagSYN | flagFIN | flagRST | flagACK)
		if got, want := p.illegalFlags(), !legal[core]; got != want {
			t.Errorf("flags %#02x: illegal %v, want %v", flags, got, want)
		}
		if got, want := p.opens(), core&^flagACK == flagSYN; got != want {
			t.Errorf("flags %#02x: opens %v, want %v", flags, got, want)
		}
	}
}

// FAULTS 61.
func TestPortZeroIsDropped(t *testing.T) {
	for _, at := range []int{20, 22} {
		for _, b := range [][]byte{tcpPacket(t, 0, nil), udpPacket(t, 0, nil)} {
			b[at], b[at+1] = 0, 0
			wantReason(t, "port zero", b, ReasonPortZero)
		}
	}
}

func TestEchoIdentifierIsThePortOfTheSideThatAsked(t *testing.T) {
	p := mustParse(t, &Packet{Data: icmpPacket(t, 8, 0, 0x004d0001, pattern(8))})
	if p.kind != kindEcho || !p.echoRequest() || p.tuple.Src.Port != 0x4d || p.tuple.Dst.Port != 0 || p.icmpID != 0x4d {
		t.Errorf("request: %+v", p)
	}
	p = mustParse(t, &Packet{Data: icmpPacket(t, 0, 0, 0x004d0001, nil)})
	if p.kind != kindEcho || p.echoRequest() || p.tuple.Src.Port != 0 || p.tuple.Dst.Port != 0x4d {
		t.Errorf("reply: %+v", p)
	}
}

func TestICMPTypesAreSorted(t *testing.T) {
	for kind := range 256 {
		want := kindOther
		switch kind {
		case 0, 8:
			want = kindEcho
		case 3, 4, 5, 11, 12:
			want = kindICMPError
		}
		p := mustParse(t, &Packet{Data: icmpPacket(t, uint8(kind), 0, 0, pattern(28))})
		if p.kind != want {
			t.Errorf("type %d: kind %d, want %d", kind, p.kind, want)
		}
	}
	for n := range 8 {
		b := icmpPacket(t, 8, 0, 1, nil)[:20+n]
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		wantReason(t, "ICMP header cut", fixHeader(b), ReasonICMPHeader)
	}
}

// FAULTS 6: a super-packet beyond 65,535 bytes has a total length of zero.
func TestSuperPacketWithoutLengthIsAccepted(t *testing.T) {
	b := append(tcpPacket(t, 0, nil), make([]byte, 150000)...)
	b[2], b[3] = 0, 0
	fixHeader(b)
	pkt := Packet{Data: b, Offload: Offload{
		NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16, GSOType: GSOTCPv4, GSOSize: 1448, HeaderLen: 40,
	}}
	p := mustParse(t, &pkt)
	if len(pkt.Data) != 150040 || p.totalLen != 150040 || p.payload != 150000 || !p.partial {
		t.Errorf("%d bytes, %+v", len(pkt.Data), p)
	}
	wantReason(t, "without offload", b, ReasonIPHeader)
}

func TestPartialChecksumIsRecognised(t *testing.T) {
	segment, datagram := tcpPacket(t, 40, nil), udpPacket(t, 40, nil)
	unknown := serialize(t, ipLayer(47), gopacket.Payload(pattern(9)))
	for _, row := range []struct {
		name          string
		data          []byte
		start, offset uint16
		want          Reason
		partial       bool
	}{
		{"TCP", segment, 20, 16, ReasonNone, true},
		{"UDP", datagram, 20, 6, ReasonNone, true},
		{"tunnel in UDP", datagram, 40, 16, ReasonNone, false},
		{"TCP with UDP's field", segment, 20, 6, ReasonTCPHeader, false},
		{"UDP with TCP's field", datagram, 20, 16, ReasonUDPHeader, false},
		{"inside the IP header", segment, 0, 10, ReasonShort, false},
		{"behind the packet", segment, 70, 16, ReasonShort, false},
		{"at the last byte", datagram, 60, 7, ReasonShort, false},
		{"unknown protocol", unknown, 20, 0, ReasonNone, true},
		{"unknown protocol, IP header", unknown, 0, 10, ReasonShort, false},
		{"wrapping round", datagram, 65535, 65535, ReasonShort, false},
	} {
		pkt := Packet{Data: row.data, Offload: Offload{NeedsChecksum: true, ChecksumStart: row.start, ChecksumOffset: row.offset}}
		var p parsed
		if r := p.parse(&pkt); r != row.want || r == ReasonNone && p.partial != row.partial {
			t.Errorf("%s: %v, partial %v", row.name, r, p.partial)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	var p parsed
	good, bad := tcpPacket(t, 100, nil), tcpPacket(t, 100, nil)[:30]
	if n := testing.AllocsPerRun(100, func() {
		p.parse(&Packet{Data: good})
		p.parse(&Packet{Data: bad})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
