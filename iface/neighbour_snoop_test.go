// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

// A switch that watches reports gives a group to nobody who has not reported it: the
// kernel's bridge, with another host that asks for addresses. Ours is found, and so
// is it after a querier has asked; a question for a group that nobody listens to
// does not come.
func TestSnoopingSwitchGivesUsTheQuestions(t *testing.T) {
	s := newStation6(t, "2001:db8::100")
	snooping := true
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	there := s.there.Handle
	err := there.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	if err != nil {
		t.Fatal(err)
	}
	asker := ifacetest.NewNamespace(t)
	err = s.there.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "asker"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(asker.FD())}
		return netlink.LinkAdd(veth)
	})
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := there.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "asker"} { // eth0 is the other end of ours
		port, err := there.LinkByName(name)
		if err := firstError(err, there.LinkSetMaster(port, bridge), there.LinkSetUp(port)); err != nil {
			t.Fatal(err)
		}
	}
	client, err := asker.Handle.LinkByName("eth0")
	if err := firstError(err, there.LinkSetUp(bridge), asker.Handle.LinkSetUp(client)); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, asker, "net/ipv6/conf/eth0/accept_dad", "0")
	for _, a := range []string{"2001:db8::2/64", "fe80::2/64"} {
		addr, _ := netlink.ParseAddr(a)
		addr.Flags = unix.IFA_F_NODAD
		if err := asker.Handle.AddrAdd(client, addr); err != nil {
			t.Fatal(err)
		}
	}

	// From here on the bridge watches, and asks us: we report to the querier.
	mac := client.Attrs().HardwareAddr
	out := -1
	if err := asker.Do(func() (err error) { out, err = openTap("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(out)
	write := func(frame []byte) {
		if _, err := unix.Write(out, frame); err != nil {
			t.Fatal(err)
		}
	}
	// A moment after its first query it begins to hold back what nobody listens to.
	heldBack := 0
	for round := 0; round < 1000 && heldBack < 2; round++ {
		// The bridge forwards a moment after its ports are up: what comes too early is
		// lost, and asked again.
		asked := s.n.Stats().Reports
		s.until("a report", func(frame []byte) bool {
			if frame == nil {
				write(generalQuery(t, mac))
			}
			return s.n.Stats().Reports > asked
		})
		for _, target := range []string{"2001:db8::bad", "2001:db8::100"} {
			write(solicitation(t, mac, target))
		}
		heldBack++
		s.until("the question for our address", func(frame []byte) bool {
			n, fault := iface.ParseND(frame)
			if fault != iface.NDGood || n.Type() != iface.NDSolicitation || n.Source().String() != "2001:db8::2" {
				return false
			}
			if n.Target().String() == "2001:db8::bad" {
				heldBack = 0
			}
			return n.Target().String() == "2001:db8::100"
		})
	}
	if heldBack < 2 {
		t.Error("the bridge holds nothing back")
	}
}

// generalQuery is a query of version 2 that is to be answered at once: for as long
// the bridge waits for listeners before it holds anything back.
func generalQuery(t *testing.T, mac net.HardwareAddr) []byte {
	t.Helper()
	query := &layers.MLDv2MulticastListenerQueryMessage{MaximumResponseCode: 1, MulticastAddress: net.IPv6unspecified, QueriersRobustnessVariable: 2, QueriersQueryIntervalCode: 125}
	alert := &layers.IPv6HopByHop{}
	alert.NextHeader = layers.IPProtocolICMPv6
	alert.Options = []*layers.IPv6HopByHopOption{{OptionType: 5, OptionData: []byte{0, 0}}, {OptionType: 1, OptionData: nil}}
	return serialize(t, mac, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1},
		&layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolIPv6HopByHop, SrcIP: net.ParseIP("fe80::2"), DstIP: net.ParseIP("ff02::1")},
		alert, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeMLDv1MulticastListenerQueryMessage, 0)}, query)
}

func solicitation(t *testing.T, mac net.HardwareAddr, target string) []byte {
	t.Helper()
	address := net.ParseIP(target)
	group := net.ParseIP("ff02::1:ff00:0")
	copy(group[13:], address[13:])
	return serialize(t, mac, net.HardwareAddr{0x33, 0x33, 0xff, address[13], address[14], address[15]},
		&layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP("2001:db8::2"), DstIP: group},
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)},
		&layers.ICMPv6NeighborSolicitation{TargetAddress: address, Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: mac}}})
}

func serialize(t *testing.T, from, to net.HardwareAddr, ip *layers.IPv6, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	for _, l := range stack {
		if m, ok := l.(*layers.ICMPv6); ok {
			m.SetNetworkLayerForChecksum(ip)
		}
	}
	ether := &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv6}
	out := gopacket.NewSerializeBuffer()
	stack = append([]gopacket.SerializableLayer{ether, ip}, stack...)
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
