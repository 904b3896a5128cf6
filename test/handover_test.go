// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestHandOver restarts the director under load, with other numbers of workers: what was
// open goes on, whoever opened it, and orders stand.
func TestHandOver(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Workers: 1, Clients: 3}, nil, func(t *testing.T, c *cluster) {
		held := c.everyKind()
		c.vsnat("drain", at(c.Servers[2], lab.EchoPort).String())
		l := c.startLoad(6)
		uploaded := make(chan error, 1)
		go func() { uploaded <- c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), 8<<20) }()
		before := len(c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort)}))
		for _, workers := range []int{3, 2} {
			c.must(c.director.Stop())
			c.Config.Workers = workers
			c.start(site(c.Cluster, c.io))
			l.more(20)
		}
		c.must(<-uploaded)
		l.end()
		for what, conn := range held {
			if err := tryEcho(conn); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if after := len(c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort)})); after != before {
			t.Errorf("%d connections to the echo service became %d", before, after)
		}
		if text := c.vsnat("server", "list"); !strings.Contains(text, "draining") {
			t.Errorf("the order does not stand:\n%s", text)
		}
	})
}

// everyKind opens connections to the echo service: over TCP and UDP, through SNAT, and of a
// server, who gets full NAT.
func (c *cluster) everyKind() map[string]net.Conn {
	c.t.Helper()
	held := make(map[string]net.Conn)
	open := func(what string, n *lab.Node, network, to string) {
		conn, err := n.Dial(c.ctx, network, to)
		c.must(err)
		c.t.Cleanup(func() { conn.Close() })
		held[what] = conn
		c.echo(conn)
	}
	c.must(c.Client.ServeTCP(lab.EchoPort, func(conn *net.TCPConn) {
		defer conn.Close()
		io.Copy(conn, conn)
	}))
	c.must(c.Client.ServeUDP(lab.EchoPort, func(_ net.Addr, b []byte) []byte { return b }))
	for i, n := range c.Clients {
		open(fmt.Sprintf("TCP of client %d", i+1), n, "tcp", c.virtual(lab.EchoPort).String())
		open(fmt.Sprintf("UDP of client %d", i+1), n, "udp", c.virtual(lab.EchoPort).String())
	}
	for _, n := range c.Servers {
		open("through SNAT, TCP of "+n.Name, n, "tcp", at(c.Client, lab.EchoPort).String())
		open("through SNAT, UDP of "+n.Name, n, "udp", at(c.Client, lab.EchoPort).String())
		open("to itself, TCP of "+n.Name, n, "tcp", c.virtual(lab.EchoPort).String())
		open("to itself, UDP of "+n.Name, n, "udp", c.virtual(lab.EchoPort).String())
	}
	return held
}
