// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The notation of packets in scripts, both ways. gopacket and a slow sum do
// the work, so that nothing here shares code with what it judges.
//
//	tcp 192.0.2.7:40000 > 10.0.0.1:80 SA seq=1 ack=2 win=100 data=5 mss=1460 wscale=7
//	udp 192.0.2.7:53 > 10.0.0.1:53 data=4
//	icmp 192.0.2.7 > 10.0.0.1 echo-request id=7 seq=1 data=8
//	icmp 192.0.2.7 > 10.0.0.1 port-unreachable (tcp 10.0.0.1:80 > 192.0.2.7:40000 A)
//	sctp 192.0.2.7:40000 > 10.0.0.1:80 DATA+SACK tag=7 data=8; see wiresctp_test.go
//	frag 192.0.2.7 > 10.0.0.1 proto=17 off=1480 data=20 mf
//	ip 192.0.2.7 > 10.0.0.1 proto=99 data=20
//	ipip 10.0.0.1 > 10.0.0.2 (tcp 192.0.2.7:40000 > 192.0.2.8:80 S)      also gre, gue; see wiretunnel_test.go
//
// IPv6 is written the same way, tcp [2001:db8::7]:40000 > [fd00::1]:80, and has
// beside it label= and ext=NAME,…: hop, dest, routing (with 0 segments left),
// source-route (with 1), atomic, or a protocol and
// the HEX of its header, of which the first byte is put right: 60:0000010400000000.
//
// A payload may begin with a text in quotes, which data= then goes on after, and a
// segment have sack=FROM-TO,FROM-TO.
//
// Of all: ttl= id= tos= df mf off= opts=HEX sum=ok|bad|zero|partial ipsum=bad
// udplen=N gso=N pad=N (bytes behind the packet) mtu=N (of frag-needed) cut=N (a quotation cut
// to N bytes) raw=HEX at=N (bytes put over the finished packet).

// icmpMessages are names of messages.
type icmpMessages []icmpMessage

type icmpMessage struct {
	name       string
	kind, code uint8
}

// named is the message of a name. It has to be there.
func (m icmpMessages) named(name string) icmpMessage {
	return m[slices.IndexFunc(m, func(n icmpMessage) bool { return n.name == name })]
}

// nameOf is the name of a message, or its numbers.
func (m icmpMessages) nameOf(kind, code uint8) string {
	for _, n := range m {
		if n.kind == kind && n.code == code {
			return n.name
		}
	}
	return fmt.Sprintf("type=%d/%d", kind, code)
}

var icmpNames = icmpMessages{
	{"echo-reply", 0, 0}, {"net-unreachable", 3, 0}, {"host-unreachable", 3, 1}, {"proto-unreachable", 3, 2},
	{"port-unreachable", 3, 3}, {"frag-needed", 3, 4}, {"source-quench", 4, 0}, {"redirect", 5, 1},
	{"echo-request", 8, 0}, {"time-exceeded", 11, 0}, {"reassembly-exceeded", 11, 1}, {"parameter-problem", 12, 0},
}

var icmpv6Names = icmpMessages{
	{"echo-reply", 129, 0}, {"no-route", 1, 0}, {"address-unreachable", 1, 3}, {"port-unreachable", 1, 4},
	{"too-big", 2, 0}, {"time-exceeded", 3, 0}, {"reassembly-exceeded", 3, 1}, {"parameter-problem", 4, 1},
	{"unknown-error", 100, 0}, {"echo-request", 128, 0}, {"neighbour-solicitation", 135, 0}, {"redirect", 137, 0},
}

// extensionOf is an extension header by its name in scripts.
func extensionOf(name string) extension {
	switch name {
	case "hop":
		return hopByHop(5, 2, 0, 0)
	case "dest":
		return destination(1, 4, 0, 0, 0, 0)
	case "routing":
		return routing(0, 0)
	case "source-route":
		return routing(0, 1)
	case "atomic":
		return fragmentExtension(0x77, 0, false)
	}
	number, digits, _ := strings.Cut(name, ":")
	proto, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		panic(fmt.Sprintf("ext=%s: %v", name, err))
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) < 8 {
		panic(fmt.Sprintf("ext=%s: %v", name, err))
	}
	return extension{uint8(proto), b}
}

type fields map[string]string

func (f fields) num(key string, otherwise int) int {
	v, ok := f[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil {
		panic(fmt.Sprintf("%s=%s: %v", key, v, err))
	}
	return int(n)
}

// splitFields splits the words of a packet: "(…)" nests, and one that is not
// closed is a word like others.
func splitFields(text string) (head []string, f fields, inner string) {
	f = fields{}
	if i := strings.IndexByte(text, '"'); i >= 0 && !strings.Contains(text[:i], "(") {
		if quote, err := strconv.QuotedPrefix(text[i:]); err == nil {
			f["text"] = quote
			text = text[:i] + text[i+len(quote):]
		}
	}
	if i, j := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')'); i >= 0 && i < j {
		inner = text[i+1 : j]
		text = text[:i] + text[j+1:]
	}
	for _, w := range strings.Fields(text) {
		if k, v, ok := strings.Cut(w, "="); ok {
			f[k] = v
		} else if w == "df" || w == "mf" {
			f[w] = ""
		} else {
			head = append(head, w)
		}
	}
	return head, f, inner
}

// payload is the text of a packet and the bytes behind it.
func (f fields) payload() []byte {
	var data []byte
	if quote, ok := f["text"]; ok {
		text, err := strconv.Unquote(quote)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", quote, err))
		}
		data = []byte(text)
	}
	for i := range f.num("data", 0) {
		data = append(data, byte(i*7+1))
	}
	return data
}

// textWord is the text that a payload begins with, in the notation of scripts; ""
// if it is none.
func textWord(data []byte) string {
	n := 0
	for n < len(data) && (data[n] >= ' ' && data[n] <= '~' || data[n] == '\r' || data[n] == '\n') {
		n++
	}
	if n == 0 {
		return ""
	}
	return " " + strconv.Quote(string(data[:n]))
}

// encodePacket makes the bytes of a packet and its offload header.
func encodePacket(text string) ([]byte, Offload) {
	head, f, inner := splitFields(text)
	proto := head[0]
	if proto == "ipip" || proto == "gre" || proto == "gue" {
		return encodeTunnel(head, f, inner), Offload{}
	}
	src, dst := head[1], head[3]
	var sp, dp uint16
	if proto == "tcp" || proto == "udp" || proto == "sctp" {
		a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		src, dst, sp, dp = a.Addr().String(), b.Addr().String(), a.Port(), b.Port()
	}
	if strings.Contains(src, ":") {
		return encodeIPv6(head, f, inner, netip.AddrPortFrom(netip.MustParseAddr(src), sp), netip.AddrPortFrom(netip.MustParseAddr(dst), dp))
	}
	ip := &layers.IPv4{
		Version: 4, TTL: uint8(f.num("ttl", 64)), Id: uint16(f.num("id", 1)), TOS: uint8(f.num("tos", 0)),
		SrcIP: netip.MustParseAddr(src).AsSlice(), DstIP: netip.MustParseAddr(dst).AsSlice(),
		FragOffset: uint16(f.num("off", 0) / 8),
	}
	if _, ok := f["df"]; ok {
		ip.Flags |= layers.IPv4DontFragment
	}
	if _, ok := f["mf"]; ok {
		ip.Flags |= layers.IPv4MoreFragments
	}
	data := f.payload()
	stack := []gopacket.SerializableLayer{ip}
	sumAt := -1
	switch proto {
	case "tcp":
		ip.Protocol = layers.IPProtocolTCP
		t := tcpLayer(head, f, sp, dp)
		_ = t.SetNetworkLayerForChecksum(ip)
		stack = append(stack, t, gopacket.Payload(data))
		sumAt = 16
	case "udp":
		ip.Protocol = layers.IPProtocolUDP
		u := &layers.UDP{SrcPort: layers.UDPPort(sp), DstPort: layers.UDPPort(dp)}
		_ = u.SetNetworkLayerForChecksum(ip)
		stack = append(stack, u, gopacket.Payload(data))
		sumAt = 6
	case "sctp":
		ip.Protocol = layers.IPProtocolSCTP
		stack = append(stack, sctpLayers(head, f, sp, dp)...)
	case "icmp":
		ip.Protocol = layers.IPProtocolICMPv4
		message := icmpNames.named(head[4])
		m := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(message.kind, message.code), Id: uint16(f.num("id", 1)), Seq: uint16(f.num("seq", 0))}
		ip.Id = uint16(f.num("ipid", 1))
		if message.kind != 8 && message.kind != 0 {
			m.Id, m.Seq = 0, uint16(f.num("mtu", 0))
			data, _ = encodePacket(inner)
			data = data[:min(len(data), f.num("cut", 548))]
		}
		stack = append(stack, m, gopacket.Payload(data))
		sumAt = 2
	default:
		ip.Protocol = layers.IPProtocol(f.num("proto", 17))
		stack = append(stack, gopacket.Payload(data))
	}
	ip.SrcIP, ip.DstIP = ip.SrcIP.To4(), ip.DstIP.To4()
	if o, ok := f["opts"]; ok {
		b, err := hex.DecodeString(o)
		if err != nil {
			panic(err)
		}
		ip.Options = []layers.IPv4Option{{OptionType: b[0], OptionLength: uint8(len(b)), OptionData: b[min(2, len(b)):]}}
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		panic(err)
	}
	b := slices.Clone(buffer.Bytes())
	headerLen := int(b[0]&15) * 4
	if n := f.num("udplen", 0); n > 0 { // of the whole datagram, in its first fragment
		binary.BigEndian.PutUint16(b[headerLen+4:], uint16(n))
	}
	var off Offload
	switch sum := f["sum"]; {
	case sumAt < 0 || sum == "" || sum == "ok":
	case sum == "bad":
		b[headerLen+sumAt+1] ^= 0x55
	case sum == "zero":
		b[headerLen+sumAt], b[headerLen+sumAt+1] = 0, 0
	case sum == "partial":
		pseudo := slowSum(pseudoBytes(addr(ip.SrcIP), addr(ip.DstIP), true, uint8(ip.Protocol), len(b)-headerLen))
		binary.BigEndian.PutUint16(b[headerLen+sumAt:], pseudo)
		off = Offload{NeedsChecksum: true, ChecksumStart: uint16(headerLen), ChecksumOffset: uint16(sumAt)}
	}
	if proto == "sctp" {
		off = setSCTPSum(b, headerLen, f)
	}
	if f["ipsum"] == "bad" {
		b[11] ^= 0x55
	}
	if raw, ok := f["raw"]; ok {
		over, err := hex.DecodeString(raw)
		if err != nil {
			panic(err)
		}
		copy(b[f.num("at", 0):], over)
		if f["ipsum"] == "" { // the rest of the header is to be believed
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:min(len(b), int(b[0]&15)*4)]))
		}
	}
	if n := f.num("gso", 0); n > 0 {
		off.GSOType, off.GSOSize, off.HeaderLen = GSOTCPv4, uint16(n), uint16(headerLen+20)
	}
	b = append(b, make([]byte, f.num("pad", 0))...)
	return b, off
}

// tcpLayer is the TCP header of a packet of either family.
func tcpLayer(head []string, f fields, sp, dp uint16) *layers.TCP {
	t := &layers.TCP{
		SrcPort: layers.TCPPort(sp), DstPort: layers.TCPPort(dp), Seq: uint32(f.num("seq", 1000)), Ack: uint32(f.num("ack", 0)),
		Window: uint16(f.num("win", 64240)), Urgent: uint16(f.num("urg", 0)),
	}
	if len(head) > 4 {
		for _, c := range head[4] {
			switch c {
			case 'S':
				t.SYN = true
			case 'A':
				t.ACK = true
			case 'F':
				t.FIN = true
			case 'R':
				t.RST = true
			case 'P':
				t.PSH = true
			case 'U':
				t.URG = true
			}
		}
	}
	if n := f.num("mss", 0); n > 0 {
		t.Options = append(t.Options, layers.TCPOption{OptionType: 2, OptionLength: 4, OptionData: binary.BigEndian.AppendUint16(nil, uint16(n))})
	}
	if blocks, ok := f["sack"]; ok {
		var edges []byte
		for _, v := range strings.FieldsFunc(blocks, func(r rune) bool { return r == '-' || r == ',' }) {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				panic(err)
			}
			edges = binary.BigEndian.AppendUint32(edges, uint32(n))
		}
		t.Options = append(t.Options, layers.TCPOption{OptionType: 1}, layers.TCPOption{OptionType: 5, OptionLength: uint8(2 + len(edges)), OptionData: edges})
	}
	if _, ok := f["wscale"]; ok {
		t.Options = append(t.Options, layers.TCPOption{OptionType: 3, OptionLength: 3, OptionData: []byte{byte(f.num("wscale", 0))}})
	}
	return t
}

// decodePacket writes a packet in the notation of encodePacket, with every
// field, and judges its checksums.
func decodePacket(b []byte, off Offload) string {
	if len(b) > 0 && b[0]>>4 == 6 {
		return decodeIPv6(b, off)
	}
	p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.NoCopy)
	ip, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok {
		return "undecodable " + hex.EncodeToString(b)
	}
	headerLen := int(ip.IHL) * 4
	ipWords := fmt.Sprintf(" ttl=%d tos=%d len=%d", ip.TTL, ip.TOS, len(b))
	idWord := fmt.Sprintf(" id=%d", ip.Id)
	if ip.Flags&layers.IPv4DontFragment != 0 {
		ipWords += " df"
	}
	if ip.Flags&layers.IPv4MoreFragments != 0 {
		ipWords += " mf"
	}
	if ip.FragOffset != 0 {
		ipWords += fmt.Sprintf(" off=%d", int(ip.FragOffset)*8)
	}
	if slowSum(b[:headerLen]) != 0xffff {
		ipWords += " ipsum=bad"
	}
	l4 := b[headerLen:]
	if ip.FragOffset != 0 {
		return fmt.Sprintf("frag %s > %s proto=%d data=%d%s%s", ip.SrcIP, ip.DstIP, ip.Protocol, len(l4), idWord, ipWords)
	}
	pseudo := pseudoBytes(addr(ip.SrcIP), addr(ip.DstIP), true, uint8(ip.Protocol), len(l4))
	judge := func(at int, pseudo []byte) string {
		if at+2 > len(l4) || ip.Flags&layers.IPv4MoreFragments != 0 || len(b) < int(ip.Length) {
			return ""
		}
		field := binary.BigEndian.Uint16(l4[at:])
		switch {
		case off.NeedsChecksum:
			if field == slowSum(pseudo) {
				return " sum=partial"
			}
			return " sum=bad"
		case field == 0 && ip.Protocol == layers.IPProtocolUDP:
			return " sum=zero"
		case slowSum(append(slices.Clone(pseudo), l4...)) == 0xffff:
			return " sum=ok"
		}
		return " sum=bad"
	}
	if outer, ok := decodeTunnel(uint8(ip.Protocol), ip.SrcIP.String(), ip.DstIP.String(), l4); ok {
		if strings.HasPrefix(outer, "gue") {
			outer += judge(6, pseudo)
		}
		return outer + idWord + ipWords
	}
	switch ip.Protocol {
	case layers.IPProtocolTCP:
		h := tcpWords(l4)
		return fmt.Sprintf("tcp %s:%d > %s:%d%s%s%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), h, judge(16, pseudo), idWord, ipWords)
	case layers.IPProtocolUDP:
		return fmt.Sprintf("udp %s:%d > %s:%d data=%d%s%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), max(0, len(l4)-8), judge(6, pseudo), idWord, ipWords)
	case layers.IPProtocolSCTP:
		sum := ""
		if ip.Flags&layers.IPv4MoreFragments == 0 && len(b) >= int(ip.Length) {
			sum = judgeSCTP(l4, off)
		}
		return fmt.Sprintf("sctp %s:%d > %s:%d%s%s%s%s", ip.SrcIP, be16(l4, 0), ip.DstIP, be16(l4, 2), sctpWords(l4), sum, idWord, ipWords)
	case layers.IPProtocolICMPv4:
		name := icmpNames.nameOf(l4[0], l4[1])
		out := fmt.Sprintf("icmp %s > %s %s", ip.SrcIP, ip.DstIP, name)
		if l4[0] == 0 || l4[0] == 8 {
			return out + fmt.Sprintf(" id=%d seq=%d data=%d%s%s", be16(l4, 4), be16(l4, 6), len(l4)-8, judge(2, nil), ipWords)
		}
		if l4[0] == 3 && l4[1] == 4 {
			out += fmt.Sprintf(" mtu=%d", be16(l4, 6))
		}
		return out + fmt.Sprintf(" (%s)%s%s", decodePacket(l4[8:], Offload{}), judge(2, nil), ipWords)
	}
	return fmt.Sprintf("ip %s > %s proto=%d data=%d%s%s", ip.SrcIP, ip.DstIP, ip.Protocol, len(l4), idWord, ipWords)
}

func be16(b []byte, at int) uint16 {
	if at+2 > len(b) {
		return 0
	}
	return binary.BigEndian.Uint16(b[at:])
}

func tcpWords(l4 []byte) string {
	if len(l4) < 20 {
		return ""
	}
	flags := ""
	for _, f := range []struct {
		bit  byte
		name string
	}{{2, "S"}, {1, "F"}, {4, "R"}, {8, "P"}, {16, "A"}, {32, "U"}} {
		if l4[13]&f.bit != 0 {
			flags += f.name
		}
	}
	if flags == "" {
		flags = "."
	}
	headerLen := int(l4[12]>>4) * 4
	words := fmt.Sprintf(" %s seq=%d ack=%d win=%d data=%d", flags, binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]),
		be16(l4, 14), max(0, len(l4)-headerLen))
	if headerLen < 20 || headerLen > len(l4) {
		return words
	}
	if headerLen > 22 && l4[20] == 1 && l4[21] == 5 { // as tcpLayer writes it
		separator := " sack="
		for at := 23; at+8 <= 21+int(l4[22]) && at+8 <= headerLen; at += 8 {
			words += fmt.Sprintf("%s%d-%d", separator, binary.BigEndian.Uint32(l4[at:]), binary.BigEndian.Uint32(l4[at+4:]))
			separator = ","
		}
	}
	return words + textWord(l4[headerLen:])
}

// agrees reports whether a packet, as decodePacket wrote it, has every word
// that want has, in place for the first ones; and a good checksum unless want
// says otherwise.
func agrees(want, got string) bool {
	wh, wf, wi := splitFields(want)
	gh, gf, gi := splitFields(got)
	if _, ok := wf["sum"]; !ok && gf["sum"] == "bad" {
		return false
	}
	if gf["ipsum"] == "bad" && wf["ipsum"] != "bad" {
		return false
	}
	if !slices.Equal(wh, gh) {
		return false
	}
	for k, v := range wf {
		if g, ok := gf[k]; !ok || g != v {
			return false
		}
	}
	if wi != "" {
		return agrees(wi, gi)
	}
	return true
}
