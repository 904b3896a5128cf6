// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestEndings: how connections end that the director ends, and that what follows
// them does not wait.
func TestEndings(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Far: true}, nil, func(t *testing.T, c *cluster) {
		c.run("one port, 500 connections", onePortManyTimes)
		c.run("server deleted: reset", serverDeletedReset)
		c.run("server deleted: repick", serverDeletedRepick)
		c.run("server deleted: keep", serverDeletedKeep)
		c.run("idle", idleIsTold)
		if c.io == "packet" {
			c.run("drained", drained)
		}
		c.run("SNAT rule deleted", snatRuleDeleted)
	})
}

// onePortManyTimes opens one connection after the other from one port of the client:
// each follows an entry that is over, and none may wait, which its TCP would tell as
// a SYN sent twice. Every second one ends in good order, the others by a reset.
func onePortManyTimes(t *testing.T, c *cluster) {
	const many = 500
	for range c.Servers { // so that all hosts on the way know each other: that is another wait
		c.mustGet(c.Client, 80)
	}
	local := &net.TCPAddr{IP: c.Client.Addr.AsSlice(), Port: 23_457}
	for i := range many {
		var conn net.Conn
		var err error
		for { // the client's own stack: its last ACK may be on the way
			conn, err = c.Client.DialFrom(c.ctx, "tcp", local, c.virtual(80).String())
			if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
				break
			}
		}
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		if n := retransmitted(t, conn); n != 0 {
			t.Fatalf("connection %d: its SYN was sent %d times", i+1, n+1)
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		if page, err := io.ReadAll(conn); err != nil || !strings.Contains(string(page), "real server") {
			t.Fatalf("connection %d: read %q, %v", i+1, page, err)
		}
		if i%2 == 1 {
			conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	}
	entries := 0
	for _, conn := range c.conns(control.ConnQuery{Service: c.virtual(80)}) {
		if int(conn.Client.Port()) == local.Port {
			entries++
		}
	}
	if entries != 1 {
		t.Errorf("%d entries of one client port", entries)
	}
}

// retransmitted is how often a connection has sent something again.
func retransmitted(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := -1
	if err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Total_retrans)
		}
	}); err != nil || n < 0 {
		t.Fatalf("TCP_INFO: %v", err)
	}
	return n
}

// held is a connection with both of its ends.
type held struct{ client, server net.Conn }

// hold opens a connection to a service at a port, whose first server it adds, and
// waits until both ends have it.
func (c *cluster) hold(port int, flags ...string) held {
	c.t.Helper()
	ends := make(chan *net.TCPConn, 1)
	c.must(c.Servers[0].ServeTCP(port, func(conn *net.TCPConn) { ends <- conn; <-c.t.Context().Done(); conn.Close() }))
	virtual := c.virtual(port).String()
	c.vsnat(append([]string{"service", "add", "tcp", virtual, "-s", "rr"}, flags...)...)
	c.vsnat("server", "add", "tcp", virtual, at(c.Servers[0], port).String())
	h := held{client: c.dialTCP(port)}
	fmt.Fprint(h.client, "x")
	h.server = <-ends
	h.server.SetDeadline(time.Now().Add(limit / 2))
	if _, err := io.ReadFull(h.server, make([]byte, 1)); err != nil {
		c.t.Fatal(err)
	}
	return h
}

// wantReset wants both ends told without saying anything themselves.
func (h held) wantReset(t *testing.T) {
	t.Helper()
	for end, conn := range map[string]net.Conn{"client": h.client, "server": h.server} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the %s reads: %v, want a reset", end, err)
		}
	}
}

// drained: at the deadline both ends of what is left are told, and the client that
// persistence would hold there goes to another server.
func drained(t *testing.T, c *cluster) {
	h := c.hold(2110, "--persistence", "5m")
	virtual, server := c.virtual(2110).String(), at(c.Servers[0], 2110).String()
	c.must(c.Servers[1].ServeTCP(2110, func(conn *net.TCPConn) { fmt.Fprint(conn, "two"); conn.Close() }))
	c.vsnat("server", "add", "tcp", virtual, at(c.Servers[1], 2110).String())
	text := c.vsnat("drain", server, "tcp", virtual, "--deadline", "100ms", "--then", "reset", "--wait")
	if !strings.Contains(text, "drained") {
		t.Errorf("vsnat drain says %q", text)
	}
	h.wantReset(t)
	for range 3 {
		conn := c.dialTCP(2110)
		if answer, err := io.ReadAll(conn); string(answer) != "two" {
			t.Errorf("the next connection reads %q, %v", answer, err)
		}
	}
	c.vsnat("undrain", server, "tcp", virtual)
}

func serverDeletedReset(t *testing.T, c *cluster) {
	h := c.hold(2101, "--on-server-down", "reset")
	c.vsnat("server", "del", "tcp", c.virtual(2101).String(), at(c.Servers[0], 2101).String())
	h.wantReset(t)

	whole := c.hold(2102, "--on-server-down", "reset")
	c.vsnat("service", "del", "tcp", c.virtual(2102).String())
	whole.wantReset(t)

	virtual := c.virtual(2103).String()
	c.vsnat("service", "add", "udp", virtual, "--on-server-down", "reset")
	c.vsnat("server", "add", "udp", virtual, at(c.Servers[0], lab.EchoPort).String())
	conn := c.dialUDP(2103)
	c.exchange(conn, 1, 10)
	c.vsnat("server", "del", "udp", virtual, at(c.Servers[0], lab.EchoPort).String())
	if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the UDP client reads: %v, want refused", err)
	}
}

// serverDeletedRepick has a flow go on at another server, and resets what can't.
func serverDeletedRepick(t *testing.T, c *cluster) {
	h := c.hold(2111, "--on-server-down", "repick")
	c.vsnat("server", "del", "tcp", c.virtual(2111).String(), at(c.Servers[0], 2111).String())
	h.wantReset(t)

	virtual := c.virtual(2112).String()
	c.vsnat("service", "add", "udp", virtual, "--on-server-down", "repick", "-s", "rr")
	for _, server := range c.Servers {
		c.vsnat("server", "add", "udp", virtual, at(server, lab.EchoPort).String())
	}
	conn := c.dialUDP(2112)
	for range c.Servers {
		c.exchange(conn, 3, 10)
		page := c.conns(control.ConnQuery{Service: c.virtual(2112)})
		if len(page) != 1 {
			t.Fatalf("%d entries", len(page))
		}
		c.vsnat("server", "del", "udp", virtual, page[0].Server.String())
	}
}

// serverDeletedKeep is IPVS's way: silence, and the connection goes on when the server
// is back.
func serverDeletedKeep(t *testing.T, c *cluster) {
	h := c.hold(2121, "--on-server-down", "keep")
	server := []string{c.virtual(2121).String(), at(c.Servers[0], 2121).String()}
	c.vsnat(append([]string{"server", "del", "tcp"}, server...)...)
	before := c.drops()["server-gone"]
	fmt.Fprint(h.client, "y")
	c.eventually("the client's segment is dropped", func() bool { return c.drops()["server-gone"] > before })
	c.vsnat(append([]string{"server", "add", "tcp"}, server...)...)
	if _, err := io.ReadFull(h.server, make([]byte, 1)); err != nil {
		t.Errorf("the server reads: %v, want what the client sent again", err)
	}
}

// idleIsTold has a service whose connections are forgotten soon.
func idleIsTold(t *testing.T, c *cluster) {
	c.hold(2131, "--idle", "1s").wantReset(t)
}

// snatRuleDeleted has a connection from inside go on when its rule is deleted: that of
// a host that is no server, by an address that nothing else uses.
func snatRuleDeleted(t *testing.T, c *cluster) {
	network, vip := c.Config.Inside(), c.Config.VIP().String()
	other := c.Config.VIP().Next() // nobody else's
	c.must(c.Far.ServeTCP(2141, func(conn *net.TCPConn) { io.Copy(conn, conn); conn.Close() }))
	host := netip.PrefixFrom(after(network.Addr(), 77), network.Bits())
	c.must(c.Servers[1].AddAddr("eth0", host))
	defer c.Servers[1].DelAddr("eth0", host)
	c.vsnat("snat", "edit", network.String(), other.String())
	local := &net.TCPAddr{IP: host.Addr().AsSlice()}
	conn, err := c.Servers[1].DialFrom(c.ctx, "tcp", local, at(c.Far, 2141).String())
	c.must(err)
	defer conn.Close()
	c.echo(conn)
	c.vsnat("snat", "del", network.String())
	defer c.vsnat("snat", "add", network.String(), vip)
	for range 3 {
		c.echo(conn)
	}
	if got := c.conns(control.ConnQuery{Service: netip.AddrPortFrom(other, 0)}); len(got) != 1 {
		t.Errorf("connections of the deleted rule: %+v", got)
	}
}

func after(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}
