// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

func TestSegmentOfIPv6IsRead(t *testing.T) {
	b := tcp6Packet(t, 11, func(ip *layers.IPv6, tcp *layers.TCP) {
		ip.TrafficClass, ip.FlowLabel, ip.HopLimit = 0xb8, 0xfedcb, 7
		tcp.PSH = true
	})
	want := parsed{
		tuple: conntrack.Tuple{
			Src:   conntrack.Endpoint{Addr: addr(host6Client), Port: 40000},
			Dst:   conntrack.Endpoint{Addr: addr(host6Virtual), Port: 80},
			Proto: protoTCP,
		},
		kind: kindTCP, proto: protoTCP, ttl: 7, tos: 0xb8,
		headerLen: 40, totalLen: 71, l4: 40, dontFragment: true,
		flags: flagACK | flagPSH, scale: -1, window: 64240, seq: 5001, ack: 7001,
		dataOffset: 20, payload: 11,
	}
	if p := mustParse(t, &Packet{Data: b}); *p != want {
		t.Errorf("got  %+v\nwant %+v", *p, want)
	}
}

// rewritten does to a packet what the walk does, with every port and
// identifier replaced.
func rewritten(t testing.TB, whole []byte) []byte {
	t.Helper()
	b := bytes.Clone(whole)
	p := mustParse(t, &Packet{Data: b})
	h, l4 := ipHeader(b), b[p.l4:]
	var d delta
	h.decrementTTL()
	h.replaceSource(ptr(addr(host6Virtual)), &d)
	h.replaceDestination(ptr(addr(host6Server)), &d)
	switch p.kind {
	case kindTCP:
		tcpHeader(l4).replaceSrcPort(61000, &d)
		tcpHeader(l4).replaceDstPort(8080, &d)
		tcpHeader(l4).apply(d)
	case kindUDP:
		udpHeader(l4).replaceSrcPort(61000, &d)
		udpHeader(l4).replaceDstPort(8080, &d)
		udpHeader(l4).apply(d)
	case kindEcho:
		icmpHeader(l4).replaceEchoID(61000, &d)
		icmpHeader(l4).apply(p.proto, d)
	}
	return b
}

// FAULTS 140: class, label and options travel on, and gopacket finds what was
// replaced and nothing else.
func TestRewriteOfIPv6ChangesAddressesPortsAndHops(t *testing.T) {
	edit := func(ip *layers.IPv6) { ip.TrafficClass, ip.FlowLabel = 0xb9, 0xfedcb }
	tcp := tcp6Packet(t, 33, func(ip *layers.IPv6, _ *layers.TCP) { edit(ip) })
	udp := udp6Packet(t, 34, func(ip *layers.IPv6, _ *layers.UDP) { edit(ip) })
	echo := icmp6Packet(t, 128, 0, 0x4d0001, pattern(35))
	chain := []extension{hopByHop(5, 2, 0, 0), destination(1, 4, 9, 9, 9, 9), routing(0, 0), fragmentExtension(9, 0, false)}
	for _, whole := range [][]byte{
		tcp, udp, echo, extended(tcp, chain...), extended(udp, chain...), extended(echo, chain...),
	} {
		b := rewritten(t, whole)
		p := sound(t, b)
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if !ip.SrcIP.Equal(host6Virtual) || !ip.DstIP.Equal(host6Server) || ip.HopLimit != 63 {
			t.Errorf("%+v", ip)
		}
		proto, l4 := slowChain(b)
		wantPorts := []byte{0xee, 0x48, 0x1f, 0x90} // 61000, 8080
		ports := l4
		if proto == 58 {
			wantPorts, ports = wantPorts[:2], l4+4
		}
		if !bytes.Equal(b[ports:ports+len(wantPorts)], wantPorts) {
			t.Errorf("protocol %d: ports % x", proto, b[ports:ports+4])
		}
		checksum := l4 + map[uint8]int{6: 16, 17: 6, 58: 2}[proto]
		for i := range b {
			switch {
			case i >= 7 && i < 40, i >= ports && i < ports+len(wantPorts), i == checksum, i == checksum+1:
			default:
				if b[i] != whole[i] {
					t.Errorf("protocol %d: byte %d became %#02x, was %#02x", proto, i, b[i], whole[i])
				}
			}
		}
	}
}

// FAULTS 131.
func TestWrongChecksumOfIPv6StaysWrong(t *testing.T) {
	for _, whole := range [][]byte{tcp6Packet(t, 9, nil), udp6Packet(t, 9, nil), icmp6Packet(t, 128, 0, 7, pattern(9))} {
		whole[len(whole)-2] ^= 0x55
		before := slowTransport(whole)
		if after := slowTransport(rewritten(t, whole)); after != before || after == 0xffff {
			t.Errorf("error was %#04x, is %#04x", before, after)
		}
	}
}

// FAULTS 131.
func TestDatagramOfIPv6WithoutChecksumIsDropped(t *testing.T) {
	b := udp6Packet(t, 9, nil)
	b[46], b[47] = 0, 0
	wantReason(t, "whole", b, ReasonUDPHeader)
	wantReason(t, "atomic", extended(b, fragmentExtension(1, 0, false)), ReasonUDPHeader)
	long := udp6Packet(t, 3000, nil)
	long[46], long[47] = 0, 0
	wantReason(t, "first fragment", fragment6Of(t, 17, 1, 0, true, long[40:1480]), ReasonUDPHeader)
	wantReason(t, "later fragment", fragment6Of(t, 17, 1, 1440, true, make([]byte, 80)), ReasonNone)
}

func TestPartialChecksumOfIPv6CountsAddressesOnly(t *testing.T) {
	for _, chain := range [][]extension{nil, {destination(1, 4, 0, 0, 0, 0)}} {
		whole := extended(tcp6Packet(t, 3000, nil), chain...)
		_, l4 := slowChain(whole)
		b := bytes.Clone(whole)
		binary.BigEndian.PutUint16(b[l4+16:], slowSum(pseudoBytes(addr(host6Client), addr(host6Virtual), false, 6, len(b)-l4)))
		pkt := Packet{Data: b, Offload: Offload{
			NeedsChecksum: true, ChecksumStart: uint16(l4), ChecksumOffset: 16, GSOType: GSOTCPv6, GSOSize: 1428,
		}}
		p := mustParse(t, &pkt)
		if !p.partial || !p.gsoFits(&pkt, l4+20+1428) || p.gsoFits(&pkt, l4+20+1427) {
			t.Fatalf("%+v", p)
		}
		var d delta
		ipHeader(b).replaceDestination(ptr(addr(host6Server)), &d)
		tcpHeader(b[l4:]).replaceDstPort(8080, &d)
		tcpHeader(b[l4:]).applyPartial(d)
		if !completeOffload(&pkt) {
			t.Fatal("not completed")
		}
		sound(t, b)
	}
}

func TestPartialChecksumOfICMPv6IsCompleted(t *testing.T) {
	whole := icmp6Packet(t, 128, 0, 7, pattern(31))
	b := bytes.Clone(whole)
	binary.BigEndian.PutUint16(b[42:], slowSum(pseudoBytes(addr(host6Client), addr(host6Virtual), false, 58, len(b)-40)))
	pkt := Packet{Data: b, Offload: Offload{NeedsChecksum: true, ChecksumStart: 40, ChecksumOffset: 2}}
	if p := mustParse(t, &pkt); p.partial || pkt.Offload.NeedsChecksum || !bytes.Equal(b, whole) {
		t.Errorf("%+v", pkt.Offload)
	}
}

// FAULTS 133.
func TestTransportIsFoundBehindExtensions(t *testing.T) {
	tcp := tcp6Packet(t, 3, nil)
	many := func(n int, e extension) (list []extension) {
		for range n {
			list = append(list, e)
		}
		return list
	}
	for name, row := range map[string]struct {
		chain []extension
		want  Reason
	}{
		"hop by hop":                      {[]extension{hopByHop(5, 2, 0, 0)}, ReasonNone},
		"destination":                     {[]extension{destination()}, ReasonNone},
		"both":                            {[]extension{hopByHop(), destination(1, 0)}, ReasonNone},
		"unknown options":                 {[]extension{hopByHop(0xfe, 4, 1, 2, 3, 4)}, ReasonNone},
		"as many as allowed":              {many(8, destination()), ReasonNone},
		"too many":                        {many(9, destination()), ReasonIPOptions},
		"as long as allowed":              {[]extension{destination(make([]byte, 510)...)}, ReasonNone},
		"too long":                        {[]extension{destination(make([]byte, 511)...)}, ReasonIPOptions},
		"hop by hop in second place":      {[]extension{destination(), hopByHop()}, ReasonIPOptions},
		"hop by hop twice":                {[]extension{hopByHop(), hopByHop()}, ReasonIPOptions},
		"option past its header":          {[]extension{destination(1, 5, 0, 0, 0, 0)}, ReasonIPOptions},
		"option without length":           {[]extension{destination(0, 0, 0, 0, 0, 1)}, ReasonIPOptions},
		"home address":                    {[]extension{destination(append([]byte{0xc9, 16}, make([]byte, 16)...)...)}, ReasonIPOptions},
		"jumbo length where none is due":  {[]extension{hopByHop(0xc2, 4, 0, 1, 0, 0)}, ReasonIPOptions},
		"two fragment headers":            {[]extension{fragmentExtension(1, 0, false), fragmentExtension(1, 0, false)}, ReasonFragment},
		"options behind the last address": {[]extension{routing(4, 0), destination()}, ReasonNone},
	} {
		b := extended(tcp, row.chain...)
		pkt := Packet{Data: bytes.Clone(b)}
		var p parsed
		if r := p.parse(&pkt); r != row.want {
			t.Errorf("%s: %v, want %v", name, r, row.want)
		} else if r == ReasonNone && (p.kind != kindTCP || p.l4 != len(b)-23 || p.tuple.Dst.Port != 80 || !bytes.Equal(pkt.Data, b)) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// FAULTS 134.
func TestRoutingHeaderWithSegmentsLeftIsDropped(t *testing.T) {
	for kind := range 6 {
		for _, left := range []uint8{0, 1, 255} {
			want := ReasonIPOptions
			if left == 0 {
				want = ReasonNone
			}
			wantReason(t, "routing header", extended(tcp6Packet(t, 3, nil), routing(uint8(kind), left)), want)
		}
	}
}

func TestProtocolOfIPv6WithoutConnectionsHasNoPorts(t *testing.T) {
	for proto := range 256 {
		switch uint8(proto) {
		case protoTCP, protoUDP, protoSCTP, protoICMPv6, protoHopByHop, protoRouting, protoFragment, protoDestination:
			continue
		}
		for _, payload := range []int{0, 1, 40} {
			b := serialize(t, ip6Layer(layers.IPProtocol(proto)), gopacket.Payload(pattern(payload)))
			p := mustParse(t, &Packet{Data: b})
			if p.kind != kindOther || p.tuple.Src.Port != 0 || p.tuple.Dst.Port != 0 || p.tuple.Proto != uint8(proto) {
				t.Errorf("protocol %d: %+v", proto, p)
			}
		}
	}
	// ICMPv6 is no protocol of IPv4.
	b := serialize(t, ipLayer(58), gopacket.Payload(icmp6Packet(t, 128, 0, 7, nil)[40:]))
	if p := mustParse(t, &Packet{Data: b}); p.kind != kindOther {
		t.Errorf("ICMPv6 in IPv4: %+v", p)
	}
}

// FAULTS 136.
func TestImpossibleAddressOfIPv6IsDropped(t *testing.T) {
	for _, row := range []struct {
		src, dst string
		want     Reason
	}{
		{"::", "2001:db8:88::23", ReasonSource},
		{"::1", "2001:db8:88::23", ReasonSource},
		{"::1", "ff02::1", ReasonSource},
		{"ff02::1", "2001:db8:88::23", ReasonSource},
		{"ff02::1", "ff02::2", ReasonSource},
		{"mapped", "2001:db8:88::23", ReasonSource},
		{"2001:db8:88::23", "2001:db8:88::23", ReasonLand},
		{"2001:db8:88::21", "::", ReasonDestination},
		{"2001:db8:88::21", "::1", ReasonDestination},
		{"2001:db8:88::21", "mapped", ReasonDestination},
		{"2001:db8:88::21", "2001:db8:88::23", ReasonNone},
		{"fd00::1", "fec0::1", ReasonNone},
	} {
		b := tcp6Packet(t, 3, nil)
		put := func(at int, s string) {
			if s == "mapped" {
				copy(b[at:], ptr(addr(hostClient))[:])
				return
			}
			copy(b[at:], net.ParseIP(s).To16())
		}
		put(8, row.src)
		put(24, row.dst)
		wantReason(t, row.src+" > "+row.dst, b, row.want)
	}
}

// What no router forwards is left alone, whatever is behind its header: that
// is neighbour discovery, and it is the host's.
func TestWhatStaysOnItsLinkIsNotOurs(t *testing.T) {
	for _, row := range [][2]string{
		{"::", "ff02::1:ff00:23"},
		{"fe80::1", "ff02::1"},
		{"2001:db8:88::21", "ff02::1:ff00:23"},
		{"2001:db8:88::21", "ff0e::1"},
		{"fe80::1", "2001:db8:88::23"},
		{"2001:db8:88::21", "fe80::1"},
		{"febf::1", "2001:db8:88::23"},
	} {
		for _, b := range [][]byte{
			icmp6Packet(t, 135, 0, 0, pattern(24)), tcp6Packet(t, 3, nil), extended(tcp6Packet(t, 3, nil), routing(0, 1)),
			fragment6Of(t, 17, 1, 1480, false, pattern(9)),
		} {
			copy(b[8:], net.ParseIP(row[0]))
			copy(b[24:], net.ParseIP(row[1]))
			p := mustParse(t, &Packet{Data: b})
			if p.kind != kindOther || p.isFragment() || p.mayAnswer() {
				t.Errorf("%v: %+v", row, p)
			}
		}
	}
}

// FAULTS 137.
func TestPayloadLengthIsChecked(t *testing.T) {
	whole := tcp6Packet(t, 4, nil)
	for n := range whole {
		wantReason(t, "cut", whole[:n:n], ReasonShort)
	}
	for length := range 40 {
		b := bytes.Clone(whole)
		binary.BigEndian.PutUint16(b[4:], uint16(length))
		want := ReasonTCPHeader // ends inside the transport header; zero says a jumbogram, or nothing
		switch {
		case length > 24:
			want = ReasonShort
		case length >= 20:
			want = ReasonNone
		}
		wantReason(t, "payload length", b, want)
	}
	jumbo := extended(whole, hopByHop(0xc2, 4, 0, 1, 0, 0))
	binary.BigEndian.PutUint16(jumbo[4:], 0)
	wantReason(t, "jumbogram", jumbo, ReasonShort)
	pkt := Packet{Data: append(bytes.Clone(whole), make([]byte, 9)...)}
	if mustParse(t, &pkt); len(pkt.Data) != len(whole) || cap(pkt.Data) != len(whole) {
		t.Errorf("padding: %d bytes left", len(pkt.Data))
	}
}

func TestSuperPacketBeyondItsLengthField(t *testing.T) {
	b := tcp6Packet(t, 60000, nil)
	b = append(b, make([]byte, 10000)...)
	binary.BigEndian.PutUint16(b[4:], 0)
	pkt := Packet{Data: b, Offload: Offload{GSOType: GSOTCPv6, GSOSize: 1428}}
	if p := mustParse(t, &pkt); p.totalLen != 70060 || p.payload != 70000 {
		t.Errorf("%+v", p)
	}
	b = append(bytes.Clone(b[:40]), append([]byte{6, 0, 0xc2, 4, 0, 1, 0, 0}, b[40:]...)...)
	b[6] = 0
	pkt.Data = b
	if p := mustParse(t, &pkt); p.totalLen != 70068 || p.payload != 70000 || p.kind != kindTCP {
		t.Errorf("with the option: %+v", p)
	}
}

// FAULTS 28, 135.
func TestAtomicFragmentIsWhole(t *testing.T) {
	b := extended(tcp6Packet(t, 3, nil), fragmentExtension(77, 0, false))
	if p := mustParse(t, &Packet{Data: b}); p.isFragment() || p.kind != kindTCP || p.headerLen != 48 || p.l4 != 48 || p.id != 0 {
		t.Errorf("%+v", p)
	}
}

func TestFragmentsOfIPv6AreRead(t *testing.T) {
	datagram := udp6Packet(t, 3000, nil)[40:]
	first := extended(fragment6Of(t, 17, 0xdeadbeef, 0, true, datagram[:1440]), hopByHop(5, 2, 0, 0))
	p := mustParse(t, &Packet{Data: first})
	if !p.moreFragments || p.fragOffset != 0 || p.kind != kindUDP || p.id != 0xdeadbeef || p.fragProto != 0 ||
		p.headerLen != 56 || p.l4 != 56 || p.udpLen != 3008 {
		t.Errorf("first: %+v", p)
	}
	p = mustParse(t, &Packet{Data: extended(fragment6Of(t, 17, 0xdeadbeef, 1440, false, datagram[1440:]), hopByHop(5, 2, 0, 0))})
	if p.moreFragments || p.fragOffset != 1440 || p.kind != kindFragment || p.id != 0xdeadbeef || p.tuple.Src.Port != 0 {
		t.Errorf("later: %+v", p)
	}
	// A part of the chain is behind the fragment header of the first one.
	options := append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, datagram...)
	p = mustParse(t, &Packet{Data: fragment6Of(t, 60, 1, 0, true, options[:1440])})
	if p.kind != kindUDP || p.headerLen != 48 || p.l4 != 56 || p.tuple.Dst.Port != 9053 {
		t.Errorf("options behind: %+v", p)
	}
	if p = mustParse(t, &Packet{Data: fragment6Of(t, 60, 1, 1440, false, options[1440:])}); p.kind != kindFragment || p.l4 != 48 {
		t.Errorf("options behind, later: %+v", p)
	}
}

// FAULTS 29.
func TestFirstFragmentHoldsAllHeaders(t *testing.T) {
	segment := tcp6Packet(t, 100, func(_ *layers.IPv6, tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 180}}}
	})[40:]
	datagram, echo := udp6Packet(t, 100, nil)[40:], icmp6Packet(t, 128, 0, 7, pattern(100))[40:]
	for n := 8; n <= 48; n += 8 {
		want := ReasonNone
		if n < 24 {
			want = ReasonFragmentTiny
		}
		wantReason(t, "TCP", fragment6Of(t, 6, 1, 0, true, segment[:n]), want)
		wantReason(t, "UDP", fragment6Of(t, 17, 1, 0, true, datagram[:n]), ReasonNone)
		wantReason(t, "ICMPv6", fragment6Of(t, 58, 1, 0, true, echo[:n]), ReasonNone)
	}
	options := append(make([]byte, 32), segment...)
	options[0], options[1] = 6, 3 // of 32 bytes, then TCP
	for n := 8; n <= 80; n += 8 {
		want := ReasonNone
		if n < 56 {
			want = ReasonFragmentTiny
		}
		wantReason(t, "options and TCP", fragment6Of(t, 60, 1, 0, true, options[:n]), want)
	}
	for _, proto := range []byte{6, 17, 58} {
		wantReason(t, "options alone", fragment6Of(t, 60, 1, 0, true, []byte{proto, 0, 1, 4, 0, 0, 0, 0}), ReasonFragmentTiny)
	}
	for offset := 8; offset <= 64; offset += 8 {
		want := ReasonNone
		if offset < 20 {
			want = ReasonFragmentTiny
		}
		wantReason(t, "TCP at an offset", fragment6Of(t, 6, 1, offset, false, pattern(64)), want)
	}
}

func TestImpossibleFragmentOfIPv6IsDropped(t *testing.T) {
	for _, row := range []struct {
		name   string
		offset int
		more   bool
		length int
		want   Reason
	}{
		{"too long", 65528, false, 8, ReasonFragment},
		{"the longest", 65528, false, 7, ReasonNone},
		{"no data", 1440, true, 0, ReasonFragment},
		{"no data in the last", 1440, false, 0, ReasonFragment},
		{"not a multiple of eight", 1440, true, 1439, ReasonFragment},
		{"not a multiple of eight in the last", 1440, false, 1439, ReasonNone},
	} {
		wantReason(t, row.name, fragment6Of(t, 17, 1, row.offset, row.more, pattern(row.length)), row.want)
	}
	b := extended(fragment6Of(t, 17, 1, 65528, false, pattern(7)), destination())
	wantReason(t, "too long with its options", b, ReasonFragment)
}

func TestICMPv6TypesAreSorted(t *testing.T) {
	for kind := range 256 {
		want := kindOther
		switch {
		case kind == 128 || kind == 129:
			want = kindEcho
		case kind < 128 || kind == 137:
			want = kindICMPError
		}
		p := mustParse(t, &Packet{Data: icmp6Packet(t, uint8(kind), 0, 0x4d0001, pattern(28))})
		if p.kind != want || p.icmpType != uint8(kind) {
			t.Errorf("type %d: %+v", kind, p)
		}
		if p.mayAnswer() != (want != kindICMPError) {
			t.Errorf("type %d: may be answered: %v", kind, p.mayAnswer())
		}
		if want != kindEcho {
			continue
		}
		if p.echoRequest() != (kind == 128) || p.icmpID != 0x4d || p.echoRequest() != (p.tuple.Src.Port == 0x4d) || p.echoRequest() == (p.tuple.Dst.Port == 0x4d) {
			t.Errorf("echo: %+v", p)
		}
	}
}

func TestParsingIPv6AllocatesNothing(t *testing.T) {
	var seeds [][]byte
	for _, b := range seeds6(t) {
		if reasonOf(b) == ReasonNone {
			seeds = append(seeds, b)
		}
	}
	var p parsed
	var q quoted
	server, client := addr(host6Server), addr(host6Client)
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range seeds {
			pkt := Packet{Data: b}
			p.parse(&pkt)
			if p.kind == kindICMPError {
				p.parseQuote(&pkt, &q)
			}
			var d delta
			h := ipHeader(pkt.Data)
			h.decrementTTL()
			h.replaceSource(&server, &d)
			h.replaceSource(&client, &d)
			h.headerLen()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
