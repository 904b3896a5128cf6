// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// arpRequestFrame asks, from station 2, who has 10.0.0.1.
func arpRequestFrame() []byte {
	b := arpFields{
		to: broadcastMAC(), operation: ARPRequest,
		senderMAC: [6]byte{2, 0, 0, 0, 0, 2}, sender: [4]byte{10, 0, 0, 2},
		target: [4]byte{10, 0, 0, 1},
	}.build()
	return b[:]
}

func TestBuiltARPReadsTheSameElsewhere(t *testing.T) {
	b := arpFields{
		to: [6]byte{2, 0, 0, 0, 0, 9}, operation: ARPReply,
		senderMAC: [6]byte{2, 0, 0, 0, 0, 1}, sender: [4]byte{10, 0, 0, 1},
		targetMAC: [6]byte{2, 0, 0, 0, 0, 8}, target: [4]byte{10, 0, 0, 2},
	}.build()
	p := gopacket.NewPacket(b[:], layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatal(p.ErrorLayer().Error())
	}
	ethernet := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	arp := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"frame to", ethernet.DstMAC, []byte{2, 0, 0, 0, 0, 9}},
		{"frame from", ethernet.SrcMAC, []byte{2, 0, 0, 0, 0, 1}},
		{"sender MAC", arp.SourceHwAddress, []byte{2, 0, 0, 0, 0, 1}},
		{"sender IP", arp.SourceProtAddress, []byte{10, 0, 0, 1}},
		{"target MAC", arp.DstHwAddress, []byte{2, 0, 0, 0, 0, 8}},
		{"target IP", arp.DstProtAddress, []byte{10, 0, 0, 2}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: got %x, want %x", c.name, c.got, c.want)
		}
	}
	if arp.Operation != layers.ARPReply || arp.AddrType != layers.LinkTypeEthernet || arp.Protocol != layers.EthernetTypeIPv4 {
		t.Errorf("got operation %d, hardware %v, protocol %v", arp.Operation, arp.AddrType, arp.Protocol)
	}
}

func TestParseARP(t *testing.T) {
	a, fault := ParseARP(append(arpRequestFrame(), make([]byte, 18)...))
	if fault != ARPGood {
		t.Fatalf("a padded request: %v", fault)
	}
	if a.Operation() != ARPRequest || a.SenderMAC() != [6]byte{2, 0, 0, 0, 0, 2} ||
		a.SenderIP() != netip.MustParseAddr("10.0.0.2") || a.TargetIP() != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("got %v from %x %v for %v", a.Operation(), a.SenderMAC(), a.SenderIP(), a.TargetIP())
	}

	for _, c := range []struct {
		name string
		harm func(b []byte) []byte
		want ARPFault
	}{
		{"empty", func(b []byte) []byte { return nil }, ARPShort},
		{"cut in the Ethernet header", func(b []byte) []byte { return b[:13] }, ARPShort},
		{"cut in the packet", func(b []byte) []byte { return b[:arpFrameSize-1] }, ARPShort},
		{"IPv4", func(b []byte) []byte { b[12], b[13] = 8, 0; return b }, ARPNotARP},
		{"hardware type", func(b []byte) []byte { b[15] = 6; return b }, ARPFormat},
		{"protocol type", func(b []byte) []byte { b[17] = 1; return b }, ARPFormat},
		{"hardware length", func(b []byte) []byte { b[18] = 8; return b }, ARPFormat},
		{"protocol length", func(b []byte) []byte { b[19] = 16; return b }, ARPFormat},
		{"RARP", func(b []byte) []byte { b[21] = 3; return b }, ARPUnknown},
		{"sender is not the source", func(b []byte) []byte { b[27]++; return b }, ARPSender},
		{"sender is a group", func(b []byte) []byte { b[6] |= 1; b[22] |= 1; return b }, ARPSender},
		{"sender is zero", func(b []byte) []byte { clear(b[6:12]); clear(b[22:28]); return b }, ARPSender},
		{"address is broadcast", func(b []byte) []byte { copy(b[28:], []byte{255, 255, 255, 255}); return b }, ARPAddress},
		{"address is multicast", func(b []byte) []byte { b[28] = 224; return b }, ARPAddress},
		{"address is loopback", func(b []byte) []byte { b[28] = 127; return b }, ARPAddress},
		{"address of network 0", func(b []byte) []byte { b[28] = 0; return b }, ARPAddress},
		{"probe", func(b []byte) []byte { clear(b[28:32]); return b }, ARPGood},
	} {
		if _, got := ParseARP(c.harm(arpRequestFrame())); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzNeighboursInput gives any frames to a Neighbours in the middle of its work:
// it never panics, never sends anything but whole ARP and neighbour discovery from
// its own MAC, and never unlearns what was confirmed.
func FuzzNeighboursInput(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(arpRequestFrame(), arpRequestFrame()[:41])
	claim := arpRequestFrame()
	copy(claim[28:], []byte{10, 0, 0, 3}) // another MAC for the confirmed neighbour
	f.Add(claim, claim)
	conflict := arpRequestFrame()
	copy(conflict[28:], []byte{10, 0, 0, 100}) // claims the owned address
	f.Add(conflict, claim)
	f.Add(ndQuestion(), ndAnswer())
	f.Fuzz(func(t *testing.T, first, second []byte) {
		w := newWire(t)
		w.n.SetOwned([]netip.Addr{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("2001:db8::1")})
		w.learn("10.0.0.3", 3)
		for _, frame := range [][]byte{first, second} {
			before := bytes.Clone(frame)
			w.n.Input(w.now, 1, frame, w.send)
			if !bytes.Equal(before, frame) {
				t.Fatal("Input wrote into the frame")
			}
			w.now = w.now.add(retransTime)
		}
		for _, s := range w.sent {
			if n, fault := ParseND(s.frame); fault == NDGood && [6]byte(s.frame[6:]) == station(1) {
				if mac, ok := n.option(); ok && mac == station(1) {
					continue
				}
			}
			a, fault := ParseARP(s.frame)
			if fault != ARPGood || len(s.frame) != arpFrameSize || a.SenderMAC() != station(1) {
				t.Fatalf("sent %x: %v", s.frame, fault)
			}
		}
		if mac, ok := w.n.Lookup(w.now, 1, netip.MustParseAddr("10.0.0.3")); !ok || mac != station(3) {
			t.Fatalf("frames that nobody asked for changed a neighbour to %x, %v", mac, ok)
		}
	})
}
