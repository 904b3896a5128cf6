// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

func TestPersistence(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		c.run("one server", persistOne)
		c.run("all ports", persistAllPorts)
		c.run("one packet", onePacket)
		c.run("one packet, server of two services", onePacketShared)
	})
}

// persistOne has a client come back: it meets the server that it met, also when
// that one is quiesced; other clients are served in turn.
func persistOne(t *testing.T, c *cluster) {
	const port = 2300
	vip := c.virtual(port).String()
	c.vsnat("service", "add", "tcp", vip, "--scheduler", "rr", "--persistence", "1m")
	for _, n := range c.Servers {
		c.vsnat("server", "add", "tcp", vip, at(n, lab.PagePort).String())
	}
	first := c.mustGet(c.Client, port)
	if first != c.Config.ServerPage(3) {
		t.Errorf("the first page is %q", first)
	}
	for range 5 {
		if page := c.mustGet(c.Client, port); page != first {
			t.Errorf("then %q, first %q", page, first)
		}
	}
	c.vsnat("server", "edit", "tcp", vip, at(c.Servers[2], lab.PagePort).String(), "--weight", "0")
	if page := c.mustGet(c.Client, port); page != first {
		t.Errorf("quiesced: %q, first %q", page, first)
	}
	if page := c.mustGet(c.Servers[0], port); page == first {
		t.Error("a client that is new met a quiesced server")
	}
	var states []string
	for _, e := range c.conns(control.ConnQuery{Service: c.virtual(port)}) {
		if e.Kind == "template" {
			states = append(states, fmt.Sprintf("%s %s %d", e.State, e.Client.Addr(), e.Client.Port()))
		}
	}
	slices.Sort(states)
	want := []string{fmt.Sprintf("ASSURED %s 0", c.Servers[0].Addr), fmt.Sprintf("ASSURED %s 0", c.Client.Addr)}
	if slices.Sort(want); !slices.Equal(states, want) {
		t.Errorf("templates %q, want %q", states, want)
	}
	c.vsnat("server", "delete", "tcp", vip, at(c.Servers[2], lab.PagePort).String())
	if page := c.mustGet(c.Client, port); page == first {
		t.Error("the server is deleted, and answers")
	}
}

// persistAllPorts has one service for ports that nobody named: the client meets
// one server at all of them.
func persistAllPorts(t *testing.T, c *cluster) {
	ports := []int{2310, 2311, 2312}
	for i, n := range c.Servers {
		for _, port := range ports {
			c.must(n.ServeTCP(port, func(conn *net.TCPConn) {
				fmt.Fprintf(conn, "%d:%d", i, port)
				conn.CloseWrite()
			}))
		}
	}
	vip := c.virtual(0).String()
	c.vsnat("service", "add", "tcp", vip, "--scheduler", "rr", "--persistence", "1m")
	for _, n := range c.Servers {
		c.vsnat("server", "add", "tcp", vip, at(n, 0).String())
	}
	for range 2 {
		for _, port := range ports {
			conn := c.dialTCP(port)
			b := make([]byte, 100)
			n, err := conn.Read(b)
			c.must(err)
			if want := fmt.Sprintf("2:%d", port); string(b[:n]) != want {
				t.Errorf("port %d: %s, want %s", port, b[:n], want)
			}
		}
	}
	if page := c.mustGet(c.Client, 80); page == "" {
		t.Error("the service of port 80 has nothing to say")
	}
	c.vsnat("service", "delete", "tcp", vip)
}

// onePacket has each datagram of one socket answered, by the servers in turn. The
// socket is connected: its kernel takes answers of the VIP alone.
func onePacket(t *testing.T, c *cluster) {
	const port = 2320
	vip := c.virtual(port).String()
	c.vsnat("service", "add", "udp", vip, "--scheduler", "rr", "--one-packet")
	for _, n := range c.Servers {
		c.must(n.ServeUDP(port, func(_ net.Addr, datagram []byte) []byte { return datagram }))
		c.vsnat("server", "add", "udp", vip, at(n, port).String())
	}
	conn := c.dialUDP(port)
	c.exchange(conn, 9, 100)
	c.exchange(conn, 3, 8<<10) // in fragments
	if list := c.conns(control.ConnQuery{Proto: control.UDP, Service: c.virtual(port)}); len(list) != 0 {
		t.Errorf("entries: %+v", list)
	}
	c.wantInTurn(port, 4)
}

// onePacketShared has servers that a service of the ordinary kind has too: answers
// find their way by an entry for each server.
func onePacketShared(t *testing.T, c *cluster) {
	const port = 2321
	vip := c.virtual(port).String()
	c.vsnat("service", "add", "udp", vip, "--scheduler", "rr", "--one-packet")
	for _, n := range c.Servers {
		c.vsnat("server", "add", "udp", vip, at(n, lab.EchoPort).String())
	}
	one, other := c.dialUDP(port), c.dialUDP(lab.EchoPort)
	for range 3 {
		c.exchange(one, 3, 100)
		c.exchange(other, 3, 100)
	}
	list := c.conns(control.ConnQuery{Proto: control.UDP, Service: c.virtual(port)})
	for _, e := range list {
		if e.Kind != "answers" {
			t.Errorf("entry %+v", e)
		}
	}
	if len(list) != 3 {
		t.Errorf("%d entries", len(list))
	}
	c.wantInTurn(port, 3)
}

// wantInTurn wants n connections of a UDP service at each of its servers, and none
// of them left.
func (c *cluster) wantInTurn(port int, n uint64) {
	c.t.Helper()
	list, err := c.control.Services(c.ctx)
	c.must(err)
	for _, v := range list {
		if v.Proto != control.UDP || v.Address != c.virtual(port) {
			continue
		}
		for _, s := range v.Servers {
			if s.Stats.Conns != n || s.Active+s.Inactive != 0 {
				c.t.Errorf("server %v: %d connections, %d left; want %d", s.Address, s.Stats.Conns, s.Active+s.Inactive, n)
			}
		}
		return
	}
	c.t.Errorf("no service at port %d", port)
}
