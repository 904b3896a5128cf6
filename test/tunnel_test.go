// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestTunnel sends what comes for the VIP through tunnels. The servers unwrap it into
// their kernels, which have the VIP on lo, by each way that there is for this user.
func TestTunnel(t *testing.T) {
	t.Parallel()
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		for way, open := range injectors() {
			t.Run(way, func(t *testing.T) {
				eachIO(t, lab.Config{OneArm: true, IPv6: ipv6}, tunnelled(t, "ipip", open), func(t *testing.T, c *cluster) {
					c.run("round robin", roundRobin)
					c.run("half-close by the client", halfCloseByClient)
					transfersPastUs(c)
					c.run("datagrams", datagramsPastUs)
					c.run("an end by the client", endByClient)
					c.run("room for the client's segments", roomInTunnel)
					if c.io == "packet" { // else the host is told of what went wrong with its packets
						c.run("path MTU behind the director", pathMTUInTunnel)
					}
					c.run("listings", func(t *testing.T, c *cluster) {
						c.wantForward("Tunnel")
						c.wantNothingOut()
					})
				})
			})
		}
	})
}

// TestTunnelKinds has the other kinds of tunnels.
func TestTunnelKinds(t *testing.T) {
	t.Parallel()
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		for _, kind := range []string{"gre", "gue"} {
			t.Run(kind, func(t *testing.T) {
				eachIO(t, lab.Config{OneArm: true, IPv6: ipv6}, tunnelled(t, kind, throughLinks), func(t *testing.T, c *cluster) {
					c.run("round robin", roundRobin)
					c.run("upload", func(t *testing.T, c *cluster) {
						c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), 5<<20))
					})
					c.run("datagrams", datagramsPastUs)
				})
			})
		}
	})
}

// tunnelled is pastUs with tunnels of a kind, and starts their far ends.
func tunnelled(t *testing.T, kind string, open injector) func(c *lab.Cluster, io string) string {
	words := "method: tunnel, tunnel: " + kind
	if kind == "gue" {
		words += fmt.Sprintf(", tunnel-port: %d, tunnel-checksum: csum", guePort)
	}
	return func(c *lab.Cluster, io string) string {
		for _, n := range c.Servers {
			unwrap(t, n, kind, c.Config.IPv6, open(t, n))
		}
		return pastUs(t, words)(c, io)
	}
}

// tunnelRoom is what is left of 1500 bytes inside IPIP.
func (c *cluster) tunnelRoom() int {
	if c.Config.IPv6 {
		return 1500 - 40
	}
	return 1500 - 20
}

// sendUntil has the client send to a server until it knows a path MTU.
func (c *cluster) sendUntil(conn *net.TCPConn, mtu int) {
	c.t.Helper()
	data := make([]byte, 64<<10)
	c.eventually(fmt.Sprintf("the client knows the path MTU %d", mtu), func() bool {
		_, err := conn.Write(data)
		c.must(err)
		return pathMTUOf(c.t, conn) == mtu
	})
}

// roomInTunnel has a client send segments as large as its link can carry, and learn
// that a tunnel takes some room.
func roomInTunnel(t *testing.T, c *cluster) {
	c.sendUntil(c.dialTCP(lab.SinkPort), c.tunnelRoom())
}

// pathMTUInTunnel has a router behind the director say that a wrapped packet is too
// big. It says so to the director, and the client has to hear it.
func pathMTUInTunnel(t *testing.T, c *cluster) {
	const mtu = 1400
	server := c.Servers[0]
	wire := c.capture(server, "eth0")
	c.vsnat("service", "add", "tcp", c.virtual(2303).String())
	c.addPast(control.TCP, server, 2303)
	c.must(server.ServeTCP(2303, func(conn *net.TCPConn) {
		defer conn.Close()
		_, _ = lab.ReadDigest(conn)
	}))
	conn := c.dialTCP(2303)
	c.sendUntil(conn, c.tunnelRoom())
	outer := wire.wait(1, "a wrapped packet", func(p gopacket.Packet) bool {
		return destination(p) == server.Addr && len(p.LinkLayer().LayerPayload()) > mtu && wraps(p)
	})[0]
	from := outer.LinkLayer().LinkFlow().Src().Raw()
	wire.send(tooBig(t, c, wire.mac, from, server.Addr, source(outer), mtu, outer.LinkLayer().LayerPayload()))
	c.sendUntil(conn, mtu-1500+c.tunnelRoom())
}

// wraps reports whether a packet holds another one.
func wraps(p gopacket.Packet) bool {
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		return ip.Protocol == layers.IPProtocolIPv4
	case *layers.IPv6:
		return ip.NextHeader == layers.IPProtocolIPv6
	}
	return false
}
