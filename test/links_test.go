// SPDX-License-Identifier: Apache-2.0

package test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestLinks changes the director's links under it, one after the other on each
// side. It must go on without a restart, and with the connections it held.
func TestLinks(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		pid := c.director.PID()
		for _, link := range []string{"eth0", "eth1"} {
			c.run(link+" down and up", func(t *testing.T, c *cluster) {
				held := c.dialTCP(lab.EchoPort)
				c.echo(held)
				c.eventually("the director sees it up", func() bool { return c.link(link).Up })
				c.must(c.Director.SetDown(link))
				c.eventually("the director sees it down", func() bool { return !c.link(link).Up })
				c.must(c.Director.SetUp(link))
				c.eventually("the director sees it up again", func() bool { return c.link(link).Up })
				c.must(c.Routes())
				c.backAgain(held)
			})
			c.run(link+" with another MTU", func(t *testing.T, c *cluster) {
				held := c.dialTCP(lab.EchoPort)
				c.echo(held)
				for _, mtu := range []int{1300, 1500} { // IPv6 ends below 1280
					c.must(c.Director.SetMTU(link, mtu))
					c.eventually("the director sees the MTU", func() bool { return c.link(link).MTU == mtu })
					c.backAgain(held)
				}
			})
			c.run(link+" with another address", func(t *testing.T, c *cluster) {
				held := c.dialTCP(lab.EchoPort)
				c.echo(held)
				more := netip.MustParsePrefix("10.77.0.1/24")
				if c.Config.IPv6 {
					more = netip.MustParsePrefix("2001:db8:77::1/64")
				}
				c.must(c.Director.AddAddr(link, more))
				c.eventually("the director sees the address", func() bool { return c.hasAddr(link, more) })
				c.backAgain(held)
				c.must(c.Director.DelAddr(link, more))
				c.eventually("the director sees it gone", func() bool { return !c.hasAddr(link, more) })
				c.backAgain(held)
			})
			c.run(link+" deleted and made again", func(t *testing.T, c *cluster) {
				held := c.dialTCP(lab.EchoPort)
				c.echo(held)
				old := c.link(link)
				c.must(c.Director.DeleteLink(link))
				c.eventually("the director sees it gone", func() bool { return c.link(link).Name == "" })
				c.must(c.RestoreLink(c.Director, link))
				c.eventually("the director serves the new one", func() bool {
					l := c.link(link)
					return l.Serving && l.Index != old.Index && l.MAC != old.MAC
				})
				c.backAgain(held)
			})
		}
		if !c.director.Running() || c.director.PID() != pid {
			t.Error("the director was restarted")
		}
	})
}

// TestVIPMoves gives the VIP to the host under the running director, and takes
// it away again.
func TestVIPMoves(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		held := c.dialTCP(lab.EchoPort)
		c.echo(held)
		vip := netip.PrefixFrom(c.Config.VIP(), c.Config.VIP().BitLen())
		for range 2 {
			c.must(c.Director.AddAddr("eth0", vip))
			c.eventually("the director sees the VIP on the host", func() bool { return c.hasAddr("eth0", vip) })
			oneAnswer(t, c)
			c.backAgain(held)
			c.must(c.Director.DelAddr("eth0", vip))
			c.eventually("the director sees it gone", func() bool { return !c.hasAddr("eth0", vip) })
			oneAnswer(t, c)
			c.backAgain(held)
		}
	})
}

// backAgain wants the held connection and new ones of all kinds to work.
func (c *cluster) backAgain(held net.Conn) {
	c.t.Helper()
	c.eventually("a page", func() bool {
		ctx, cancel := contextWithin(c, limit/20)
		defer cancel()
		_, err := c.Client.Get(ctx, "http://"+c.virtual(80).String()+"/")
		return err == nil
	})
	c.echo(held)
	c.eventually("SNAT", func() bool {
		ctx, cancel := contextWithin(c, limit/20)
		defer cancel()
		_, err := c.Servers[0].Get(ctx, "http://"+netip.AddrPortFrom(c.Client.Addr, lab.WhoPort).String()+"/")
		return err == nil
	})
}

// link is what the director knows of one of its links; empty if it is none.
func (c *cluster) link(name string) control.Link {
	c.t.Helper()
	links, err := c.control.Links(c.ctx)
	c.must(err)
	for _, l := range links {
		if l.Name == name {
			return l
		}
	}
	return control.Link{}
}

func (c *cluster) hasAddr(link string, addr netip.Prefix) bool {
	c.t.Helper()
	for _, a := range c.link(link).Addrs {
		if a == addr {
			return true
		}
	}
	return false
}
