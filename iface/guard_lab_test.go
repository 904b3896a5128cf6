// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface/ifacetest"
)

// guardLab is a host between a client and an inside network:
//
//	client 192.0.2.21 ── pub 192.0.2.1 [host] priv 10.0.0.1 ── inside 10.0.0.2
//	       2001:db8::21      2001:db8::1
//
// The client has 203.0.113.0/24 behind the host, the host has it behind inside.
type guardLab struct {
	host, client, inside *ifacetest.Namespace
}

func newGuardLab(t *testing.T) *guardLab {
	t.Helper()
	lab := &guardLab{ifacetest.NewNamespace(t), ifacetest.NewNamespace(t), ifacetest.NewNamespace(t)}
	for _, in := range []*ifacetest.Namespace{lab.host, lab.client, lab.inside} {
		// Link-local addresses are there at once, so that questions have a sender.
		setSysctl(t, in, "net/ipv6/conf/all/accept_dad", "0")
		setSysctl(t, in, "net/ipv6/conf/default/accept_dad", "0")
	}
	lab.cable(t, "pub", lab.client)
	lab.cable(t, "priv", lab.inside)
	lab.address(t, lab.host, "pub", "192.0.2.1/24", "2001:db8::1/64")
	lab.address(t, lab.host, "priv", "10.0.0.1/24")
	lab.address(t, lab.client, "eth0", "192.0.2.21/24", "2001:db8::21/64")
	lab.address(t, lab.inside, "eth0", "10.0.0.2/24", "10.0.0.200/24")
	lab.route(t, lab.client, "203.0.113.0/24", "192.0.2.1")
	lab.route(t, lab.host, "203.0.113.0/24", "10.0.0.2")
	lab.route(t, lab.inside, "192.0.2.0/24", "10.0.0.1")
	return lab
}

func (lab *guardLab) cable(t *testing.T, name string, to *ifacetest.Namespace) {
	t.Helper()
	err := lab.host.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(to.FD())}
		return netlink.LinkAdd(veth)
	})
	if err != nil {
		t.Fatalf("cable %s: %v", name, err)
	}
	for _, end := range []struct {
		in   *ifacetest.Namespace
		name string
	}{{lab.host, name}, {to, "eth0"}} {
		link, err := end.in.Handle.LinkByName(end.name)
		if err == nil {
			err = end.in.Handle.LinkSetUp(link)
		}
		if err != nil {
			t.Fatalf("cable %s: %v", name, err)
		}
	}
}

func (lab *guardLab) address(t *testing.T, in *ifacetest.Namespace, link string, addresses ...string) {
	t.Helper()
	l, err := in.Handle.LinkByName(link)
	for _, a := range addresses {
		var addr *netlink.Addr
		if err == nil {
			addr, err = netlink.ParseAddr(a)
		}
		if err == nil {
			addr.Flags = unix.IFA_F_NODAD
			err = in.Handle.AddrAdd(l, addr)
		}
	}
	if err != nil {
		t.Fatalf("addresses %v on %s: %v", addresses, link, err)
	}
}

func (lab *guardLab) route(t *testing.T, in *ifacetest.Namespace, to, via string) {
	t.Helper()
	_, dst, _ := net.ParseCIDR(to)
	if err := in.Handle.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		t.Fatalf("route to %s: %v", to, err)
	}
}

func (lab *guardLab) forwarding(t *testing.T, value string) {
	t.Helper()
	setSysctl(t, lab.host, "net/ipv4/ip_forward", value)
}

func setSysctl(t *testing.T, in *ifacetest.Namespace, path, value string) {
	t.Helper()
	if err := in.Do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) }); err != nil {
		t.Fatalf("set %s: %v", path, err)
	}
}

// listen makes the host accept TCP connections on an address, for the test.
func listen(t *testing.T, in *ifacetest.Namespace, at string) net.Listener {
	t.Helper()
	var l net.Listener
	err := in.Do(func() (err error) { l, err = net.Listen("tcp", at); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// probe does send inside a namespace, then sends a ping that must be answered,
// from the same CPU: what the ping's answer overtakes never comes.
// It returns what arrived on link of the watching namespace before the ping's
// last packet there, described; ARP and neighbour discovery left out.
type probe struct {
	from, watch *ifacetest.Namespace
	link        string
	marker      string               // address to ping
	source      string               // source of the ping; "" is the kernel's choice
	pinger      *ifacetest.Namespace // who pings; nil: from
}

func (p probe) run(t *testing.T, send func() error) []string {
	t.Helper()
	const id = 0x7611 // names our marker
	tap := -1
	if err := p.watch.Do(func() (err error) { tap, err = openTap(p.link); return err }); err != nil {
		t.Fatalf("tap: %v", err)
	}
	defer unix.Close(tap)

	pinger := p.pinger
	if pinger == nil {
		pinger = p.from
	}
	err := p.from.Do(func() error { return onOneCPU(send) })
	if err == nil {
		err = pinger.Do(func() error { return onOneCPU(func() error { return sendPing(p.source, p.marker, id) }) })
	}
	if err != nil {
		t.Fatalf("probe: %v", err)
	}

	var seen []string
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(tap, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("the marker ping to %s was not seen on %s: %v; before it came %q", p.marker, p.link, err, seen)
		}
		text, marker := describe(buf[:n], id)
		if marker {
			return seen
		}
		if text != "" {
			seen = append(seen, text)
		}
	}
}

// onOneCPU has what f sends stay in the order in which it is sent. The thread is
// one that Do lets die.
func onOneCPU(f func() error) error {
	var cpu unix.CPUSet
	cpu.Set(0)
	_ = unix.SchedSetaffinity(0, &cpu)
	return f()
}

func openTap(link string) (int, error) {
	protocol := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // network byte order
	l, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: l.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	return fd, err
}

// describe decodes a frame with an independent decoder: "tcp 192.0.2.1:80 RST".
func describe(frame []byte, id uint16) (text string, marker bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	network := p.NetworkLayer()
	if network == nil {
		return "", false
	}
	from := network.NetworkFlow().Src().String()
	if ip, ok := network.(*layers.IPv4); ok && ip.FragOffset != 0 {
		return "fragment " + from, false
	}
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		var flags []string
		for _, f := range []struct {
			set  bool
			name string
		}{{l.SYN, "SYN"}, {l.ACK, "ACK"}, {l.RST, "RST"}, {l.FIN, "FIN"}} {
			if f.set {
				flags = append(flags, f.name)
			}
		}
		return fmt.Sprintf("tcp %s %s", netip.AddrPortFrom(netip.MustParseAddr(from), uint16(l.SrcPort)), strings.Join(flags, " ")), false
	case *layers.UDP:
		return fmt.Sprintf("udp %s", netip.AddrPortFrom(netip.MustParseAddr(from), uint16(l.SrcPort))), false
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		echo := l.TypeCode.Type() == layers.ICMPv4TypeEchoReply || l.TypeCode.Type() == layers.ICMPv4TypeEchoRequest
		return fmt.Sprintf("icmp %s %s", from, l.TypeCode), echo && l.Id == id
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6Echo).(*layers.ICMPv6Echo); ok {
		return "icmp " + from + " echo", l.Identifier == id
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && l.TypeCode.Type() < layers.ICMPv6TypeEchoRequest {
		return fmt.Sprintf("icmp %s %s", from, l.TypeCode), false
	}
	return "", false
}

func sendPing(from, to string, id int) error {
	network, listenAt := "ip4:icmp", "0.0.0.0"
	var kind icmp.Type = ipv4.ICMPTypeEcho
	if strings.Contains(to, ":") {
		network, listenAt, kind = "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest
	}
	if from != "" {
		listenAt = from
	}
	c, err := icmp.ListenPacket(network, listenAt)
	if err != nil {
		return err
	}
	defer c.Close()
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("marker")}}
	raw, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = c.WriteTo(raw, &net.IPAddr{IP: net.ParseIP(to)})
	return err
}

// sendSYN begins a TCP connection without waiting for its outcome.
func sendSYN(to string) error { return sendSYNFrom("", to) }

// sendSYNFrom does so from an endpoint; "" is the kernel's choice.
func sendSYNFrom(from, to string) error {
	family, sa := socketAddress(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if from != "" {
		_, local := socketAddress(from)
		if err := unix.Bind(fd, local); err != nil {
			return fmt.Errorf("bind to %s: %w", from, err)
		}
	}
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}

func socketAddress(text string) (family int, sa unix.Sockaddr) {
	at := netip.MustParseAddrPort(text)
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

// sendDatagram sends one UDP datagram; from "" is the kernel's choice.
func sendDatagram(from, to string) error {
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	c, err := d.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("datagram"))
	return err
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("%s: seen %q, want %q", what, got, want)
	}
}

// sendTagged sends a SYN to a port of 192.0.2.1 on eth0 in a frame with a VLAN tag.
func sendTagged(tag layers.EthernetType, to net.HardwareAddr, port layers.TCPPort) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{192, 0, 2, 21}, DstIP: net.IP{192, 0, 2, 1}}
	transport := &layers.TCP{SrcPort: 4000, DstPort: port, SYN: true}
	transport.SetNetworkLayerForChecksum(ip)
	frame := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: eth0.HardwareAddr, DstMAC: to, EthernetType: tag},
		&layers.Dot1Q{VLANIdentifier: 10, Type: layers.EthernetTypeIPv4}, ip, transport)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, frame.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
}
