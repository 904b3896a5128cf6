// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/ipv6"

	"github.com/vsnat/vsnat/test/lab"
)

// TestIPv6 has the scenarios of IPv4 once more, in the cluster's IPv6 form.
func TestIPv6(t *testing.T) {
	eachIO(t, lab.Config{IPv6: true, Far: true}, nil, func(t *testing.T, c *cluster) {
		const size = 20 << 20
		c.run("round robin", roundRobin)
		c.run("half-close by the client", halfCloseByClient)
		c.run("half-close by the server", halfCloseByServer)
		c.run("refused by the server", refusedByServer)
		c.run("download", func(t *testing.T, c *cluster) {
			c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), size))
		})
		c.run("upload", func(t *testing.T, c *cluster) {
			c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), size))
		})
		c.run("flows in turn", udpFlows)
		for _, size := range []int{0, 1, 1452, 1453, 8 << 10, 60_000} {
			c.run(fmt.Sprintf("datagrams of %d bytes", size), func(t *testing.T, c *cluster) {
				c.exchange(c.dialUDP(lab.EchoPort), 5, size)
			})
		}
		c.run("segments in one call", udpSegments)
		c.run("port closed", udpPortClosed)
		c.run("no server", udpNoServer)
		for _, size := range []int{0, 56, 1400, 8 << 10} {
			c.run(fmt.Sprintf("ping of the VIP, %d bytes", size), func(t *testing.T, c *cluster) {
				c.mustPing(c.Client, c.Config.VIP(), 1, size)
			})
		}
		c.run("ping of the gateway by a server", func(t *testing.T, c *cluster) {
			c.mustPing(c.Servers[0], c.Config.Gateway(), 1, 56)
		})
		for _, peer := range []*lab.Node{c.Client, c.Far} {
			c.run("SNAT to the "+peer.Name, func(t *testing.T, c *cluster) { snatPeer(t, c, peer) })
		}
		c.run("two hosts, one port", twoHostsOnePort)
		c.run("large, from a server", func(t *testing.T, c *cluster) {
			c.must(c.Far.ServeTCP(lab.SinkPort, func(conn *net.TCPConn) {
				defer conn.Close()
				if d, err := lab.ReadDigest(conn); err == nil {
					fmt.Fprintln(conn, d)
				}
			}))
			c.must(c.Servers[1].Upload(c.ctx, at(c.Far, lab.SinkPort), size))
		})
		c.run("ipvsadm", func(t *testing.T, c *cluster) {
			for _, want := range []string{"TCP  [2001:db8:88::23]:80 rr", "-> [fd00:10::4]:80 "} {
				if got := c.ipvsadm("-L", "-n"); !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	})
}

// TestIPv6Host has the VIP used wherever it is, and the host's own forwarding off
// and on: whatever the kernel does with IPv6, connections work, and the host keeps
// its own.
func TestIPv6Host(t *testing.T) {
	for _, config := range []lab.Config{
		{Host: lab.HostBesideVIP, Forward: true},
		{Host: lab.HostVIPOnNIC},
		{Host: lab.HostVIPOnNIC, Forward: true},
		{Host: lab.HostVIPOnLoopback},
		{Host: lab.HostVIPOnLoopback, Forward: true},
		{Host: lab.HostBare},
		{Host: lab.HostBare, OneArm: true},
		{OneArm: true},
	} {
		config.IPv6 = true
		name := fmt.Sprintf("VIP %v, forwarding %t, one arm %t", config.Host, config.Forward, config.OneArm)
		t.Run(name, func(t *testing.T) {
			eachIO(t, config, nil, func(t *testing.T, c *cluster) {
				c.run("round robin", roundRobin)
				c.run("SNAT", func(t *testing.T, c *cluster) { snatPeer(t, c, c.Client) })
				c.run("ping of the VIP", func(t *testing.T, c *cluster) { c.mustPing(c.Client, c.Config.VIP(), 1, 56) })
				if config.Host != lab.HostBare {
					c.run("the host's own connections", hostsOwn)
				}
			})
		})
	}
}

// TestIPv6PathMTU is TestPathMTU with packets too big, which routers never cut.
func TestIPv6PathMTU(t *testing.T) {
	shrinkEachLink(t, eachIO, lab.Config{Servers: 1, Router: true, IPv6: true}, 1300)
}

// TestIPv6Traceroute sends datagrams that live for one hop more each, to a service
// and from a server to the client.
func TestIPv6Traceroute(t *testing.T) {
	eachIO(t, lab.Config{IPv6: true, Router: true, Servers: 1}, nil, func(t *testing.T, c *cluster) {
		router, server := addr("2001:db8:88::1"), c.Servers[0]
		c.run("to the VIP", func(t *testing.T, c *cluster) {
			c.hopLimits(c.Client, c.virtual(lab.EchoPort), addr("2001:db8:100::1"), c.Config.VIP())
		})
		c.run("by a server", func(t *testing.T, c *cluster) {
			c.hopLimits(server, at(c.Client, lab.WhoPort), c.Config.Gateway(), router)
		})
	})
}

// hopLimits wants an error from each of the hops in turn, with what the node sent
// in it, and then an answer.
func (c *cluster) hopLimits(from *lab.Node, to netip.AddrPort, hops ...netip.Addr) {
	c.t.Helper()
	w := c.capture(from, "eth0")
	for limit := 1; limit <= len(hops)+1; limit++ {
		conn, err := from.ListenPacket("udp", "[::]:0")
		c.must(err)
		defer conn.Close()
		c.must(ipv6.NewPacketConn(conn).SetHopLimit(limit))
		_, err = conn.WriteTo([]byte("probe"), net.UDPAddrFromAddrPort(to))
		c.must(err)
		local := netip.AddrPortFrom(from.Addr, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		if limit > len(hops) {
			w.wait(1, "an answer of the peer", func(p gopacket.Packet) bool {
				udp, ok := p.TransportLayer().(*layers.UDP)
				return ok && source(p) == to.Addr() && uint16(udp.DstPort) == local.Port()
			})
			return
		}
		got := w.wait(1, fmt.Sprintf("time exceeded for hop limit %d", limit), func(p gopacket.Packet) bool {
			return quotesDatagram(p, local, to)
		})[0]
		if s := source(got); s != hops[limit-1] {
			c.t.Errorf("hop limit %d: the answer is from %v, want %v", limit, s, hops[limit-1])
		}
		if ip := got.NetworkLayer().(*layers.IPv6); sumIPv6(ip) != 0xffff {
			c.t.Errorf("ICMPv6 checksum is wrong:\n%v", got)
		}
	}
}

// quotesDatagram reports whether p is a time exceeded about a datagram.
func quotesDatagram(p gopacket.Packet, from, to netip.AddrPort) bool {
	e, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	if !ok || e.TypeCode.Type() != layers.ICMPv6TypeTimeExceeded || len(e.Payload) < 4 {
		return false
	}
	// Four unused octets come before the quotation.
	quoted := gopacket.NewPacket(e.Payload[4:], layers.LayerTypeIPv6, gopacket.Default)
	udp, ok := quoted.TransportLayer().(*layers.UDP)
	if !ok {
		return false
	}
	dst, _ := netip.AddrFromSlice(quoted.NetworkLayer().(*layers.IPv6).DstIP)
	return netip.AddrPortFrom(source(quoted), uint16(udp.SrcPort)) == from &&
		netip.AddrPortFrom(dst, uint16(udp.DstPort)) == to
}

// sumIPv6 is the Internet checksum's sum over an ICMPv6 packet without extension
// headers and its pseudo-header (RFC 8200, 8.1).
func sumIPv6(ip *layers.IPv6) uint16 {
	pseudo := append(append([]byte(nil), ip.SrcIP...), ip.DstIP...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(ip.Payload)))
	pseudo = append(pseudo, 0, 0, 0, byte(ip.NextHeader))
	return sum(append(pseudo, ip.Payload...))
}
