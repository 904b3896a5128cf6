// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// Packets for the tests of the low layer. They are built by gopacket and
// judged by gopacket and by the slow sums below, never by the code under test.

var (
	hostClient  = net.IPv4(192, 168, 88, 21)
	hostVirtual = net.IPv4(192, 168, 88, 23)
	hostServer  = net.IPv4(10, 0, 0, 2)
)

func addr(ip net.IP) (a conntrack.Addr) {
	copy(a[:], ip.To16())
	return a
}

// ipLayer is the IP header that most tests start from.
func ipLayer(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Id: 0x1234, Protocol: proto, SrcIP: hostClient, DstIP: hostVirtual}
}

// The same hosts in IPv6.
var (
	host6Client  = net.ParseIP("2001:db8:88::21")
	host6Virtual = net.ParseIP("2001:db8:88::23")
	host6Server  = net.ParseIP("fd00:10::2")
)

// ip6Layer is ipLayer for IPv6.
func ip6Layer(proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: host6Client, DstIP: host6Virtual}
}

// serialize writes the layers with right lengths and checksums.
func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, o, l...); err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), b.Bytes()...)
}

// tcpPacket is a segment from client:40000 to virtual:80, changed by edit.
func tcpPacket(t testing.TB, payload int, edit func(*layers.IPv4, *layers.TCP)) []byte {
	ip := ipLayer(layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: 5001, Ack: 7001, Window: 64240, ACK: true}
	if edit != nil {
		edit(ip, tcp)
	}
	tcp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, tcp, gopacket.Payload(pattern(payload)))
}

// udpPacket is a datagram from client:40053 to virtual:9053, changed by edit.
func udpPacket(t testing.TB, payload int, edit func(*layers.IPv4, *layers.UDP)) []byte {
	ip := ipLayer(layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 40053, DstPort: 9053}
	if edit != nil {
		edit(ip, udp)
	}
	udp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, udp, gopacket.Payload(pattern(payload)))
}

// icmpPacket is a message from client to virtual; rest is the second word.
func icmpPacket(t testing.TB, kind, code uint8, rest uint32, payload []byte) []byte {
	ip := ipLayer(layers.IPProtocolICMPv4)
	icmp := &layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(kind, code),
		Id:       uint16(rest >> 16), Seq: uint16(rest),
	}
	return serialize(t, ip, icmp, gopacket.Payload(payload))
}

// tcp6Packet is tcpPacket for IPv6.
func tcp6Packet(t testing.TB, payload int, edit func(*layers.IPv6, *layers.TCP)) []byte {
	ip := ip6Layer(layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: 5001, Ack: 7001, Window: 64240, ACK: true}
	if edit != nil {
		edit(ip, tcp)
	}
	tcp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, tcp, gopacket.Payload(pattern(payload)))
}

// udp6Packet is udpPacket for IPv6.
func udp6Packet(t testing.TB, payload int, edit func(*layers.IPv6, *layers.UDP)) []byte {
	ip := ip6Layer(layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 40053, DstPort: 9053}
	if edit != nil {
		edit(ip, udp)
	}
	udp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, udp, gopacket.Payload(pattern(payload)))
}

// icmp6Packet is icmpPacket for ICMPv6.
func icmp6Packet(t testing.TB, kind, code uint8, rest uint32, payload []byte) []byte {
	ip := ip6Layer(layers.IPProtocolICMPv6)
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
	icmp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, icmp, gopacket.Payload(append(binary.BigEndian.AppendUint32(nil, rest), payload...)))
}

// An extension is a header of IPv6 without its next header field, which is
// written when it is put into a packet.
type extension struct {
	proto uint8
	bytes []byte // from the first byte on
}

func hopByHop(options ...byte) extension    { return extension{0, optionHeader(options)} }
func destination(options ...byte) extension { return extension{60, optionHeader(options)} }
func routing(kind, left uint8) extension    { return extension{43, []byte{0, 0, kind, left, 0, 0, 0, 0}} }

func optionHeader(options []byte) []byte {
	b := append([]byte{0, 0}, options...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = byte(len(b)/8 - 1)
	return b
}

func fragmentExtension(id uint32, offset int, more bool) extension {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(offset))
	if more {
		b[3] |= 1
	}
	return extension{44, binary.BigEndian.AppendUint32(b, id)}
}

// extended puts extension headers in front of what follows the fixed header.
func extended(b []byte, list ...extension) []byte {
	out := append([]byte(nil), b[:40]...)
	at, last := 6, b[6]
	for _, e := range list {
		out[at] = e.proto
		at = len(out)
		out = append(out, e.bytes...)
	}
	out[at] = last
	out = append(out, b[40:]...)
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// fragment6Of makes a fragment of IPv6 of any length at any place.
func fragment6Of(t testing.TB, proto layers.IPProtocol, id uint32, offset int, more bool, data []byte) []byte {
	return extended(serialize(t, ip6Layer(proto), gopacket.Payload(data)), fragmentExtension(id, offset, more))
}

// fixHeader makes the IP header checksum right after a test changed bytes.
func fixHeader(b []byte) []byte {
	n := int(b[0]&15) * 4
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:n]))
	return b
}

// pattern is a payload in which every position can be told from the next.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// slowSum is the Internet checksum as RFC 1071 section 1 describes it.
func slowSum(b []byte) uint16 {
	s := 0
	for i, v := range b {
		if i%2 == 0 {
			s += int(v) << 8
		} else {
			s += int(v)
		}
		if s > 0xffff {
			s -= 0xffff
		}
	}
	return uint16(s)
}

// slowTransport is the sum of pseudo-header and transport data of a whole
// packet: 0xffff if its checksum is right.
func slowTransport(b []byte) uint16 {
	if b[0]>>4 == 6 {
		proto, n := slowChain(b)
		return slowSum(append(pseudoBytes(conntrack.Addr(b[8:24]), conntrack.Addr(b[24:40]), false, proto, len(b)-n), b[n:]...))
	}
	n := int(b[0]&15) * 4
	pseudo := append([]byte(nil), b[12:20]...)
	pseudo = append(pseudo, 0, b[9])
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b)-n))
	if b[9] == 1 {
		pseudo = nil
	}
	return slowSum(append(pseudo, b[n:]...))
}

// slowChain finds the transport header of a packet of either family.
func slowChain(b []byte) (proto uint8, at int) {
	if b[0]>>4 == 4 {
		return b[9], int(b[0]&15) * 4
	}
	proto, at = b[6], 40
	for later := false; !later && at+8 <= len(b) && (proto == 0 || proto == 43 || proto == 44 || proto == 60); {
		length := 8
		if proto != 44 {
			length += 8 * int(b[at+1])
		} else {
			later = binary.BigEndian.Uint16(b[at+2:])&^7 != 0
		}
		proto, at = b[at], at+length
	}
	return proto, min(at, len(b))
}

// decode has gopacket read a packet and fails if it finds fault with it.
func decode(t testing.TB, b []byte) gopacket.Packet {
	t.Helper()
	first, length := layers.LayerTypeIPv4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 == 6 {
		first, length = layers.LayerTypeIPv6, 40+int(binary.BigEndian.Uint16(b[4:]))
	}
	p := gopacket.NewPacket(b, first, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("gopacket: %v in % x", e.Error(), b)
	}
	if length != len(b) {
		t.Fatalf("length %d, packet has %d bytes", length, len(b))
	}
	if b[0]>>4 == 4 {
		if s := slowSum(b[:int(b[0]&15)*4]); s != 0xffff {
			t.Fatalf("IP header checksum wrong: sum %#04x in % x", s, b[:20])
		}
	}
	return p
}

// sound decodes a whole packet and fails unless all its checksums are right.
func sound(t testing.TB, b []byte) gopacket.Packet {
	t.Helper()
	p := decode(t, b)
	if b[0]>>4 == 4 && b[9] == 17 && binary.BigEndian.Uint16(b[int(b[0]&15)*4+6:]) == 0 {
		return p
	}
	if s := slowTransport(b); s != 0xffff {
		t.Fatalf("transport checksum wrong: sum %#04x in % x", s, b)
	}
	return p
}

// mustParse parses a packet that is to be accepted.
func mustParse(t testing.TB, pkt *Packet) *parsed {
	t.Helper()
	p := new(parsed)
	if r := p.parse(pkt); r != ReasonNone {
		t.Fatalf("parse: %v", r)
	}
	return p
}
