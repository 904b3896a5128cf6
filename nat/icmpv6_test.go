// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"
)

// quoted6Reply is quotedReply in IPv6.
func quoted6Reply(t testing.TB, payload int) []byte {
	return tcp6Packet(t, payload, func(ip *layers.IPv6, tcp *layers.TCP) {
		ip.SrcIP, ip.DstIP, ip.HopLimit = host6Virtual, host6Client, 62
		tcp.SrcPort, tcp.DstPort, tcp.Seq = 80, 40000, 7001
	})
}

func TestQuotationOfIPv6IsRead(t *testing.T) {
	inner := quoted6Reply(t, 1000)
	r, q := quoteReason(t, icmp6Packet(t, 2, 0, 1400, inner[:48]))
	if r != ReasonNone || q.kind != kindTCP || q.at != 48 || q.l4 != 88 || q.end != 96 || q.checksumAt != 0 || q.seq != 7001 {
		t.Errorf("8 bytes of TCP: %v %+v", r, q)
	}
	if q.tuple.Src.Addr != addr(host6Virtual) || q.tuple.Src.Port != 80 ||
		q.tuple.Dst.Addr != addr(host6Client) || q.tuple.Dst.Port != 40000 || q.tuple.Proto != protoTCP {
		t.Errorf("tuple %v", q.tuple)
	}
	r, q = quoteReason(t, icmp6Packet(t, 1, 4, 0, udp6Packet(t, 1, nil)[:48]))
	if r != ReasonNone || q.kind != kindUDP || q.checksumAt != 88+6 {
		t.Errorf("8 bytes of UDP: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmp6Packet(t, 3, 0, 0, icmp6Packet(t, 128, 0, 0x4d0001, nil)))
	if r != ReasonNone || q.kind != kindEcho || q.checksumAt != 88+2 || q.tuple.Src.Port != 0x4d || q.tuple.Dst.Port != 0 {
		t.Errorf("echo: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmp6Packet(t, 3, 0, 0, icmp6Packet(t, 129, 0, 0x4d0001, nil)))
	if r != ReasonNone || q.kind != kindEcho || q.tuple.Src.Port != 0 || q.tuple.Dst.Port != 0x4d {
		t.Errorf("echo reply: %v %+v", r, q)
	}
	chain := []extension{hopByHop(5, 2, 0, 0), fragmentExtension(7, 0, true), destination(1, 0)}
	r, q = quoteReason(t, icmp6Packet(t, 2, 0, 1400, extended(inner, chain...)))
	if r != ReasonNone || q.kind != kindTCP || q.l4 != 48+40+24 || q.tuple.Src.Port != 80 || q.checksumAt != q.l4+16 {
		t.Errorf("behind extensions: %v %+v", r, q)
	}
}

func TestErrorsOfICMPv6AreTranslated(t *testing.T) {
	for kind := range 256 {
		if kind >= 128 && kind != 137 {
			continue
		}
		want := ReasonICMPType
		if kind >= 1 && kind <= 4 {
			want = ReasonNone
		}
		if r, _ := quoteReason(t, icmp6Packet(t, uint8(kind), 0, 0, quoted6Reply(t, 0))); r != want {
			t.Errorf("type %d: %v, want %v", kind, r, want)
		}
	}
}

// FAULTS 139.
func TestQuotationOfIPv6CutAtEveryLength(t *testing.T) {
	inner := quoted6Reply(t, 10)
	for n := range 61 {
		want := ReasonNone
		if n < 48 {
			want = ReasonICMPQuote
		}
		if r, _ := quoteReason(t, icmp6Packet(t, 2, 0, 1400, inner[:n])); r != want {
			t.Errorf("%d bytes quoted: %v, want %v", n, r, want)
		}
	}
	inner = extended(inner, destination(1, 4, 0, 0, 0, 0), routing(2, 0))
	for n := 40; n < 80; n++ {
		want := ReasonNone
		if n < 64 {
			want = ReasonICMPQuote
		}
		if r, _ := quoteReason(t, icmp6Packet(t, 2, 0, 1400, inner[:n])); r != want {
			t.Errorf("%d bytes quoted with extensions: %v, want %v", n, r, want)
		}
	}
}

// FAULTS 139.
func TestQuotedHeaderOfIPv6IsChecked(t *testing.T) {
	inner := quoted6Reply(t, 10)
	short := bytes.Clone(inner)
	short[5] = 7
	version := bytes.Clone(inner)
	version[0] = 0x45
	for name, b := range map[string][]byte{
		"version 4":                         version,
		"IPv4":                              quotedReply(t, 40),
		"payload length too short":          short,
		"later fragment":                    extended(inner, fragmentExtension(1, 1440, true)),
		"source route":                      extended(inner, routing(0, 1)),
		"an unreachable":                    icmp6Packet(t, 1, 0, 0, inner),
		"an unknown error":                  icmp6Packet(t, 100, 0, 0, inner),
		"a redirect":                        icmp6Packet(t, 137, 0, 0, inner),
		"neighbour discovery":               icmp6Packet(t, 135, 0, 0, pattern(24)),
		"ICMPv6 of another family's number": icmp6Packet(t, 8, 0, 0, pattern(24)),
	} {
		if r, _ := quoteReason(t, icmp6Packet(t, 1, 4, 0, b)); r != ReasonICMPQuote {
			t.Errorf("%s: %v, want %v", name, r, ReasonICMPQuote)
		}
	}
	damaged := icmp6Packet(t, 2, 0, 1400, inner)
	damaged[42] ^= 1
	if r, _ := quoteReason(t, damaged); r != ReasonICMPChecksum {
		t.Errorf("wrong checksum: %v", r)
	}
	// The pseudo-header counts: the right sum for another destination is wrong.
	damaged = icmp6Packet(t, 2, 0, 1400, inner)
	damaged[39] ^= 1
	if r, _ := quoteReason(t, damaged); r != ReasonICMPChecksum {
		t.Errorf("other destination: %v", r)
	}
	message := icmp6Packet(t, 2, 0, 1400, quoted6Reply(t, 400))[40:]
	if r, _ := quoteReason(t, fragment6Of(t, 58, 5, 0, true, message[:96])); r != ReasonFragment {
		t.Errorf("fragmented: %v", r)
	}
}

func TestExtensionsOfICMPv6AreNoPartOfTheQuotation(t *testing.T) {
	inner := quoted6Reply(t, 1000)[:128]
	b := icmp6Packet(t, 3, 0, 16<<24, append(inner, 0x20, 0, 0x12, 0x34, 0, 8, 1, 1, 0, 0, 0, 1))
	if r, q := quoteReason(t, b); r != ReasonNone || q.end != 48+128 {
		t.Errorf("%v, quotation ends at %d", r, q.end)
	}
	b = icmp6Packet(t, 2, 0, 16<<24, quoted6Reply(t, 200)) // an MTU, no length
	if r, q := quoteReason(t, b); r != ReasonNone || q.end != 48+260 {
		t.Errorf("%v, quotation ends at %d", r, q.end)
	}
}

// One set of names for both families, with the numbers of RFC 4443.
func TestErrorsOfIPv6LookLikeTheKernels(t *testing.T) {
	datagram, big := udp6Packet(t, 1, nil), tcp6Packet(t, 1440, nil)
	for _, row := range []struct {
		name       string
		e          icmpError
		about      []byte
		kind, code uint8
		rest       uint32
		length     int
	}{
		{"no server", unreachable(icmpPortUnreachable), datagram, 1, 4, 0, 97},
		{"next hop silent", unreachable(icmpHostUnreachable), datagram, 1, 3, 0, 97},
		{"no route", unreachable(icmpNetUnreachable), datagram, 1, 0, 0, 97},
		{"hop limit ran out", timeExceeded(), tcp6Packet(t, 4, nil), 3, 0, 0, 112},
		{"too big", fragNeeded(1300), big, 2, 0, 1300, 1280},
		{"about extensions", timeExceeded(), extended(datagram, hopByHop(5, 2, 0, 0), fragmentExtension(7, 0, true)), 3, 0, 0, 113},
	} {
		b := bytes.Repeat([]byte{0xee}, maxErrorLen)
		n := buildICMPError(b, row.e, ptr(addr(host6Virtual)), 0xcf63, &Packet{Data: row.about})
		p := sound(t, b[:n])
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if n != row.length || !ip.SrcIP.Equal(host6Virtual) || !ip.DstIP.Equal(host6Client) ||
			ip.HopLimit != 64 || ip.TrafficClass != 0 || ip.FlowLabel != 0 || ip.NextHeader != layers.IPProtocolICMPv6 {
			t.Errorf("%s: %d bytes, %+v", row.name, n, ip)
		}
		if icmp.TypeCode != layers.CreateICMPv6TypeCode(row.kind, row.code) || binary.BigEndian.Uint32(b[44:]) != row.rest {
			t.Errorf("%s: %v %#x", row.name, icmp.TypeCode, b[44:48])
		}
		if !bytes.Equal(b[48:n], row.about[:n-48]) {
			t.Errorf("%s: not quoted as it came", row.name)
		}
		if r, q := quoteReason(t, b[:n]); r != ReasonNone || q.tuple.Src.Addr != addr(host6Client) {
			t.Errorf("%s: our own reader: %v", row.name, r)
		}
	}
}

func TestEchoOfIPv6IsAnswered(t *testing.T) {
	for _, chain := range [][]extension{nil, {fragmentExtension(7, 0, false)}, {hopByHop(5, 2, 0, 0)}} {
		b := extended(icmp6Packet(t, 128, 0, 0x004d0001, pattern(57)), chain...)
		b[7] = 1
		if !makeEchoReply(b, mustParse(t, &Packet{Data: b}), 0xcd86) {
			t.Fatal("not answered")
		}
		p := sound(t, b)
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		_, l4 := slowChain(b)
		if !ip.SrcIP.Equal(host6Virtual) || !ip.DstIP.Equal(host6Client) || ip.HopLimit != 64 || b[l4] != 129 ||
			!bytes.Equal(b[l4+4:], append([]byte{0, 0x4d, 0, 1}, pattern(57)...)) {
			t.Errorf("%+v % x", ip, b[l4:])
		}
	}
	damaged := icmp6Packet(t, 128, 0, 0x004d0001, pattern(8))
	damaged[50] ^= 4
	if p := mustParse(t, &Packet{Data: damaged}); !makeEchoReply(damaged, p, 1) || slowTransport(damaged) == 0xffff {
		t.Error("a damaged request got a good reply")
	}
	reply := icmp6Packet(t, 129, 0, 1, nil)
	if makeEchoReply(reply, mustParse(t, &Packet{Data: reply}), 1) {
		t.Error("a reply was answered")
	}
}

func TestResetOverIPv6(t *testing.T) {
	b := tcp6Packet(t, 10, func(_ *layers.IPv6, tcp *layers.TCP) { tcp.SYN, tcp.ACK, tcp.Ack = true, false, 0 })
	b = extended(b, destination(1, 0))
	r := bytes.Repeat([]byte{0xee}, resetLen)
	n := buildReset(r, mustParse(t, &Packet{Data: b}))
	if n != 60 {
		t.Fatalf("%d bytes", n)
	}
	d := sound(t, r[:n])
	ip := d.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	tcp := d.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ip.SrcIP.Equal(host6Virtual) || !ip.DstIP.Equal(host6Client) || ip.HopLimit != 64 || ip.TrafficClass != 0 || ip.FlowLabel != 0 {
		t.Errorf("%+v", ip)
	}
	if tcp.SrcPort != 80 || tcp.DstPort != 40000 || tcp.Seq != 0 || tcp.Ack != 5012 || !tcp.RST || !tcp.ACK || tcp.SYN || tcp.Window != 0 {
		t.Errorf("%+v", tcp)
	}
}

func TestAnswersOverIPv6AllocateNothing(t *testing.T) {
	b := make([]byte, maxErrorLen)
	pkt := Packet{Data: tcp6Packet(t, 1000, nil)}
	p := mustParse(t, &pkt)
	echo := icmp6Packet(t, 128, 0, 1, nil)
	e := mustParse(t, &Packet{Data: echo})
	src := addr(host6Virtual)
	if n := testing.AllocsPerRun(100, func() {
		buildICMPError(b, timeExceeded(), &src, 1, &pkt)
		buildReset(b, p)
		makeEchoReply(echo, e, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
