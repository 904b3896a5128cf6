// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// encodeIPv6 is encodePacket for IPv6.
func encodeIPv6(head []string, f fields, inner string, src, dst netip.AddrPort) ([]byte, Offload) {
	ip := &layers.IPv6{
		Version: 6, HopLimit: uint8(f.num("ttl", 64)), TrafficClass: uint8(f.num("tos", 0)), FlowLabel: uint32(f.num("label", 0)),
		SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(),
	}
	data := f.payload()
	stack := []gopacket.SerializableLayer{ip}
	sumAt := -1
	switch head[0] {
	case "tcp":
		ip.NextHeader, sumAt = layers.IPProtocolTCP, 16
		t := tcpLayer(head, f, src.Port(), dst.Port())
		_ = t.SetNetworkLayerForChecksum(ip)
		stack = append(stack, t)
	case "udp":
		ip.NextHeader, sumAt = layers.IPProtocolUDP, 6
		u := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
		_ = u.SetNetworkLayerForChecksum(ip)
		stack = append(stack, u)
	case "sctp":
		ip.NextHeader = layers.IPProtocolSCTP
		stack = append(stack, sctpLayers(head, f, src.Port(), dst.Port())...)
		data = nil // it is in the chunks
	case "icmp":
		ip.NextHeader, sumAt = layers.IPProtocolICMPv6, 2
		name := icmpv6Names.named(head[4])
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(name.kind, name.code)}
		_ = m.SetNetworkLayerForChecksum(ip)
		rest := uint32(f.num("id", 1))<<16 | uint32(f.num("seq", 0))
		if name.kind < 128 || name.kind == 137 {
			rest = uint32(f.num("mtu", 0))
			data, _ = encodePacket(inner)
			data = data[:min(len(data), f.num("cut", 1232))]
		}
		stack = append(stack, m)
		data = append(binary.BigEndian.AppendUint32(nil, rest), data...)
	default:
		ip.NextHeader = layers.IPProtocol(f.num("proto", 17))
	}
	stack = append(stack, gopacket.Payload(data))
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		panic(err)
	}
	b := slices.Clone(buffer.Bytes())
	if n := f.num("udplen", 0); n > 0 { // of the whole datagram, in its first fragment
		binary.BigEndian.PutUint16(b[44:], uint16(n))
	}
	var off Offload
	switch sum := f["sum"]; {
	case sumAt < 0 || sum == "" || sum == "ok":
	case sum == "bad":
		b[40+sumAt+1] ^= 0x55
	case sum == "zero":
		b[40+sumAt], b[40+sumAt+1] = 0, 0
	case sum == "partial":
		pseudo := slowSum(pseudoBytes(addr(ip.SrcIP), addr(ip.DstIP), false, uint8(ip.NextHeader), len(b)-40))
		binary.BigEndian.PutUint16(b[40+sumAt:], pseudo)
		off = Offload{NeedsChecksum: true, ChecksumOffset: uint16(sumAt)}
	}
	if head[0] == "sctp" {
		off = setSCTPSum(b, 40, f)
	}
	b = extended(b, extensionsOf(f)...)
	_, l4 := slowChain(b)
	if off.NeedsChecksum {
		off.ChecksumStart = uint16(l4)
	}
	if raw, ok := f["raw"]; ok {
		over, err := hex.DecodeString(raw)
		if err != nil {
			panic(err)
		}
		copy(b[f.num("at", 0):], over)
	}
	if n := f.num("gso", 0); n > 0 {
		off.GSOType, off.GSOSize, off.HeaderLen = GSOTCPv6, uint16(n), uint16(l4+20)
	}
	return append(b, make([]byte, f.num("pad", 0))...), off
}

func extensionsOf(f fields) (list []extension) {
	if names := f["ext"]; names != "" {
		for _, name := range strings.Split(names, ",") {
			list = append(list, extensionOf(name))
		}
	}
	_, more := f["mf"]
	if _, later := f["off"]; later || more {
		list = append(list, fragmentExtension(uint32(f.num("id", 1)), f.num("off", 0), more))
	}
	return list
}

// decodeIPv6 is decodePacket for IPv6. Of extension headers it writes the
// numbers: ext=0,60.
func decodeIPv6(b []byte, off Offload) string {
	p := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.NoCopy)
	ip, ok := p.NetworkLayer().(*layers.IPv6)
	if !ok {
		return "undecodable " + hex.EncodeToString(b)
	}
	words := fmt.Sprintf(" ttl=%d tos=%d len=%d", ip.HopLimit, ip.TrafficClass, len(b))
	if ip.FlowLabel != 0 {
		words += fmt.Sprintf(" label=%d", ip.FlowLabel)
	}
	var chain []string
	proto, at, offset, more := b[6], 40, 0, false
	for at+8 <= len(b) && offset == 0 && (proto == 0 || proto == 43 || proto == 44 || proto == 60) {
		length := 8
		if proto == 44 {
			offset, more = int(be16(b, at+2)&^7), b[at+3]&1 != 0
		} else {
			length += 8 * int(b[at+1])
		}
		if proto == 44 && (offset != 0 || more) {
			words += fmt.Sprintf(" id=%d", binary.BigEndian.Uint32(b[at+4:]))
		} else {
			chain = append(chain, fmt.Sprint(proto))
		}
		proto, at = b[at], at+length
	}
	if len(chain) > 0 {
		words += " ext=" + strings.Join(chain, ",")
	}
	if more {
		words += " mf"
	}
	l4 := b[min(at, len(b)):]
	if offset != 0 {
		return fmt.Sprintf("frag %s > %s proto=%d data=%d off=%d%s", ip.SrcIP, ip.DstIP, proto, len(l4), offset, words)
	}
	pseudo := pseudoBytes(conntrack.Addr(b[8:24]), conntrack.Addr(b[24:40]), false, proto, len(l4))
	judge := func(at int) string {
		switch {
		case at+2 > len(l4) || more || len(b) < 40+int(ip.Length):
			return ""
		case off.NeedsChecksum && be16(l4, at) == slowSum(pseudo):
			return " sum=partial"
		case !off.NeedsChecksum && slowSum(append(slices.Clone(pseudo), l4...)) == 0xffff:
			return " sum=ok"
		}
		return " sum=bad"
	}
	if outer, ok := decodeTunnel(proto, ip.SrcIP.String(), ip.DstIP.String(), l4); ok {
		switch {
		case strings.HasPrefix(outer, "gue") && be16(l4, 6) == 0:
			outer += " sum=zero" // as RFC 6935 allows a tunnel
		case strings.HasPrefix(outer, "gue"):
			outer += judge(6)
		}
		return outer + words
	}
	switch proto {
	case 6:
		return fmt.Sprintf("tcp [%s]:%d > [%s]:%d%s%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), tcpWords(l4), judge(16), words)
	case 17:
		return fmt.Sprintf("udp [%s]:%d > [%s]:%d data=%d%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), max(0, len(l4)-8), judge(6), words)
	case 132:
		sum := ""
		if !more && len(b) >= 40+int(ip.Length) {
			sum = judgeSCTP(l4, off)
		}
		return fmt.Sprintf("sctp [%s]:%d > [%s]:%d%s%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), sctpWords(l4), sum, words)
	case 58:
		if len(l4) < 8 {
			break
		}
		name := icmpv6Names.nameOf(l4[0], l4[1])
		out := fmt.Sprintf("icmp %s > %s %s", ip.SrcIP, ip.DstIP, name)
		if l4[0] == 128 || l4[0] == 129 {
			return out + fmt.Sprintf(" id=%d seq=%d data=%d%s%s", be16(l4, 4), be16(l4, 6), len(l4)-8, judge(2), strings.ReplaceAll(words, " id=", " ipid="))
		}
		if l4[0] == 2 {
			out += fmt.Sprintf(" mtu=%d", binary.BigEndian.Uint32(l4[4:]))
		}
		return out + fmt.Sprintf(" (%s)%s%s", decodePacket(l4[8:], Offload{}), judge(2), words)
	}
	return fmt.Sprintf("ip %s > %s proto=%d data=%d%s", ip.SrcIP, ip.DstIP, proto, len(l4), words)
}
