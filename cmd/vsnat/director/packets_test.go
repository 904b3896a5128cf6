// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// What tests of the whole director have in common: the names of the reference cluster, and
// packets that are given to a Forwarder as if they had been read.

var (
	clientMAC = conntrack.LinkAddr{2, 0, 0, 0, 0, 1}
	serverMAC = conntrack.LinkAddr{2, 0, 0, 0, 0, 2}
	clientIP  = netip.MustParseAddr("192.168.88.21")
	vip       = netip.MustParseAddr("192.168.88.23")
	serverIP  = netip.MustParseAddr("10.0.0.2")
	silentIP  = netip.MustParseAddr("10.0.0.9")
	web       = nat.ServiceKey{Proto: nat.ProtoTCP, Addr: vip, Port: 80}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// packet is an IP packet of TCP without a payload.
func packet(from, to netip.AddrPort, flags string) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice()}
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(from.Port()), DstPort: layers.TCPPort(to.Port()), Seq: 1000, Ack: 2000, Window: 65535,
		SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), RST: strings.Contains(flags, "R"),
	}
	if !tcp.SYN {
		tcp.Seq, tcp.Ack = 1001, 2001
	}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// syn is the client's first packet of a connection.
func syn(port int) []byte {
	return packet(netip.AddrPortFrom(clientIP, uint16(port)), netip.AddrPortFrom(vip, 80), "S")
}
