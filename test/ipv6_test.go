// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// TestIPv6 has the scenarios of IPv4 once more, in the cluster's IPv6 form.
func TestIPv6(t *testing.T) {
	onPacket(t, lab.Config{IPv6: true, Far: true}, nil, func(t *testing.T, c *cluster) {
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
		{Host: lab.HostBare},
		{Host: lab.HostBare, OneArm: true},
		{OneArm: true},
	} {
		config.IPv6 = true
		name := fmt.Sprintf("VIP %v, forwarding %t, one arm %t", config.Host, config.Forward, config.OneArm)
		t.Run(name, func(t *testing.T) {
			onPacket(t, config, nil, func(t *testing.T, c *cluster) {
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
	shrinkEachLink(t, onPacket, lab.Config{Servers: 1, Router: true, IPv6: true}, 1300)
}
