// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The notation of packets in packets:
//
//	ipip 10.0.0.1 > 10.0.0.2 (tcp …)                     either family in either
//	gre 10.0.0.1 > 10.0.0.2 (tcp …) gresum=none|ok|bad
//	gue 10.0.0.1 > 10.0.0.2 sport=N (tcp …) sum=…        UDP to port 6080
//
// What is inside is written, and judged, as if it had come alone.

const gueTestPort = 6080

// encodeTunnel makes the bytes of a packet that holds another one.
func encodeTunnel(head []string, f fields, text string) []byte {
	inner, _ := encodePacket(text)
	src, dst := netip.MustParseAddr(head[1]), netip.MustParseAddr(head[3])
	proto, etherType := layers.IPProtocolIPv4, layers.EthernetTypeIPv4
	if inner[0]>>4 == 6 {
		proto, etherType = layers.IPProtocolIPv6, layers.EthernetTypeIPv6
	}
	var stack []gopacket.SerializableLayer
	udp := &layers.UDP{SrcPort: layers.UDPPort(f.num("sport", 50000)), DstPort: gueTestPort}
	switch head[0] {
	case "gre":
		proto = layers.IPProtocolGRE
		stack = append(stack, &layers.GRE{Protocol: etherType, ChecksumPresent: f["gresum"] == "ok"})
	case "gue":
		stack = append(stack, udp, gopacket.Payload([]byte{0, byte(proto), 0, 0}))
		proto = layers.IPProtocolUDP
	}
	stack = append(stack, gopacket.Payload(inner))
	if src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: uint8(f.num("ttl", 64)), Id: uint16(f.num("id", 1)), TOS: uint8(f.num("tos", 0)),
			Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(ip)
		stack = append([]gopacket.SerializableLayer{ip}, stack...)
	} else {
		ip := &layers.IPv6{Version: 6, HopLimit: uint8(f.num("ttl", 64)), NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(ip)
		stack = append([]gopacket.SerializableLayer{ip}, stack...)
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		panic(err)
	}
	return slices.Clone(buffer.Bytes())
}

// decodeTunnel writes what is behind the IP header of a packet that holds another
// one, false if it holds none.
func decodeTunnel(proto uint8, src, dst string, b []byte) (string, bool) {
	switch {
	case proto == 4 || proto == 41:
		return fmt.Sprintf("ipip %s > %s (%s)", src, dst, decodePacket(b, Offload{})), true
	case proto == 47 && len(b) >= 4:
		g := layers.GRE{}
		if err := g.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil || g.KeyPresent || g.SeqPresent || g.Version != 0 {
			return fmt.Sprintf("gre %s > %s undecodable", src, dst), true
		}
		sum := "none"
		if g.ChecksumPresent {
			if sum = "bad"; slowSum(b) == 0xffff {
				sum = "ok"
			}
		}
		if inner := g.Payload[0] >> 4; inner == 4 && g.Protocol != layers.EthernetTypeIPv4 || inner == 6 && g.Protocol != layers.EthernetTypeIPv6 {
			sum = "wrong-type"
		}
		return fmt.Sprintf("gre %s > %s (%s) gresum=%s", src, dst, decodePacket(g.Payload, Offload{}), sum), true
	case proto == 17 && len(b) > 12 && be16(b, 2) == gueTestPort:
		what := "gue"
		if b[8] != 0 || be16(b, 10) != 0 || (b[12]>>4 == 4) != (b[9] == 4) || (b[12]>>4 == 6) != (b[9] == 41) {
			what = "gue-damaged"
		}
		return fmt.Sprintf("%s %s > %s (%s) sport=%d", what, src, dst, decodePacket(b[12:], Offload{}), be16(b, 0)), true
	}
	return "", false
}

// innerPacket is the whole packet that a whole outer one from a tunnel of world
// holds, or nil.
func innerPacket(b []byte) []byte {
	proto, at := slowChain(b)
	if src := ipHeader(b).src().String(); src != "10.0.0.1" && src != "fd00:10::1" {
		return nil
	}
	if b[0]>>4 == 4 && binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || b[0]>>4 == 6 && b[6] == 44 {
		return nil
	}
	switch {
	case proto == 4 || proto == 41:
		return b[at:]
	case proto == 47:
		at += 4 + int(b[at]>>7)*4
		return b[at:]
	case proto == 17 && len(b) > at+12 && be16(b, at+2) == gueTestPort:
		return b[at+12:]
	}
	return nil
}
