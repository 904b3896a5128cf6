// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
)

// exercise parses any bytes and, if they are accepted, calls everything that
// reads or rewrites an accepted packet. What comes out must parse again, be as
// long as before, have a right IP header checksum and a transport checksum
// with the error that it had.
func exercise(t *testing.T, table *fragments, b []byte, o Offload) Reason {
	pkt := Packet{Data: b, Offload: o}
	var p parsed
	if r := p.parse(&pkt); r != ReasonNone {
		return r
	}
	if len(pkt.Data) != p.totalLen || cap(pkt.Data) != p.totalLen || p.l4 > p.totalLen ||
		p.dataOffset+p.payload+p.l4 > p.totalLen {
		t.Fatalf("%d bytes, %+v", len(pkt.Data), p)
	}
	exerciseAnswers(t, &pkt, &p)
	exerciseQuote(t, &pkt, &p)
	exerciseFragments(t, table, &pkt, &p)
	exerciseSplit(t, &pkt, &p)
	exerciseRewrite(t, &pkt, &p)
	return ReasonNone
}

func exerciseAnswers(t *testing.T, pkt *Packet, p *parsed) {
	buf := make([]byte, maxErrorLen)
	src := addr(hostVirtual)
	if ipHeader(pkt.Data).is6() {
		src = addr(host6Virtual)
	}
	if n := buildICMPError(buf, fragNeeded(1300), &src, 1, pkt); p.mayAnswer() {
		if r := reasonOf(buf[:n]); r != ReasonNone && r != ReasonLand {
			t.Fatalf("our own error: %v in % x", r, buf[:n])
		}
		if slowTransport(buf[:n]) != 0xffff {
			t.Fatalf("our own error has a wrong checksum: % x", buf[:n])
		}
	}
	if n := buildReset(buf, p); n != 0 {
		if r := reasonOf(buf[:n]); r != ReasonNone || slowTransport(buf[:n]) != 0xffff {
			t.Fatalf("our own reset: %v in % x", r, buf[:n])
		}
	}
	echo := bytes.Clone(pkt.Data)
	if makeEchoReply(echo, p, 1) {
		var q parsed
		if r := q.parse(&Packet{Data: echo, Offload: pkt.Offload}); r != ReasonNone && r != ReasonSource {
			t.Fatalf("our own echo reply: %v in % x", r, echo)
		}
	}
}

func exerciseQuote(t *testing.T, pkt *Packet, p *parsed) {
	if p.kind != kindICMPError {
		return
	}
	var q quoted
	if p.parseQuote(pkt, &q) != ReasonNone {
		return
	}
	if q.l4+8 > q.end || q.end > len(pkt.Data) || q.checksumAt != 0 && q.checksumAt+2 > q.end {
		t.Fatalf("quotation outside the packet: %+v of %d", q, len(pkt.Data))
	}
}

func exerciseFragments(t *testing.T, table *fragments, pkt *Packet, p *parsed) {
	if !p.isFragment() {
		return
	}
	held := table.add(0, p, pkt).held // alone, it completes nothing
	if h := ipHeader(pkt.Data); h.headerLen() != p.headerLen {
		t.Fatalf("header of %d bytes, want %d", h.headerLen(), p.headerLen)
	}
	if held.table != nil {
		t.Fatal("a fragment alone is a datagram")
	}
	// All that is missing, in front of it and behind.
	rest := *p
	if rest.moreFragments {
		rest.fragOffset += p.totalLen - p.headerLen
		rest.moreFragments = false
		held = table.add(0, &rest, pkt).held
	}
	if p.fragOffset > 0 {
		rest = *p
		rest.fragOffset, rest.moreFragments = 0, true
		rest.totalLen = p.headerLen + p.fragOffset
		held = table.add(0, &rest, pkt).held
	}
	n := 0
	for b := held.next(); b != nil; b = held.next() {
		if n++; !bytes.Equal(b, pkt.Data) {
			t.Fatal("held fragment changed")
		}
	}
	if n == 0 {
		t.Fatal("the datagram is not whole")
	}
	if table.sweep(datagramLife); table.numRows != 0 || table.numFreeSlots != maxHeldSlots {
		t.Fatal("something is left in the table")
	}
}

func exerciseSplit(t *testing.T, pkt *Packet, p *parsed) {
	c := Packet{Data: bytes.Clone(pkt.Data), Offload: pkt.Offload}
	for _, mtu := range []int{68, 576} {
		p.gsoFits(&c, mtu)
		s, r := newSplitter(&c, mtu)
		if r != ReasonNone {
			continue
		}
		var data []byte
		b := make([]byte, mtu)
		for n := s.next(b); n > 0; n = s.next(b) {
			h := ipv4Header(b[:n])
			if h.totalLen() != n || !h.checksumOK() || int(h.fragment()&ipv4OffsetMask)*8 != p.fragOffset+len(data) {
				t.Fatalf("fragment % x", b[:n])
			}
			data = append(data, b[h.headerLen():n]...)
		}
		if !bytes.Equal(data, c.Data[p.l4:]) {
			t.Fatal("fragments do not make the packet")
		}
	}
}

func exerciseRewrite(t *testing.T, pkt *Packet, p *parsed) {
	b := pkt.Data
	if ipHeader(b).is6() && p.staysOnLink() {
		return
	}
	// A super-packet's sum covers a length that does not fit the field.
	before := slowTransport(b)
	none := p.kind == kindUDP && udpHeader(b[p.l4:]).checksum() == 0
	var d delta
	h := ipHeader(b)
	if p.ttl > 0 {
		h.decrementTTL()
	}
	server, other := addr(hostServer), conntrack.Addr{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 9}
	if h.is6() {
		server, other = addr(host6Server), conntrack.Addr{0: 0x20, 1: 1, 15: 9}
	}
	h.replaceSource(&server, &d)
	h.replaceDestination(&other, &d)
	if h.headerLen() != p.headerLen || h.src() != server || h.dst() != other || h.dontFragment() != p.dontFragment {
		t.Fatalf("header of %d bytes, want %d", h.headerLen(), p.headerLen)
	}
	switch p.kind {
	case kindTCP:
		s := tcpHeader(b[p.l4:])
		s.replaceSrcPort(8080, &d)
		s.replaceDstPort(65535, &d)
		if p.partial {
			field := s.checksum()
			s.applyPartial(d)
			partialStays(t, field, s.checksum(), d)
			return
		}
		s.apply(d)
	case kindUDP:
		s := udpHeader(b[p.l4:])
		s.replaceSrcPort(8080, &d)
		s.replaceDstPort(65535, &d)
		if p.partial {
			field := s.checksum()
			s.applyPartial(d)
			partialStays(t, field, s.checksum(), d)
			return
		}
		s.apply(d)
		if none != (s.checksum() == 0) {
			t.Fatalf("UDP checksum %#04x", s.checksum())
		}
	case kindSCTP:
		s := sctpHeader(b[p.l4:])
		wrong := s.checksum() ^ checksumSCTP(s)
		if s.replacePorts(8080, 65535, p.sctpLen()); s.checksum()^checksumSCTP(s) != wrong {
			t.Fatalf("error of the checksum was %#08x in % x", wrong, b)
		}
	case kindEcho:
		m := icmpHeader(b[p.l4:])
		m.replaceEchoID(1, &d)
		m.apply(p.proto, d)
	}
	var again parsed
	c := Packet{Data: b, Offload: pkt.Offload}
	if r := again.parse(&c); r != ReasonNone || len(c.Data) != p.totalLen {
		t.Fatalf("after the rewrite: %v, %d bytes in % x", r, len(c.Data), b)
	}
	if p.fragOffset != 0 || p.kind != kindTCP && p.kind != kindUDP && p.kind != kindEcho || none {
		return
	}
	if after := slowTransport(b); after%0xffff != before%0xffff {
		t.Fatalf("error of the transport checksum was %#04x, is %#04x in % x", before, after, b)
	}
}

// partialStays holds a partial checksum to its definition: what it was, plus
// the change of the addresses and nothing else.
func partialStays(t *testing.T, before, after uint16, d delta) {
	if want := (uint64(before) + uint64(d.addrs)) % 0xffff; uint64(after)%0xffff != want {
		t.Fatalf("partial checksum %#04x became %#04x", before, after)
	}
}

// FuzzParse feeds any bytes, with any offload, to the parser and everything
// behind it.
func FuzzParse(f *testing.F) {
	plain := func(b []byte) { f.Add(b, false, uint16(0), uint16(0), uint8(0), uint16(0)) }
	plain(tcpPacket(f, 5, nil))
	plain(tcpPacket(f, 0, func(_ *layers.IPv4, tcp *layers.TCP) {
		tcp.SYN, tcp.ACK = true, false
		tcp.Options = []layers.TCPOption{{OptionType: 3, OptionLength: 3, OptionData: []byte{7}}}
	}))
	plain(udpPacket(f, 0, nil))
	noChecksum := udpPacket(f, 3, nil)
	noChecksum[26], noChecksum[27] = 0, 0
	plain(noChecksum)
	plain(icmpPacket(f, 8, 0, 0x4d0001, pattern(8)))
	plain(icmpPacket(f, 3, 4, 1400, quotedReply(f, 1000)[:28]))
	plain(icmpPacket(f, 11, 0, 32<<16, append(quotedReply(f, 1000)[:128], 0x20, 0, 0, 0)))
	plain(icmpPacket(f, 3, 3, 0, icmpPacket(f, 8, 0, 1, nil)))
	plain(withOptions(f, []byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}))
	plain(withOptions(f, []byte{131, 7, 4, 10, 0, 0, 9, 0}))
	plain(fragmentOf(f, 17, 1, 0, true, udpPacket(f, 3000, nil)[20:1500]))
	plain(fragmentOf(f, 17, 1, 1480, false, pattern(81)))
	plain(fragmentOf(f, 6, 1, 8, false, pattern(16)))
	plain(fragmentOf(f, 17, 1, 65528, false, pattern(100)))
	plain(serialize(f, ipLayer(47), gopacket.Payload(pattern(9))))
	plain(append(udpPacket(f, 1, nil), make([]byte, 17)...)) // padded
	plain([]byte{0x46, 0, 0, 24})
	for _, b := range seedsSCTP() {
		plain(b)
	}
	for _, b := range seeds6(f) {
		plain(b)
	}
	partial := tcpPacket(f, 3000, nil)
	o := makePartial(partial)
	f.Add(partial, true, o.ChecksumStart, o.ChecksumOffset, GSOTCPv4, uint16(1448))
	// The offload of no protocol we know points at the IP header.
	f.Add(serialize(f, ipLayer(47), gopacket.Payload(pattern(9))), true, uint16(0), uint16(0), uint8(0), uint16(0))
	f.Add(udpPacket(f, 100, nil), true, uint16(40), uint16(16), uint8(0), uint16(0)) // tunnel

	long := icmpPacket(f, 8, 0, 0x4d0001, pattern(8)) // a super-packet that cannot say its length
	long[2], long[3] = 0, 0
	f.Add(fixHeader(long), false, uint16(0), uint16(0), GSOUDP, uint16(8))

	table := newFragments(1)
	f.Fuzz(func(t *testing.T, b []byte, needs bool, start, offset uint16, gso uint8, size uint16) {
		exercise(t, table, bytes.Clone(b), Offload{
			NeedsChecksum: needs, ChecksumStart: start, ChecksumOffset: offset, GSOType: gso, GSOSize: size,
		})
	})
}

// seeds6 are packets of IPv6 of every kind.
func seeds6(t testing.TB) [][]byte {
	return [][]byte{
		tcp6Packet(t, 40, nil), udp6Packet(t, 40, nil), icmp6Packet(t, 128, 0, 0x4d0001, pattern(20)),
		icmp6Packet(t, 2, 0, 1400, quoted6Reply(t, 40)),
		icmp6Packet(t, 3, 0, 16<<24, append(quoted6Reply(t, 1000)[:128], 0x20, 0, 0, 0)),
		icmp6Packet(t, 1, 4, 0, extended(quoted6Reply(t, 40), destination(1, 2, 0, 0), fragmentExtension(7, 0, true))),
		icmp6Packet(t, 135, 0, 0, pattern(24)),
		extended(tcp6Packet(t, 40, nil), hopByHop(5, 2, 0, 0), routing(2, 0), fragmentExtension(1, 0, false), destination(1, 4, 0, 0, 0, 0)),
		extended(tcp6Packet(t, 40, nil), routing(0, 1)),
		fragment6Of(t, 6, 1, 0, true, tcp6Packet(t, 100, nil)[40:128]),
		fragment6Of(t, 17, 1, 1480, false, pattern(81)),
		extended(fragment6Of(t, 17, 1, 0, true, udp6Packet(t, 3000, nil)[40:1480]), hopByHop(5, 2, 0, 0)),
	}
}

// seedsSCTP are packets of SCTP of every kind.
func seedsSCTP() (list [][]byte) {
	for _, text := range []string{
		"sctp 192.0.2.7:40000 > 10.0.0.1:80 INIT init=7",
		"sctp 192.0.2.7:40000 > 10.0.0.1:80 COOKIE-ECHO+DATA tag=7 data=9",
		"sctp 192.0.2.7:40000 > 10.0.0.1:80 COOKIE-ACK+ABORT/T tag=7",
		"sctp 192.0.2.7:40000 > 10.0.0.1:80 DATA tag=7 data=100 mf",
		"frag 192.0.2.7 > 10.0.0.1 proto=132 off=16 data=20",
		"icmp 192.0.2.7 > 10.0.0.1 frag-needed mtu=1400 (sctp 10.0.0.1:80 > 192.0.2.7:40000 SACK tag=7)",
		"sctp [2001:db8::7]:40000 > [fd00::1]:80 INIT-ACK tag=7 init=8 ext=dest",
		"icmp 2001:db8::7 > fd00::1 too-big mtu=1400 (sctp [fd00::1]:80 > [2001:db8::7]:40000 DATA tag=7 data=40 mf)",
	} {
		b, _ := encodePacket(text)
		list = append(list, b)
	}
	return list
}

func TestRandomDamageOfSCTPDoesNoHarm(t *testing.T) {
	damage(t, rand.New(rand.NewPCG(132, 132)), seedsSCTP(), 1000)
}

// FAULTS 20: random damage, with the header checksum put right in half of the
// cases so that it gets past the first test.
func TestRandomDamageDoesNoHarm(t *testing.T) {
	rng := rand.New(rand.NewPCG(20, 20))
	seeds := [][]byte{
		tcpPacket(t, 40, nil), udpPacket(t, 40, nil), icmpPacket(t, 8, 0, 1, pattern(20)),
		icmpPacket(t, 3, 4, 1400, quotedReply(t, 40)),
		withOptions(t, []byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}),
		fragmentOf(t, 6, 1, 0, true, tcpPacket(t, 100, nil)[20:108]),
		fragmentOf(t, 17, 1, 1480, false, pattern(81)),
	}
	damage(t, rng, seeds, 1000)
}

// FAULTS 138.
func TestRandomDamageOfIPv6DoesNoHarm(t *testing.T) {
	damage(t, rand.New(rand.NewPCG(138, 138)), seeds6(t), 1000)
}

func damage(t *testing.T, rng *rand.Rand, seeds [][]byte, enough int) {
	table := newFragments(1)
	accepted := 0
	for range 20000 {
		b := bytes.Clone(seeds[rng.IntN(len(seeds))])
		for range 1 + rng.IntN(4) {
			switch rng.IntN(4) {
			case 0:
				b = b[:rng.IntN(len(b)+1)]
			case 1:
				b = append(b, byte(rng.Uint32()))
			default:
				if len(b) > 0 {
					b[rng.IntN(len(b))] = byte(rng.Uint32())
				}
			}
		}
		if n := len(b); n >= 20 && b[0]>>4 == 4 && rng.IntN(2) == 0 {
			if n >= int(b[0]&15)*4 && b[0]&15 >= 5 {
				if rng.IntN(2) == 0 {
					binary.BigEndian.PutUint16(b[2:], uint16(n))
				}
				fixHeader(b)
			}
		}
		if n := len(b); n >= 40 && b[0]>>4 == 6 && rng.IntN(2) == 0 {
			binary.BigEndian.PutUint16(b[4:], uint16(n-40))
		}
		if exercise(t, table, b, Offload{}) == ReasonNone {
			accepted++
		}
	}
	if accepted < enough {
		t.Errorf("only %d of 20000 got past the parser", accepted)
	}
}
