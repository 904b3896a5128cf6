// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/vsnat/vsnat/test/lab"
)

func TestICMP(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Router: true}, nil, func(t *testing.T, c *cluster) {
		for _, size := range []int{0, 56, 1400, 8 << 10} {
			c.run(fmt.Sprintf("ping of the VIP, %d bytes", size), func(t *testing.T, c *cluster) {
				for seq := range 3 {
					c.mustPing(c.Client, c.Config.VIP(), seq, size)
				}
			})
		}
		c.run("ping of the gateway by a server", func(t *testing.T, c *cluster) {
			c.mustPing(c.Servers[0], c.Config.Gateway(), 1, 56)
		})
		for _, proto := range []string{"tcp", "udp"} {
			c.run("traceroute by "+proto, func(t *testing.T, c *cluster) { traceroute(t, c, proto) })
		}
		c.run("traceroute by a server", tracerouteOut)
	})
}

// hops is how often the time to live of a packet is counted on its way through
// the director: with io: tun the host routes it twice, to the device and from it.
func (c *cluster) hops() int {
	if c.io == "tun" {
		return 2
	}
	return 1
}

// traceroute sends probes to a service that live for one hop more each: the
// router and the director answer that their time was over, and quote what the
// client sent; the last one arrives.
func traceroute(t *testing.T, c *cluster, proto string) {
	const port = lab.EchoPort
	w := c.capture(c.Client, "eth0")
	arrives := uint8(2 + c.hops())
	for ttl := uint8(1); ttl < arrives; ttl++ {
		local := 30_000 + uint16(ttl)
		c.probe(w, proto, local, port, ttl)
		got := w.wait(1, fmt.Sprintf("time exceeded for TTL %d", ttl), func(p gopacket.Packet) bool {
			e, ok := errorIn(p)
			return ok && e.timeExceeded && e.from.Port() == local
		})
		switch s := source(got[0]); {
		case ttl == 1 && s != c.Config.RouterAddr():
			t.Errorf("TTL 1: the answer is from %v, want the router", s)
		case c.Config.Inside().Contains(s):
			t.Errorf("TTL %d: the answer shows the inside address %v", ttl, s)
		}
		c.wantQuotation(got[0], c.Client.Addr, c.Config.VIP())
	}
	local := uint16(30_100)
	c.probe(w, proto, local, port, arrives)
	w.wait(1, fmt.Sprintf("an answer of the service to TTL %d", arrives), func(p gopacket.Packet) bool {
		if source(p) != c.Config.VIP() {
			return false
		}
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			return l.SYN && l.ACK && uint16(l.DstPort) == local
		case *layers.UDP:
			return uint16(l.DstPort) == local
		}
		return false
	})
}

// tracerouteOut goes from a server to the client: the quotation in the answer of
// the router must be put back.
func tracerouteOut(t *testing.T, c *cluster) {
	server := c.Servers[0]
	conn, err := server.ListenPacket("udp", ":30010")
	c.must(err)
	defer conn.Close()
	setTTL := ipv4.NewPacketConn(conn).SetTTL
	if c.Config.IPv6 {
		setTTL = ipv6.NewPacketConn(conn).SetHopLimit
	}
	w := c.capture(server, "eth0")
	for ttl := 1; ttl <= c.hops()+1; ttl++ {
		c.must(setTTL(ttl))
		to := at(c.Client, lab.WhoPort+ttl)
		_, err := conn.WriteTo([]byte("probe"), net.UDPAddrFromAddrPort(to))
		c.must(err)
		got := w.wait(1, fmt.Sprintf("time exceeded for TTL %d", ttl), func(p gopacket.Packet) bool {
			e, ok := errorIn(p)
			return ok && e.timeExceeded && e.from.Port() == 30010 && e.to.Port() == to.Port()
		})
		if s := source(got[0]); ttl > c.hops() && s != c.Router.Addr {
			t.Errorf("TTL %d: the answer is from %v, want the router", ttl, s)
		}
		c.wantQuotation(got[0], server.Addr, c.Client.Addr)
	}
}

// probe sends one packet of the client to a port of the VIP.
func (c *cluster) probe(w *wire, proto string, from uint16, to int, ttl uint8) {
	c.t.Helper()
	c.probeTo(w, proto, from, c.virtual(to), ttl)
}

// probeTo is probe to any endpoint by way of the director.
func (c *cluster) probeTo(w *wire, proto string, from uint16, to netip.AddrPort, ttl uint8) {
	c.t.Helper()
	src, dst := c.Client.Addr, to.Addr()
	ether := ethernet(w.mac, c.nextHopMAC(), src)
	if proto == "tcp" {
		w.send(frame(c.t, ether, ipHeader(src, dst, layers.IPProtocolTCP, ttl),
			&layers.TCP{SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(to.Port()), Seq: 1000, SYN: true, Window: 60_000}))
		return
	}
	w.send(frame(c.t, ether, ipHeader(src, dst, layers.IPProtocolUDP, ttl),
		&layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to.Port())}, gopacket.Payload("probe")))
}

// nextHopMAC is where frames of the client to the VIP go.
func (c *cluster) nextHopMAC() net.HardwareAddr {
	c.t.Helper()
	n, link := c.Director, "eth0"
	if c.Router != nil {
		n, link = c.Router, "eth0"
	}
	nic, err := n.Interface(link)
	c.must(err)
	return nic.HardwareAddr
}

// An icmpError is one of either family, with the ends of the packet of UDP or TCP
// that it quotes.
type icmpError struct {
	timeExceeded bool
	quoted       gopacket.Packet
	from, to     netip.AddrPort
}

// errorIn takes an ICMP error apart.
func errorIn(p gopacket.Packet) (e icmpError, ok bool) {
	if m, is := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); is {
		switch m.TypeCode.Type() {
		case layers.ICMPv4TypeTimeExceeded:
			e.timeExceeded = true
		case layers.ICMPv4TypeDestinationUnreachable:
		default:
			return e, false
		}
		e.quoted = gopacket.NewPacket(m.Payload, layers.LayerTypeIPv4, gopacket.Default)
	} else if m, is := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); is && m.TypeCode.Type() < layers.ICMPv6TypeEchoRequest && len(m.Payload) > 4 {
		e.timeExceeded = m.TypeCode.Type() == layers.ICMPv6TypeTimeExceeded
		e.quoted = gopacket.NewPacket(m.Payload[4:], layers.LayerTypeIPv6, gopacket.Default)
	} else {
		return e, false
	}
	// The quotation may end within the transport header, but never in its ports.
	var ports []byte
	if ip := e.quoted.NetworkLayer(); ip != nil {
		ports = ip.LayerPayload()
	}
	if len(ports) < 4 {
		return e, true
	}
	e.from = netip.AddrPortFrom(source(e.quoted), binary.BigEndian.Uint16(ports))
	e.to = netip.AddrPortFrom(destination(e.quoted), binary.BigEndian.Uint16(ports[2:]))
	return e, true
}

// wantQuotation checks the checksums of an ICMP error and the addresses in it.
func (c *cluster) wantQuotation(p gopacket.Packet, src, dst netip.Addr) {
	c.t.Helper()
	e, ok := errorIn(p)
	if !ok {
		c.t.Errorf("no ICMP error:\n%v", p)
		return
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if sum(ip.Contents) != 0xffff || sum(ip.Payload) != 0xffff {
			c.t.Errorf("a checksum of the ICMP error is wrong:\n%v", p)
		}
		if inner, ok := e.quoted.NetworkLayer().(*layers.IPv4); ok && sum(inner.Contents) != 0xffff {
			c.t.Errorf("IP checksum of the quoted packet is wrong:\n%v", e.quoted)
		}
	case *layers.IPv6:
		if sumIPv6(ip) != 0xffff {
			c.t.Errorf("the checksum of the ICMP error is wrong:\n%v", p)
		}
	}
	if e.from.Addr() != src || e.to.Addr() != dst {
		c.t.Errorf("the quoted packet is from %v to %v, sent was one from %v to %v", e.from, e.to, src, dst)
	}
}

// sumIPv6 is the Internet checksum's sum over an ICMPv6 packet without extension
// headers and its pseudo-header (RFC 8200, 8.1).
func sumIPv6(ip *layers.IPv6) uint16 {
	pseudo := append(append([]byte(nil), ip.SrcIP...), ip.DstIP...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(ip.Payload)))
	pseudo = append(pseudo, 0, 0, 0, byte(ip.NextHeader))
	return sum(append(pseudo, ip.Payload...))
}

// sum is the Internet checksum's sum, 0xffff over what contains a right one.
func sum(b []byte) uint16 {
	var s uint32
	for i, v := range b {
		s += uint32(v) << (8 * uint(1-i&1))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// mustPing sends an echo request from a node and wants its reply.
func (c *cluster) mustPing(n *lab.Node, to netip.Addr, seq, size int) {
	c.t.Helper()
	c.must(c.ping(n, to, seq, size))
}

// ping sends an echo request and waits for a second for its reply.
func (c *cluster) ping(n *lab.Node, to netip.Addr, seq, size int) error {
	network, any, proto := "ip4:icmp", "0.0.0.0", 1
	var ask, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, any, proto = "ip6:ipv6-icmp", "::", 58
		ask, answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	conn, err := n.ListenPacket(network, any)
	if err != nil {
		return err
	}
	defer conn.Close()
	id := os.Getpid()&0xff00 | seq
	echo := &icmp.Echo{ID: id, Seq: seq, Data: bytes.Repeat([]byte{'v'}, size)}
	request, err := (&icmp.Message{Type: ask, Body: echo}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(request, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	buffer := make([]byte, 1<<16)
	for {
		k, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("ping of %v by %s: %w", to, n.Name, err)
		}
		m, err := icmp.ParseMessage(proto, buffer[:k])
		if err != nil {
			return err
		}
		reply, ok := m.Body.(*icmp.Echo)
		if m.Type != answer || !ok || reply.ID != id || from.String() != to.String() {
			continue
		}
		if reply.Seq != seq || !bytes.Equal(reply.Data, echo.Data) {
			return fmt.Errorf("ping of %v: the reply has seq %d and %d bytes, sent were seq %d and %d bytes",
				to, reply.Seq, len(reply.Data), seq, size)
		}
		return nil
	}
}
