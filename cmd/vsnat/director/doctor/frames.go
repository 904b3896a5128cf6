// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/iface"
)

// The frames of probes.

const (
	echoHeaders4 = 20 + 8
	echoHeaders6 = 40 + 8
)

var everybody = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func hardware(mac [6]byte) net.HardwareAddr { return mac[:] }

// serialize puts layers together. They are ours, so that it cannot fail.
func serialize(parts ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// question asks who has an address. from is the asker's; invalid or unspecified: it
// has none, and says so (RFC 5227, RFC 4862).
func question(l iface.Link, from, target netip.Addr) []byte {
	if target.Is4() {
		if !from.IsValid() {
			from = netip.IPv4Unspecified()
		}
		return serialize(
			&layers.Ethernet{SrcMAC: hardware(l.MAC), DstMAC: hardware(everybody), EthernetType: layers.EthernetTypeARP},
			&layers.ARP{
				AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
				SourceHwAddress: hardware(l.MAC), SourceProtAddress: from.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
			})
	}
	t := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
	g := group.As16()
	var options layers.ICMPv6Options
	if !from.IsValid() {
		from = netip.IPv6Unspecified()
	} else {
		options = layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: hardware(l.MAC)}}
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: from.AsSlice(), DstIP: group.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip) // it is IPv6
	return serialize(
		&layers.Ethernet{SrcMAC: hardware(l.MAC), DstMAC: net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, &layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice(), Options: options})
}

// stationOf returns who says in a packet that it has the address.
func stationOf(p gopacket.Packet, addr netip.Addr) (mac [6]byte, ok bool) {
	if a, is := p.Layer(layers.LayerTypeARP).(*layers.ARP); is {
		said, good := netip.AddrFromSlice(a.SourceProtAddress)
		if good && said == addr && a.Operation == layers.ARPReply && len(a.SourceHwAddress) == 6 {
			return [6]byte(a.SourceHwAddress), true
		}
	}
	if n, is := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); is {
		said, _ := netip.AddrFromSlice(n.TargetAddress)
		for _, o := range n.Options {
			if said == addr && o.Type == layers.ICMPv6OptTargetAddress && len(o.Data) == 6 {
				return [6]byte(o.Data), true
			}
		}
	}
	return mac, false
}

// A path is between an address of ours and one of a station.
type path struct {
	link iface.Link
	mac  [6]byte
	from netip.Addr
	to   netip.Addr
}

// headers are those below the transport.
func (p path) headers(proto layers.IPProtocol) (gopacket.SerializableLayer, gopacket.NetworkLayer, gopacket.SerializableLayer) {
	e := &layers.Ethernet{SrcMAC: hardware(p.link.MAC), DstMAC: hardware(p.mac), EthernetType: layers.EthernetTypeIPv4}
	if p.to.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, Flags: layers.IPv4DontFragment, SrcIP: p.from.AsSlice(), DstIP: p.to.AsSlice()}
		return e, ip, ip
	}
	e.EthernetType = layers.EthernetTypeIPv6
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: p.from.AsSlice(), DstIP: p.to.AsSlice()}
	return e, ip, ip
}

// echo asks for an echo in a packet of size bytes.
func (p path) echo(id, seq uint16, size int) []byte {
	if p.to.Is4() {
		e, _, ip := p.headers(layers.IPProtocolICMPv4)
		return serialize(e, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: seq},
			gopacket.Payload(make([]byte, size-echoHeaders4)))
	}
	e, network, ip := p.headers(layers.IPProtocolICMPv6)
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
	_ = icmp.SetNetworkLayerForChecksum(network) // it is IPv6
	return serialize(e, ip, icmp, &layers.ICMPv6Echo{Identifier: id, SeqNumber: seq}, gopacket.Payload(make([]byte, size-echoHeaders6)))
}

// echoOf returns the numbers of an answer to echo.
func echoOf(p gopacket.Packet) (id, seq uint16, ok bool) {
	if i, is := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); is && i.TypeCode.Type() == layers.ICMPv4TypeEchoReply {
		return i.Id, i.Seq, true
	}
	if i, is := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); is && i.TypeCode.Type() == layers.ICMPv6TypeEchoReply {
		if e, is := p.Layer(layers.LayerTypeICMPv6Echo).(*layers.ICMPv6Echo); is {
			return e.Identifier, e.SeqNumber, true
		}
	}
	return 0, 0, false
}

// segment is a SYN, or a RST that ends what a SYN began.
func (p path) segment(from, to uint16, seq uint32, reset bool) []byte {
	e, network, ip := p.headers(layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(to), Seq: seq, SYN: !reset, RST: reset, Window: 1024}
	_ = tcp.SetNetworkLayerForChecksum(network) // it is IPv4 or IPv6
	return serialize(e, ip, tcp)
}

// segmentOf returns the addresses and flags of a TCP segment.
func segmentOf(p gopacket.Packet) (from, to netip.AddrPort, tcp *layers.TCP) {
	t, is := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	n := p.NetworkLayer()
	if !is || n == nil {
		return from, to, nil
	}
	src, _ := netip.AddrFromSlice(n.NetworkFlow().Src().Raw())
	dst, _ := netip.AddrFromSlice(n.NetworkFlow().Dst().Raw())
	return netip.AddrPortFrom(src, uint16(t.SrcPort)), netip.AddrPortFrom(dst, uint16(t.DstPort)), t
}
