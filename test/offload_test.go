// SPDX-License-Identifier: Apache-2.0

package test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// TestWithoutOffloads switches off what the ends leave to their links: packets
// come with checksums of their own, and none is larger than the MTU. All other
// tests are with offloads, as veth has them.
func TestWithoutOffloads(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		for _, n := range append([]*lab.Node{c.Client}, c.Servers...) {
			// Transmit checksums last: without them the kernel refuses the others.
			for _, command := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
				c.must(n.SwitchOff("eth0", command))
			}
		}
		c.run("round robin", roundRobin)
		c.run("upload and download", func(t *testing.T, c *cluster) {
			c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), 4<<20))
			c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), 4<<20))
		})
		c.run("datagrams", func(t *testing.T, c *cluster) {
			for _, size := range []int{10, 1452, 1472, 8 << 10} {
				c.exchange(c.dialUDP(lab.EchoPort), 3, size)
			}
		})
		c.run("SNAT", func(t *testing.T, c *cluster) { snatPeer(t, c, c.Client) })
	})
}
