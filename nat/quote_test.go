// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A reply of the virtual service, as the client's network would quote it.
func quotedReply(t testing.TB, payload int) []byte {
	return tcpPacket(t, payload, func(ip *layers.IPv4, tcp *layers.TCP) {
		ip.SrcIP, ip.DstIP, ip.TTL = hostVirtual, hostClient, 62
		tcp.SrcPort, tcp.DstPort, tcp.Seq = 80, 40000, 7001
	})
}

func quoteReason(t testing.TB, b []byte) (Reason, quoted) {
	t.Helper()
	pkt := Packet{Data: b}
	p := mustParse(t, &pkt)
	var q quoted
	return p.parseQuote(&pkt, &q), q
}

func TestQuotationIsRead(t *testing.T) {
	inner := quotedReply(t, 1000)
	r, q := quoteReason(t, icmpPacket(t, 3, 4, 1400, inner[:28]))
	if r != ReasonNone || q.kind != kindTCP || q.at != 28 || q.l4 != 48 || q.end != 56 ||
		q.checksumAt != 0 || q.seq != 7001 || q.proto != protoTCP {
		t.Errorf("8 bytes of TCP: %v %+v", r, q)
	}
	if q.tuple.Src.Addr != addr(hostVirtual) || q.tuple.Src.Port != 80 ||
		q.tuple.Dst.Addr != addr(hostClient) || q.tuple.Dst.Port != 40000 {
		t.Errorf("tuple %v", q.tuple)
	}
	r, q = quoteReason(t, icmpPacket(t, 3, 4, 1400, inner[:548]))
	if r != ReasonNone || q.checksumAt != 48+16 || q.end != 28+548 {
		t.Errorf("548 bytes: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmpPacket(t, 3, 3, 0, udpPacket(t, 1, nil)[:28]))
	if r != ReasonNone || q.kind != kindUDP || q.checksumAt != 48+6 || q.tuple.Src.Port != 40053 {
		t.Errorf("8 bytes of UDP: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmpPacket(t, 11, 0, 0, icmpPacket(t, 8, 0, 0x4d0001, nil)))
	if r != ReasonNone || q.kind != kindEcho || q.checksumAt != 48+2 || q.tuple.Src.Port != 0x4d || q.tuple.Dst.Port != 0 {
		t.Errorf("echo: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmpPacket(t, 11, 0, 0, icmpPacket(t, 0, 0, 0x4d0001, nil)))
	if r != ReasonNone || q.kind != kindEcho || q.tuple.Src.Port != 0 || q.tuple.Dst.Port != 0x4d {
		t.Errorf("echo reply: %v %+v", r, q)
	}
	r, q = quoteReason(t, icmpPacket(t, 11, 0, 0, serialize(t, ipLayer(47), gopacket.Payload(pattern(30)))))
	if r != ReasonNone || q.kind != kindOther {
		t.Errorf("GRE: %v %+v", r, q)
	}
}

// FAULTS 66, 72.
func TestOnlyThreeErrorTypesAreTranslated(t *testing.T) {
	for _, row := range []struct {
		kind uint8
		want Reason
	}{
		{3, ReasonNone}, {4, ReasonNone}, {11, ReasonNone},
		{5, ReasonICMPType}, {12, ReasonICMPType},
	} {
		if r, _ := quoteReason(t, icmpPacket(t, row.kind, 0, 0, quotedReply(t, 0))); r != row.want {
			t.Errorf("type %d: %v, want %v", row.kind, r, row.want)
		}
	}
}

// FAULTS 66.
func TestQuotationCutAtEveryLength(t *testing.T) {
	inner := quotedReply(t, 10)
	for n := range 41 {
		want := ReasonNone
		if n < 28 {
			want = ReasonICMPQuote
		}
		if r, _ := quoteReason(t, icmpPacket(t, 3, 4, 1400, inner[:n])); r != want {
			t.Errorf("%d bytes quoted: %v, want %v", n, r, want)
		}
	}
}

// FAULTS 66, 71.
func TestQuotedHeaderIsChecked(t *testing.T) {
	for name, edit := range map[string]func(b []byte){
		"version 6":                   func(b []byte) { b[0] = 6<<4 | 5 },
		"header of 16 bytes":          func(b []byte) { b[0] = 4<<4 | 4 },
		"header of 60 bytes":          func(b []byte) { b[0] = 4<<4 | 15 },
		"total length without header": func(b []byte) { b[3], b[2] = 19, 0 },
		"total length too short":      func(b []byte) { b[3], b[2] = 27, 0 },
		"later fragment":              func(b []byte) { b[7] = 185 },
	} {
		inner := quotedReply(t, 10)
		edit(inner)
		if n := int(inner[0]&15) * 4; n >= 20 && n <= len(inner) {
			fixHeader(inner)
		}
		if r, _ := quoteReason(t, icmpPacket(t, 3, 4, 1400, inner)); r != ReasonICMPQuote {
			t.Errorf("%s: %v, want %v", name, r, ReasonICMPQuote)
		}
	}
	first := quotedReply(t, 10)
	first[6] |= 0x20
	if r, _ := quoteReason(t, icmpPacket(t, 11, 1, 0, fixHeader(first))); r != ReasonNone {
		t.Errorf("first fragment: %v, want none", r)
	}
}

// FAULTS 71.
func TestErrorAboutAnErrorIsNotTranslated(t *testing.T) {
	for _, kind := range []uint8{3, 4, 5, 11, 12, 13} {
		inner := icmpPacket(t, kind, 0, 0, quotedReply(t, 0))
		if r, _ := quoteReason(t, icmpPacket(t, 3, 1, 0, inner)); r != ReasonICMPQuote {
			t.Errorf("about type %d: %v, want %v", kind, r, ReasonICMPQuote)
		}
	}
}

// FAULTS 68.
func TestWrongChecksumsOfAnErrorAreNotRepaired(t *testing.T) {
	inner := quotedReply(t, 10)
	inner[8]--
	if r, _ := quoteReason(t, icmpPacket(t, 3, 4, 1400, inner)); r != ReasonICMPQuote {
		t.Errorf("inner: %v, want %v", r, ReasonICMPQuote)
	}
	outer := icmpPacket(t, 3, 4, 1400, quotedReply(t, 10))
	outer[22] ^= 1
	if r, _ := quoteReason(t, outer); r != ReasonICMPChecksum {
		t.Errorf("outer: %v, want %v", r, ReasonICMPChecksum)
	}
	odd := icmpPacket(t, 3, 4, 1400, quotedReply(t, 11))
	if r, _ := quoteReason(t, odd); r != ReasonNone {
		t.Errorf("odd length: %v", r)
	}
	transport := quotedReply(t, 10)
	transport[36] ^= 1
	if r, _ := quoteReason(t, icmpPacket(t, 3, 4, 1400, transport)); r != ReasonNone {
		t.Errorf("quoted transport checksum: %v, want none", r)
	}
}

func TestPartialChecksumOfAnErrorIsCompleted(t *testing.T) {
	whole := icmpPacket(t, 3, 4, 1400, quotedReply(t, 10))
	b := append([]byte(nil), whole...)
	b[22], b[23] = 0, 0
	pkt := Packet{Data: b, Offload: Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 2}}
	p := mustParse(t, &pkt)
	var q quoted
	if r := p.parseQuote(&pkt, &q); r != ReasonNone || pkt.Offload.NeedsChecksum || string(b) != string(whole) {
		t.Errorf("%v, offload %+v", r, pkt.Offload)
	}
}

// FAULTS 30.
func TestFragmentedErrorIsDropped(t *testing.T) {
	message := icmpPacket(t, 3, 4, 1400, quotedReply(t, 400))[20:]
	if r, _ := quoteReason(t, fragmentOf(t, 1, 5, 0, true, message[:96])); r != ReasonFragment {
		t.Errorf("%v, want %v", r, ReasonFragment)
	}
}

// FAULTS 76.
func TestExtensionsAreNoPartOfTheQuotation(t *testing.T) {
	inner := quotedReply(t, 1000)[:128]
	extension := []byte{0x20, 0, 0x12, 0x34, 0, 8, 1, 1, 0, 0, 0, 1}
	b := icmpPacket(t, 11, 0, 32<<16, append(inner, extension...))
	if r, q := quoteReason(t, b); r != ReasonNone || q.end != 28+128 {
		t.Errorf("%v, quotation ends at %d, want %d", r, q.end, 28+128)
	}
	// A short total length ends the quotation before its padding.
	padded := append(udpPacket(t, 1, nil), make([]byte, 128-29)...)
	b = icmpPacket(t, 11, 0, 32<<16, append(padded, extension...))
	if r, q := quoteReason(t, b); r != ReasonNone || q.end != 28+29 {
		t.Errorf("%v, quotation ends at %d, want %d", r, q.end, 28+29)
	}
	// Noise in the length field.
	b = icmpPacket(t, 11, 0, 1<<16, inner)
	if r, q := quoteReason(t, b); r != ReasonNone || q.end != 28+128 || q.checksumAt == 0 {
		t.Errorf("%v, quotation ends at %d", r, q.end)
	}
}

// FAULTS 70.
func TestAnyNextHopMTUIsAccepted(t *testing.T) {
	for _, mtu := range []uint32{0, 1, 67, 65535} {
		b := icmpPacket(t, 3, 4, mtu, quotedReply(t, 0))
		if r, _ := quoteReason(t, b); r != ReasonNone || binary.BigEndian.Uint32(b[24:]) != mtu {
			t.Errorf("MTU %d: %v", mtu, r)
		}
	}
}
