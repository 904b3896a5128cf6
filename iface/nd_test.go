// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// ndQuestion asks, from station 2 at fe80::2, who has 2001:db8::1.
func ndQuestion() []byte {
	target := netip.MustParseAddr("2001:db8::1")
	return ndFields{
		to: groupMAC(solicitedNode(target)), kind: NDSolicitation, senderMAC: station(2),
		source: netip.MustParseAddr("fe80::2"), destination: solicitedNode(target), target: target,
	}.build()
}

// ndAnswer says, to fe80::1 at station 1, that station 2 has 2001:db8::2.
func ndAnswer() []byte {
	return ndFields{
		to: station(1), kind: NDAdvertisement, flags: ndFlagSolicited | ndFlagOverride, senderMAC: station(2),
		source: netip.MustParseAddr("fe80::2"), destination: netip.MustParseAddr("fe80::1"),
		target: netip.MustParseAddr("2001:db8::2"),
	}.build()
}

// resum puts the right checksum into a frame that was changed.
func resum(b []byte) []byte {
	n := ND(b[ethernetHeader:])
	if length := int(binary.BigEndian.Uint16(n[4:])); length >= ndSize && ipv6Header+length <= len(n) {
		n = n[:ipv6Header+length]
	}
	binary.BigEndian.PutUint16(n[ipv6Header+2:], 0)
	binary.BigEndian.PutUint16(n[ipv6Header+2:], ^fold(n.sum()))
	return b
}

func TestBuiltNDReadsTheSameElsewhere(t *testing.T) {
	for _, frame := range [][]byte{ndQuestion(), ndAnswer()} {
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if p.ErrorLayer() != nil {
			t.Fatal(p.ErrorLayer().Error())
		}
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if ip.HopLimit != 255 || int(ip.Length) != len(frame)-54 || ip.SrcIP.String() != "fe80::2" || icmp.TypeCode.Code() != 0 {
			t.Errorf("got %v %v", ip, icmp)
		}
		// What the other implementation would have put there.
		again := gopacket.NewSerializeBuffer()
		icmp.SetNetworkLayerForChecksum(ip)
		was := icmp.Checksum
		err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(icmp.Payload))
		if err != nil || icmp.Checksum != was {
			t.Errorf("checksum %#x, elsewhere %#x, %v", was, icmp.Checksum, err)
		}
	}
	p := gopacket.NewPacket(ndQuestion(), layers.LayerTypeEthernet, gopacket.Default)
	ethernet := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	ns, ok := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
	if !ok || ns.TargetAddress.String() != "2001:db8::1" || len(ns.Options) != 1 ||
		ns.Options[0].Type != layers.ICMPv6OptSourceAddress || !bytes.Equal(ns.Options[0].Data, []byte{2, 0, 0, 0, 0, 2}) {
		t.Errorf("a question: %+v", ns)
	}
	if ip := p.NetworkLayer().(*layers.IPv6); ip.DstIP.String() != "ff02::1:ff00:1" || ethernet.DstMAC.String() != "33:33:ff:00:00:01" {
		t.Errorf("a question goes to %v, %v", ip.DstIP, ethernet.DstMAC)
	}
	p = gopacket.NewPacket(ndAnswer(), layers.LayerTypeEthernet, gopacket.Default)
	na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !ok || na.TargetAddress.String() != "2001:db8::2" || na.Flags != 0x60 || len(na.Options) != 1 ||
		na.Options[0].Type != layers.ICMPv6OptTargetAddress || !bytes.Equal(na.Options[0].Data, []byte{2, 0, 0, 0, 0, 2}) {
		t.Errorf("an answer: %+v", na)
	}
}

// The address of RFC 4291's example and that of RFC 2464's.
func TestAddressesMadeFromOthers(t *testing.T) {
	if got := solicitedNode(netip.MustParseAddr("4037::01:800:200e:8c6c")); got != netip.MustParseAddr("ff02::1:ff0e:8c6c") {
		t.Errorf("solicited-node group %v", got)
	}
	if got := linkLocal([6]byte{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}); got != netip.MustParseAddr("fe80::3656:78ff:fe9a:bcde") {
		t.Errorf("link-local address %v", got)
	}
	if got := groupMAC(allNodes()); got != [6]byte{0x33, 0x33, 0, 0, 0, 1} {
		t.Errorf("all nodes at %x", got)
	}
}

func TestParseND(t *testing.T) {
	n, fault := ParseND(append(ndQuestion(), make([]byte, 10)...))
	if fault != NDGood {
		t.Fatalf("a padded question: %v", fault)
	}
	if mac, ok := n.option(); n.Type() != NDSolicitation || n.Source() != netip.MustParseAddr("fe80::2") || mac != station(2) || !ok ||
		n.Target() != netip.MustParseAddr("2001:db8::1") || n.Destination() != netip.MustParseAddr("ff02::1:ff00:1") || n.Solicited() {
		t.Errorf("got %x", []byte(n))
	}
	if n, _ := ParseND(ndAnswer()); !n.Solicited() {
		t.Errorf("flags of %x", []byte(n))
	}

	const ip, message = ethernetHeader, ethernetHeader + ipv6Header
	const option = message + ndSize
	address := func(text string) []byte { return netip.MustParseAddr(text).AsSlice() }
	duplicate := func(b []byte) []byte { // the question becomes one of duplicate address detection
		copy(b[ip+8:], address("::"))
		b[ip+5] = ndSize
		return b[:option]
	}
	for _, c := range []struct {
		name  string
		frame []byte
		harm  func(b []byte) []byte
		want  NDFault
	}{
		{"empty", nil, func(b []byte) []byte { return nil }, NDNone},
		{"IPv4", ndQuestion(), func(b []byte) []byte { b[12], b[13] = 8, 0; return b }, NDNone},
		{"version", ndQuestion(), func(b []byte) []byte { b[ip] = 0x40; return b }, NDNone},
		{"UDP", ndQuestion(), func(b []byte) []byte { b[ip+6] = 17; return b }, NDNone},
		{"router advertisement", ndQuestion(), func(b []byte) []byte { b[message] = 134; return resum(b) }, NDNone},
		{"echo request", ndQuestion(), func(b []byte) []byte { b[message] = 128; return resum(b) }, NDNone},
		{"cut in the message", ndQuestion(), func(b []byte) []byte { return b[:len(b)-1] }, NDShort},
		{"length of none", ndQuestion(), func(b []byte) []byte { b[ip+5] = 0; return b }, NDShort},
		{"length without a target", ndQuestion(), func(b []byte) []byte { b[ip+5] = 16; return resum(b) }, NDShort},
		{"length beyond the frame", ndQuestion(), func(b []byte) []byte { b[ip+4] = 1; return b }, NDShort},
		{"hop limit", ndQuestion(), func(b []byte) []byte { b[ip+7] = 254; return b }, NDHopLimit},
		{"code", ndQuestion(), func(b []byte) []byte { b[message+1] = 1; return resum(b) }, NDCode},
		{"checksum", ndQuestion(), func(b []byte) []byte { b[message+2]++; return b }, NDChecksum},
		{"checksum of other addresses", ndQuestion(), func(b []byte) []byte { b[ip+8+15]++; return b }, NDChecksum},
		{"sent by a group", ndQuestion(), func(b []byte) []byte { b[6] |= 1; return b }, NDSender},
		{"sent by nobody", ndQuestion(), func(b []byte) []byte { clear(b[6:12]); return b }, NDSender},
		{"from a group", ndQuestion(), func(b []byte) []byte { copy(b[ip+8:], address("ff02::1")); return resum(b) }, NDSource},
		{"from loopback", ndQuestion(), func(b []byte) []byte { copy(b[ip+8:], address("::1")); return resum(b) }, NDSource},
		{"from IPv4", ndQuestion(), func(b []byte) []byte { copy(b[ip+8:], address("::ffff:10.0.0.1")); return resum(b) }, NDSource},
		{"an answer from ::", ndAnswer(), func(b []byte) []byte { copy(b[ip+8:], address("::")); return resum(b) }, NDSource},
		{"for a group", ndQuestion(), func(b []byte) []byte { copy(b[message+8:], address("ff02::1")); return resum(b) }, NDTarget},
		{"for ::", ndAnswer(), func(b []byte) []byte { copy(b[message+8:], address("::")); return resum(b) }, NDTarget},
		{"duplicate address detection", ndQuestion(), func(b []byte) []byte { return resum(duplicate(b)) }, NDGood},
		{"duplicate address detection of one", ndQuestion(), func(b []byte) []byte {
			copy(duplicate(b)[ip+24:], address("2001:db8::1"))
			return resum(b[:option])
		}, NDDestination},
		{"duplicate address detection that names itself", ndQuestion(), func(b []byte) []byte {
			copy(b[ip+8:], address("::"))
			return resum(b)
		}, NDOption},
		{"an answer to all", ndAnswer(), func(b []byte) []byte { copy(b[ip+24:], address("ff02::1")); return resum(b) }, NDDestination},
		{"announced to all", ndAnswer(), func(b []byte) []byte {
			copy(b[ip+24:], address("ff02::1"))
			b[message+4] = ndFlagOverride
			return resum(b)
		}, NDGood},
		{"asked alone", ndQuestion(), func(b []byte) []byte { copy(b[ip+24:], address("2001:db8::1")); return resum(b) }, NDGood},
		{"option of length 0", ndQuestion(), func(b []byte) []byte { b[option+1] = 0; return resum(b) }, NDOption},
		{"option beyond the end", ndQuestion(), func(b []byte) []byte { b[option+1] = 2; return resum(b) }, NDOption},
		{"option cut", ndQuestion(), func(b []byte) []byte { b[ip+5] = ndSize + 4; return resum(b) }, NDOption},
		{"option names a group", ndQuestion(), func(b []byte) []byte { b[option+2] |= 1; return resum(b) }, NDOption},
		{"another option of length 0 behind", ndQuestion(), func(b []byte) []byte {
			b[ip+5] += 8
			return resum(append(b, 14, 0, 0, 0, 0, 0, 0, 0))
		}, NDOption},
		{"an unknown option", ndQuestion(), func(b []byte) []byte { b[option] = 14; return resum(b) }, NDGood},
		{"no option", ndAnswer(), func(b []byte) []byte { b[ip+5] = ndSize; return resum(b[:option]) }, NDGood},
	} {
		if _, got := ParseND(c.harm(c.frame)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzParseND: no frame makes it panic; what it takes for good has what is
// promised, however the checksum came out right.
func FuzzParseND(f *testing.F) {
	f.Add(ndQuestion())
	f.Add(ndAnswer())
	f.Add(ndAnswer()[:60])
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= ethernetHeader+ipv6Header+ndSize {
			resum(frame)
		}
		n, fault := ParseND(frame)
		if fault != NDGood {
			return
		}
		if len(n) < ipv6Header+ndSize || n[7] != 255 || !isStation6(n.Target()) || !IsND(frame) {
			t.Fatalf("taken for good: %x", frame)
		}
		if mac, ok := n.option(); ok && mac[0]&1 != 0 {
			t.Fatalf("a group's MAC: %x", frame)
		}
	})
}
