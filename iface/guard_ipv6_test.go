// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/iface"
)

// newGuardLab6 adds to the lab what IPv4 has there:
//
//	client 2001:db8::21 ── pub 2001:db8::1 [host] priv 2001:db8:a::1 ── inside 2001:db8:a::2
//
// with 2001:db8:f::/48 behind the host, and there behind inside.
func newGuardLab6(t *testing.T) *guardLab {
	t.Helper()
	lab := newGuardLab(t)
	lab.address(t, lab.host, "priv", "2001:db8:a::1/64")
	lab.address(t, lab.inside, "eth0", "2001:db8:a::2/64", "2001:db8:a::200/64")
	lab.route(t, lab.client, "2001:db8:f::/48", "2001:db8::1")
	lab.route(t, lab.host, "2001:db8:f::/48", "2001:db8:a::2")
	lab.route(t, lab.inside, "2001:db8::/64", "2001:db8:a::1")
	setSysctl(t, lab.host, "net/ipv6/conf/all/forwarding", "1")
	return lab
}

func (lab *guardLab) rules6() iface.GuardRules {
	rules := lab.rules()
	rules.Host = append(rules.Host, netip.MustParseAddr("2001:db8:a::1"))
	return rules
}

func TestGuardIPv6OwnedAddressIsNotForwarded(t *testing.T) {
	lab := newGuardLab6(t)
	p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: "2001:db8:f::99"}
	send := func() error { return sendDatagram("[2001:db8::21]:4000", "[2001:db8:f::23]:53") }
	expect(t, "without a guard", p.run(t, send), "udp [2001:db8::21]:4000")
	rules := lab.rules6()
	rules.Owned = addresses("2001:db8:f::23")
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	expect(t, "guarded", p.run(t, send))
}

func TestGuardIPv6TransitOfInsideIsNotForwarded(t *testing.T) {
	lab := newGuardLab6(t)
	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "2001:db8::21", source: "2001:db8:a::200"}
	send := func() error {
		return firstError(
			sendDatagram("[2001:db8:a::2]:80", "[2001:db8::21]:4000"),
			sendDatagram("[2001:db8:a::2]:81", "[2001:db8::21]:4000"),
			icmp6Error(1, "2001:db8:a::2", "2001:db8::21"),
			icmp6Error(2, "2001:db8:a::2", "2001:db8::21"))
	}
	reply, other := "udp [2001:db8:a::2]:80", "udp [2001:db8:a::2]:81"
	unreachable, big := "icmp 2001:db8:a::2 DestinationUnreachable(NoRouteToDst)", "icmp 2001:db8:a::2 PacketTooBig"
	expect(t, "without a guard", out.run(t, send), reply, other, unreachable, big)

	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules6()
	rules.Servers = []iface.GuardService{service(udp, "[2001:db8:a::2]:80")}
	lab.apply(t, g, rules)
	expect(t, "a real server", out.run(t, send), other)

	rules.Servers[0].Port = 0
	lab.apply(t, g, rules)
	expect(t, "a real server on every port", out.run(t, send))

	rules.Servers = nil
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("2001:db8:a::/121")} // not the marker's ::200
	lab.apply(t, g, rules)
	expect(t, "an inside network", out.run(t, send))

	toHost := probe{from: lab.inside, watch: lab.inside, link: "eth0", marker: "2001:db8:a::1"}
	got := toHost.run(t, func() error {
		return firstError(sendDatagram("[2001:db8:a::2]:80", "[2001:db8:a::1]:9"), sendDatagram("[2001:db8:a::2]:80", "[2001:db8::1]:9"))
	})
	expect(t, "inside to the host", got, "icmp 2001:db8:a::1 DestinationUnreachable(PortUnreachable)",
		"icmp 2001:db8::1 DestinationUnreachable(PortUnreachable)")
}

// icmp6Error sends an error of a type about a datagram that to would have sent.
func icmp6Error(kind byte, from, to string) error {
	c, err := net.DialIP("ip6:ipv6-icmp", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
	if err != nil {
		return err
	}
	defer c.Close()
	message := []byte{kind, 0, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, udp, 63}
	message = append(message, net.ParseIP(to)...)
	message = append(message, net.ParseIP(from)...)
	message = append(message, 0x0f, 0xa0, 0, 80, 0, 8, 0, 0)
	_, err = c.Write(message) // the kernel puts the checksum in
	return err
}

func TestGuardIPv6SNATPorts(t *testing.T) {
	lab := newGuardLab6(t)
	rules := lab.rules6()
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("2001:db8::1"), Min: 1000, Max: 2000, Except: []uint16{1500}}}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	p := lab.atClient()
	p.marker = "2001:db8::1"
	for port, quiet := range map[uint16]bool{999: false, 1000: true, 1500: false, 2000: true, 2001: false} {
		at := fmt.Sprintf("[2001:db8::1]:%d", port)
		want := []string{}
		if !quiet {
			want = append(want, "tcp "+at+" ACK RST")
		}
		expect(t, "tcp to "+at, p.run(t, func() error { return sendSYN(at) }), want...)
	}
	expect(t, "udp in the range", p.run(t, func() error { return sendDatagram("", "[2001:db8::1]:1000") }))
	expect(t, "udp outside the range", p.run(t, func() error { return sendDatagram("", "[2001:db8::1]:999") }),
		"icmp 2001:db8::1 DestinationUnreachable(PortUnreachable)")
}

func TestGuardIPv6DatagramServices(t *testing.T) {
	for _, method := range []string{iface.GuardNFT, iface.GuardSocket} {
		lab := newGuardLab6(t)
		p := lab.atClient()
		p.marker = "2001:db8::1"
		send := func() error { return sendDatagram("", "[2001:db8::1]:53") }
		expect(t, method+" before", p.run(t, send), "icmp 2001:db8::1 DestinationUnreachable(PortUnreachable)")
		rules := lab.rules6()
		rules.Services = []iface.GuardService{service(udp, "[2001:db8::1]:53")}
		lab.apply(t, lab.open(t, method), rules)
		expect(t, method+" guarded", p.run(t, send))
	}
}

// Rules that would drop everything from the client leave its neighbour discovery
// alone: the host finds it, and gets its datagram off.
func TestGuardIPv6LeavesNeighbourDiscovery(t *testing.T) {
	lab := newGuardLab6(t)
	rules := lab.rules6()
	rules.Host = nil
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}
	rules.Servers = []iface.GuardService{service(udp, "[2001:db8::21]:0")}
	g := lab.open(t, iface.GuardNFT)
	lab.apply(t, g, rules)
	p := probe{from: lab.host, watch: lab.client, link: "eth0", marker: "2001:db8::21"}
	send := func() error { return sendDatagram("[2001:db8::1]:4000", "[2001:db8::21]:9") }
	expect(t, "from the host", p.run(t, send), "udp [2001:db8::1]:4000")
}
