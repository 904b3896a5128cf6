// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

func TestGuardHidesNothingFromTheTap(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	rules.Owned = addresses("203.0.113.23")
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	p := probe{from: lab.client, watch: lab.host, link: "pub", marker: "192.0.2.1"}
	got := p.run(t, func() error {
		return firstError(sendSYN("192.0.2.1:80"), sendDatagram("192.0.2.21:4000", "203.0.113.23:53"))
	})
	if len(got) != 2 || !strings.HasSuffix(got[0], " SYN") || got[1] != "udp 192.0.2.21:4000" {
		t.Errorf("the tap saw %q", got)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestGuardOwnedAddressIsNotForwarded(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	// The marker takes the same way to an address that nobody owns; inside
	// has no route back and need not.
	p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: "203.0.113.99"}
	send := func() error { return sendDatagram("192.0.2.21:4000", "203.0.113.23:53") }
	expect(t, "without a guard", p.run(t, send), "udp 192.0.2.21:4000")
	rules := lab.rules()
	rules.Owned = addresses("203.0.113.23")
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	expect(t, "guarded", p.run(t, send))
}

func TestGuardTransitOfInsideIsNotForwarded(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "192.0.2.21", source: "10.0.0.200"}
	send := func() error {
		return firstError(
			sendDatagram("10.0.0.2:80", "192.0.2.21:4000"),
			sendDatagram("10.0.0.2:81", "192.0.2.21:4000"),
			icmpError("10.0.0.2", "192.0.2.21"))
	}
	reply, other, unreachable := "udp 10.0.0.2:80", "udp 10.0.0.2:81", "icmp 10.0.0.2 DestinationUnreachable(Port)"
	expect(t, "without a guard", out.run(t, send), reply, other, unreachable)

	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Servers = []iface.GuardService{service(udp, "10.0.0.2:80")}
	lab.apply(t, g, rules)
	expect(t, "a real server", out.run(t, send), other)

	rules.Servers[0].Port = 0
	lab.apply(t, g, rules)
	expect(t, "a real server on every port", out.run(t, send))

	rules.Servers = nil
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25")}
	lab.apply(t, g, rules)
	expect(t, "an inside network", out.run(t, send))

	// Traffic to the host itself, by whatever address, and its answers stay.
	toHost := probe{from: lab.inside, watch: lab.inside, link: "eth0", marker: "10.0.0.1"}
	expect(t, "inside to the host", toHost.run(t, func() error {
		return firstError(sendDatagram("10.0.0.2:80", "10.0.0.1:9"), sendDatagram("10.0.0.2:80", "192.0.2.1:9"))
	}), "icmp 10.0.0.1 DestinationUnreachable(Port)", "icmp 192.0.2.1 DestinationUnreachable(Port)")
}

// icmpError sends a port unreachable about a datagram that to would have sent.
func icmpError(from, to string) error {
	c, err := net.Dial("ip4:icmp", to)
	if from != "" {
		c, err = net.DialIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
	}
	if err != nil {
		return err
	}
	defer c.Close()
	quoted := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 63, udp, 0, 0}
	quoted = append(quoted, net.ParseIP(to).To4()...)
	quoted = append(quoted, net.ParseIP(from).To4()...)
	quoted = append(quoted, 0x0f, 0xa0, 0, 80, 0, 8, 0, 0)
	message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quoted...)
	sum := uint32(0)
	for i := 0; i < len(message); i += 2 {
		sum += uint32(message[i])<<8 | uint32(message[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = ^(sum>>16 + sum&0xffff)
	message[2], message[3] = byte(sum>>8), byte(sum)
	_, err = c.Write(message)
	return err
}

func TestGuardSNATPorts(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("192.0.2.1"), Min: 1000, Max: 2000, Except: []uint16{1500, 1600}}}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	for _, c := range []struct {
		port  uint16
		quiet bool
	}{{999, false}, {1000, true}, {1499, true}, {1500, false}, {1501, true}, {1600, false}, {2000, true}, {2001, false}} {
		at := fmt.Sprintf("192.0.2.1:%d", c.port)
		want := []string{}
		if !c.quiet {
			want = append(want, "tcp "+at+" ACK RST")
		}
		expect(t, "tcp to "+at, lab.atClient().run(t, func() error { return sendSYN(at) }), want...)
	}
	expect(t, "udp in the range", lab.atClient().run(t, func() error { return sendDatagram("", "192.0.2.1:1000") }))
	expect(t, "udp outside the range", lab.atClient().run(t, func() error { return sendDatagram("", "192.0.2.1:999") }),
		"icmp 192.0.2.1 DestinationUnreachable(Port)")
}

func TestGuardLeavesOtherFramesAlone(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	g := lab.open(t, iface.GuardNFT)
	lab.apply(t, g, rules)
	pub, err := lab.host.Handle.LinkByName("pub")
	if err != nil {
		t.Fatal(err)
	}
	ours := pub.Attrs().HardwareAddr
	for _, c := range []struct {
		what    string
		send    func() error
		dropped uint64
	}{
		{"a frame to us", func() error { return sendSYN("192.0.2.1:80") }, 1},
		{"a frame of a VLAN", func() error { return sendTagged(layers.EthernetTypeDot1Q, ours, 80) }, 0},
		{"a frame of a service VLAN", func() error { return sendTagged(layers.EthernetTypeQinQ, ours, 80) }, 0},
	} {
		before := servicesDropped(t, g)
		lab.atClient().run(t, c.send)
		if got := servicesDropped(t, g) - before; got != c.dropped {
			t.Errorf("%s: %d dropped, want %d", c.what, got, c.dropped)
		}
	}

	// A MAC that is not the host's: a macvlan's, for all the guard knows.
	gone := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	neighbour := &netlink.Neigh{IP: net.IP{192, 0, 2, 9}, HardwareAddr: gone, State: netlink.NUD_PERMANENT}
	if eth0, err := lab.client.Handle.LinkByName("eth0"); err != nil {
		t.Fatal(err)
	} else {
		neighbour.LinkIndex = eth0.Attrs().Index
	}
	if err := lab.client.Handle.NeighSet(neighbour); err != nil {
		t.Fatal(err)
	}
	rules.Owned = addresses("192.0.2.9")
	lab.apply(t, g, rules)
	before, err := g.(iface.GuardCounter).Counts()
	if err != nil {
		t.Fatal(err)
	}
	lab.atClient().run(t, func() error { return sendSYN("192.0.2.9:80") })
	if after, err := g.(iface.GuardCounter).Counts(); err != nil || !slices.Equal(before, after) {
		t.Errorf("a frame to another MAC: counts were %v, are %v, %v", before, after, err)
	}
}

func servicesDropped(t *testing.T, g iface.Guard) uint64 {
	t.Helper()
	counts, err := g.(iface.GuardCounter).Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Rule == "services" {
			return c.Packets
		}
	}
	t.Fatalf("no count of services in %v", counts)
	return 0
}
