// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// What stations on a link say about who is where: ARP, or neighbour discovery.

// question asks, in the cluster's family, where an address is.
func (c *cluster) question(mac net.HardwareAddr, from, about netip.Addr) []byte {
	c.t.Helper()
	if about.Is4() {
		return arpFrame(c, mac, layers.EthernetBroadcast, layers.ARPRequest, from, about)
	}
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	raw := about.As16()
	copy(group[13:], raw[13:])
	to := net.HardwareAddr{0x33, 0x33, 0xff, raw[13], raw[14], raw[15]}
	return frame(c.t, ethernet(mac, to, about), ipHeader(from, netip.AddrFrom16(group), layers.IPProtocolICMPv6, 255),
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)},
		&layers.ICMPv6NeighborSolicitation{TargetAddress: about.AsSlice(), Options: layers.ICMPv6Options{
			{Type: layers.ICMPv6OptSourceAddress, Data: mac}}})
}

// claims are what a station sends to another to say that it has an address, in
// each form there is.
func (c *cluster) claims(mac, to net.HardwareAddr, addr netip.Addr) (frames [][]byte) {
	c.t.Helper()
	if addr.Is4() {
		for _, op := range []uint16{layers.ARPRequest, layers.ARPReply} {
			frames = append(frames, arpFrame(c, mac, to, op, addr, addr))
		}
		return frames
	}
	const solicited, override = 0x40, 0x20
	for _, flags := range []uint8{0, override, solicited, solicited | override} {
		dst := netip.MustParseAddr("ff02::1")
		if flags&solicited != 0 {
			dst = c.Config.VIP()
		}
		frames = append(frames, frame(c.t, ethernet(mac, to, addr), ipHeader(addr, dst, layers.IPProtocolICMPv6, 255),
			&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)},
			&layers.ICMPv6NeighborAdvertisement{Flags: flags, TargetAddress: addr.AsSlice(), Options: layers.ICMPv6Options{
				{Type: layers.ICMPv6OptTargetAddress, Data: mac}}}))
	}
	return frames
}

func arpFrame(c *cluster, mac, to net.HardwareAddr, op uint16, from, about netip.Addr) []byte {
	return frame(c.t, &layers.Ethernet{SrcMAC: mac, DstMAC: to, EthernetType: layers.EthernetTypeARP}, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
		HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
		SourceHwAddress: mac, SourceProtAddress: from.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: about.AsSlice(),
	})
}

// answerTo returns who says in a frame, to the station with a MAC, that it has the
// address that was asked for.
func answerTo(p gopacket.Packet, mac net.HardwareAddr) (has net.HardwareAddr, ok bool) {
	if arp, is := p.Layer(layers.LayerTypeARP).(*layers.ARP); is {
		return arp.SourceHwAddress, arp.Operation == layers.ARPReply && bytes.Equal(arp.DstHwAddress, mac)
	}
	ether, _ := p.LinkLayer().(*layers.Ethernet)
	na, is := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !is || ether == nil || !bytes.Equal(ether.DstMAC, mac) {
		return nil, false
	}
	for _, o := range na.Options {
		if o.Type == layers.ICMPv6OptTargetAddress {
			return o.Data, true
		}
	}
	return ether.SrcMAC, true
}

// elsewhere is an address that nobody in the cluster has; n tells several apart.
func (c *cluster) elsewhere(n uint64) netip.Addr {
	if !c.Config.IPv6 {
		// Neither private, loopback nor multicast, and no address of the cluster.
		return netip.AddrFrom4([4]byte{byte(11 + n>>24%80), byte(n >> 16), byte(n >> 8), byte(1 + n%250)})
	}
	b := netip.MustParseAddr("2001:db8:dead::").As16()
	binary.BigEndian.PutUint64(b[8:], n)
	return netip.AddrFrom16(b)
}
