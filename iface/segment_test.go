// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// checksum is RFC 1071 as one would say it, over the parts in a row.
func checksum(parts ...[]byte) uint16 {
	all := bytes.Join(parts, nil)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(all); i += 2 {
		sum += uint32(all[i])<<8 | uint32(all[i+1])
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pseudo is the pseudo-header of an IP packet whose transport part has n bytes.
func pseudo(packet []byte, protocol byte, n int) []byte {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	return append(bytes.Clone(addresses), 0, protocol, byte(n>>8), byte(n))
}

// superPacket builds one with gopacket, and leaves the checksum partial.
func superPacket(t *testing.T, v6 bool, tcp *layers.TCP, payload []byte) ([]byte, Offload) {
	t.Helper()
	protocol, field := layers.IPProtocolUDP, 6
	if tcp != nil {
		protocol, field = layers.IPProtocolTCP, 16
	}
	var network gopacket.SerializableLayer = &layers.IPv4{
		Version: 4, IHL: 5, TTL: 63, TOS: 0x2e, Id: 0xfffe, Flags: layers.IPv4DontFragment, Protocol: protocol,
		SrcIP: []byte{10, 0, 0, 2}, DstIP: []byte{192, 0, 2, 7},
	}
	start := 20
	if v6 {
		network = &layers.IPv6{
			Version: 6, HopLimit: 63, TrafficClass: 0x2e, FlowLabel: 0xabcde, NextHeader: protocol,
			SrcIP: bytes.Repeat([]byte{0x20}, 16), DstIP: bytes.Repeat([]byte{0x31}, 16),
		}
		start = 40
	}
	var transport gopacket.SerializableLayer = &layers.UDP{SrcPort: 40000, DstPort: 9}
	if tcp != nil {
		transport = tcp
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true}, network, transport, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	p := bytes.Clone(buffer.Bytes())
	binary.BigEndian.PutUint16(p[start+field:], ^checksum(pseudo(p, byte(protocol), len(p)-start)))
	return p, Offload{Flags: FlagNeedsChecksum, ChecksumStart: uint16(start), ChecksumOffset: uint16(field)}
}

// verify decodes one segment with gopacket and computes its checksums anew.
func verify(t *testing.T, p []byte) gopacket.Packet {
	t.Helper()
	kind, start := layers.LayerTypeIPv4, 20
	if p[0]>>4 == 6 {
		kind, start = layers.LayerTypeIPv6, 40
	}
	decoded := gopacket.NewPacket(p, kind, gopacket.Default)
	if failure := decoded.ErrorLayer(); failure != nil {
		t.Fatalf("segment does not decode: %v", failure.Error())
	}
	if decoded.Metadata().Truncated {
		t.Fatal("segment is shorter than its headers say")
	}
	protocol := byte(17)
	if decoded.TransportLayer().LayerType() == layers.LayerTypeTCP {
		protocol = 6
	}
	if start == 20 && checksum(p[:20]) != 0 {
		t.Fatal("wrong IP header checksum")
	}
	if checksum(pseudo(p, protocol, len(p)-start), p[start:]) != 0 {
		t.Fatal("wrong transport checksum")
	}
	return decoded
}

func TestSegmentsMakeUpTheSuperPacket(t *testing.T) {
	payload := make([]byte, 7001)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	options := []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("timestmp")}}
	for _, row := range []struct {
		name     string
		v6, tcp  bool
		gso      uint8
		size     uint16
		segments int
	}{
		{"TCP", false, true, GSOTCPv4, 1448, 5},
		{"TCP with an odd size", false, true, GSOTCPv4, 999, 8},
		{"TCP in one", false, true, GSOTCPv4, 9000, 1},
		{"TCP that divides evenly", false, true, GSOTCPv4, 7001, 1},
		{"TCP with ECN", false, true, GSOTCPv4 | GSOECN, 1448, 5},
		{"TCP over IPv6", true, true, GSOTCPv6, 1428, 5},
		{"UDP", false, false, GSOUDPL4, 1200, 6},
		{"UDP over IPv6", true, false, GSOUDPL4, 1200, 6},
	} {
		t.Run(row.name, func(t *testing.T) {
			var tcp *layers.TCP
			if row.tcp {
				tcp = &layers.TCP{SrcPort: 80, DstPort: 40000, Seq: 0xfffff000, Ack: 5, Window: 500, ACK: true, PSH: true, FIN: true, CWR: true, Options: options}
			}
			p, o := superPacket(t, row.v6, tcp, payload)
			o.GSOType, o.GSOSize = row.gso, row.size
			before := bytes.Clone(p)
			var s segmenter
			if !s.begin(p, o) {
				t.Fatal("refused")
			}
			var got []byte
			count := 0
			for segment := s.next(); segment != nil; segment = s.next() {
				decoded := verify(t, segment)
				part := decoded.TransportLayer().LayerPayload()
				last := len(got)+len(part) == len(payload)
				if h, ok := decoded.TransportLayer().(*layers.TCP); ok {
					if want := 0xfffff000 + uint32(len(got)); h.Seq != want {
						t.Errorf("segment %d: sequence %#x, want %#x", count, h.Seq, want)
					}
					if h.FIN != last || h.PSH != last || !h.ACK {
						t.Errorf("segment %d: FIN %v, PSH %v, ACK %v", count, h.FIN, h.PSH, h.ACK)
					}
					if want := row.gso&GSOECN == 0 || count == 0; h.CWR != want {
						t.Errorf("segment %d: CWR %v", count, h.CWR)
					}
				}
				if h, ok := decoded.NetworkLayer().(*layers.IPv4); ok && h.Id != uint16(0xfffe+count) {
					t.Errorf("segment %d: id %#x", count, h.Id)
				}
				got = append(got, part...)
				count++
			}
			if count != row.segments || !bytes.Equal(got, payload) {
				t.Errorf("%d segments with %d bytes, want %d with %d", count, len(got), row.segments, len(payload))
			}
			if !bytes.Equal(p, before) {
				t.Error("the super-packet itself was changed")
			}
			if n := testing.AllocsPerRun(10, func() {
				for ok := s.begin(p, o); ok && s.next() != nil; {
				}
			}); n != 0 {
				t.Errorf("%v allocations per super-packet", n)
			}
		})
	}
}

func TestSegmenterRefusesWhatIsNoSuperPacket(t *testing.T) {
	p, good := superPacket(t, false, &layers.TCP{ACK: true}, make([]byte, 3000))
	good.GSOType, good.GSOSize = GSOTCPv4, 1000
	shortHeader := bytes.Clone(p)
	shortHeader[32] = 4 << 4
	longHeader := bytes.Clone(p[:50])
	longHeader[32] = 15 << 4
	for _, row := range []struct {
		name   string
		packet []byte
		change func(*Offload)
	}{
		{"no segment size", p, func(o *Offload) { o.GSOSize = 0 }},
		{"no checksum", p, func(o *Offload) { o.Flags = 0 }},
		{"other IP version", p, func(o *Offload) { o.GSOType = GSOTCPv6; o.ChecksumStart = 40 }},
		{"fragments", p, func(o *Offload) { o.GSOType = GSOUDP }},
		{"unknown type", p, func(o *Offload) { o.GSOType = 99 }},
		{"transport inside the IP header", p, func(o *Offload) { o.ChecksumStart = 12 }},
		{"transport beyond the end", p, func(o *Offload) { o.ChecksumStart = 3030 }},
		{"TCP header too short", shortHeader, func(o *Offload) {}},
		{"TCP header beyond the end", longHeader, func(o *Offload) {}},
		{"segments above 64 KiB", p, func(o *Offload) { o.GSOSize = 65500 }},
		{"nothing", nil, func(o *Offload) {}},
		{"nothing, as UDP", nil, func(o *Offload) { o.GSOType = GSOUDPL4 }},
	} {
		o := good
		row.change(&o)
		var s segmenter
		if s.begin(row.packet, o) {
			t.Errorf("%s: accepted", row.name)
		}
	}
	var s segmenter
	if !s.begin(p, good) {
		t.Error("the packet that the others derive from is refused")
	}
}

func FuzzSegmenter(f *testing.F) {
	f.Add(make([]byte, 60), uint8(GSOTCPv4), uint16(10), uint16(20))
	f.Add(bytes.Repeat([]byte{0x65}, 90), uint8(GSOTCPv6), uint16(1), uint16(40))
	f.Add(bytes.Repeat([]byte{0x45}, 90), uint8(GSOUDPL4), uint16(7), uint16(20))
	f.Fuzz(func(t *testing.T, packet []byte, kind uint8, size, start uint16) {
		var s segmenter
		if !s.begin(packet, Offload{Flags: FlagNeedsChecksum, GSOType: kind, GSOSize: size, ChecksumStart: start}) {
			return
		}
		payload := 0
		for segment := s.next(); segment != nil; segment = s.next() {
			payload += len(segment) - s.payload
		}
		if payload != len(packet)-s.payload {
			t.Fatalf("segments carry %d bytes, want %d", payload, len(packet)-s.payload)
		}
	})
}

func TestOffloadOnTheWire(t *testing.T) {
	o := Offload{Flags: 1, GSOType: 2, HeaderLen: 0x0304, GSOSize: 0x0506, ChecksumStart: 0x0708, ChecksumOffset: 0x090a}
	p := make([]byte, OffloadSize+1)
	p[OffloadSize] = 0xee
	o.Encode(p)
	want := []byte{1, 2, 4, 3, 6, 5, 8, 7, 0xa, 9, 0xee} // little-endian hosts
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && !bytes.Equal(p, want) {
		t.Errorf("encoded %x, want %x", p, want)
	}
	if got := DecodeOffload(p); got != o {
		t.Errorf("decoded %+v, want %+v", got, o)
	}
}
