// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

func TestTCP(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		c.run("round robin", roundRobin)
		c.run("listed by ipvsadm", listed)
		c.run("port change", portChange)
		c.run("half-close by the client", halfCloseByClient)
		c.run("half-close by the server", halfCloseByServer)
		c.run("reset by the client", resetByClient)
		c.run("reset by the server", resetByServer)
		c.run("refused by the server", refusedByServer)
		c.run("same port again", samePortAgain)
		c.run("no server", noServer)
		c.run("a thousand connections", thousandConnections)
	})
}

// roundRobin starts with the server that was added last.
func roundRobin(t *testing.T, c *cluster) {
	for i := range 9 {
		want := c.Config.ServerPage(3 - i%3)
		if got := c.mustGet(c.Client, 80); got != want {
			t.Errorf("request %d: %q, want %q", i+1, got, want)
		}
	}
}

func listed(t *testing.T, c *cluster) {
	got := c.ipvsadm("-L", "-n")
	for _, want := range []string{"TCP  " + c.virtual(80).String() + " rr", "-> " + at(c.Servers[2], 80).String() + " "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func portChange(t *testing.T, c *cluster) {
	c.vsnat("service", "add", "tcp", c.virtual(8081).String(), "--scheduler", "rr")
	c.vsnat("server", "add", "tcp", c.virtual(8081).String(), at(c.Servers[0], 8080).String())
	if got, want := c.mustGet(c.Client, 8081), c.Config.ServerPage(1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// halfCloseByClient sends, closes its half, and then reads all of an answer.
func halfCloseByClient(t *testing.T, c *cluster) { c.echoStream(1 << 20) }

// halfCloseByServer has the server close its half first; what the client sends
// after that must arrive.
func halfCloseByServer(t *testing.T, c *cluster) {
	const port, size = 2001, 1 << 20
	digests := make(chan lab.Digest, 1)
	c.serveTCP(port, func(conn *net.TCPConn) {
		defer conn.Close()
		fmt.Fprintln(conn, "bye")
		conn.CloseWrite()
		d, err := lab.ReadDigest(conn)
		if err != nil {
			t.Error(err)
		}
		digests <- d
	})

	conn := c.dialTCP(port)
	if b, err := io.ReadAll(conn); err != nil || string(b) != "bye\n" {
		t.Fatalf("read %q, %v", b, err)
	}
	_, err := io.Copy(conn, lab.Stream(size))
	c.must(err)
	c.must(conn.CloseWrite())
	if got, want := <-digests, lab.StreamDigest(size); got != want {
		t.Errorf("after its half-close the server got %v, want %v", got, want)
	}
}

func resetByClient(t *testing.T, c *cluster) {
	const port = 2002
	ends := make(chan error, 1)
	c.serveTCP(port, func(conn *net.TCPConn) {
		defer conn.Close()
		conn.Write([]byte("x"))
		_, err := io.ReadAll(conn)
		ends <- err
	})
	conn := c.dialTCP(port)
	_, err := io.ReadFull(conn, make([]byte, 1))
	c.must(err)
	conn.SetLinger(0)
	conn.Close()
	if err := <-ends; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server read %v, want a reset", err)
	}
	c.wantState(port, "CLOSE")
}

func resetByServer(t *testing.T, c *cluster) {
	const port = 2003
	c.serveTCP(port, func(conn *net.TCPConn) {
		io.ReadFull(conn, make([]byte, 1))
		conn.SetLinger(0)
		conn.Close()
	})
	conn := c.dialTCP(port)
	conn.Write([]byte("x"))
	if _, err := io.ReadAll(conn); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
	c.wantState(port, "CLOSE")
}

// wantState waits for the state of the only connection to a port of the VIP.
func (c *cluster) wantState(port int, want string) {
	c.t.Helper()
	var got []control.Conn
	defer func() {
		if c.t.Failed() {
			c.t.Logf("connections: %+v", got)
		}
	}()
	c.eventually("state "+want, func() bool {
		got = c.conns(control.ConnQuery{Service: c.virtual(port)})
		return len(got) == 1 && got[0].State == want
	})
}

// refusedByServer has a service whose server does not listen.
func refusedByServer(t *testing.T, c *cluster) {
	c.vsnat("service", "add", "tcp", c.virtual(2004).String())
	c.vsnat("server", "add", "tcp", c.virtual(2004).String(), at(c.Servers[0], 2004).String())
	if _, err := c.Client.Dial(c.ctx, "tcp", c.virtual(2004).String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial: %v, want refused", err)
	}
}

// samePortAgain opens a connection from the port that another one has just
// left: in good order, by the server first, which leaves the director's entry in
// TIME_WAIT, and by a reset.
func samePortAgain(t *testing.T, c *cluster) {
	local := &net.TCPAddr{IP: c.Client.Addr.AsSlice(), Port: 23456}
	for i, leave := range []string{"order", "reset", "order", "order"} {
		var conn net.Conn
		var err error
		c.eventually("the client's port is free", func() bool { // its last ACK may be on the way
			conn, err = c.Client.DialFrom(c.ctx, "tcp", local, c.virtual(80).String())
			return !errors.Is(err, unix.EADDRINUSE)
		})
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		if leave == "reset" {
			conn.(*net.TCPConn).SetLinger(0)
		} else if page, err := io.ReadAll(conn); err != nil || !strings.Contains(string(page), "real server") {
			t.Errorf("connection %d: read %q, %v", i+1, page, err)
		}
		conn.Close()
	}
}

// noServer has the default answer and the other one: ICMP port unreachable,
// which connect reports as refused too, and a reset.
func noServer(t *testing.T, c *cluster) {
	for port, setting := range map[int]string{2005: "icmp", 2006: "reset"} {
		c.vsnat("service", "add", "tcp", c.virtual(port).String(), "--no-server", setting)
		wire := c.capture(c.Client, "eth0")
		if _, err := c.Client.Dial(c.ctx, "tcp", c.virtual(port).String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: dial: %v, want refused", setting, err)
		}
		got := wire.answers(c.Config.VIP())
		want := map[string]int{"icmp": 0, "reset": 0}
		want[setting] = 1
		if got.icmp != want["icmp"] || got.rst != want["reset"] {
			t.Errorf("%s: the client got %+v", setting, got)
		}
	}
}

// thousandConnections are open at once, each with data both ways, before the
// first one closes.
func thousandConnections(t *testing.T, c *cluster) {
	const many = 1000
	conns := make([]net.Conn, many)
	var group sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range conns {
		group.Add(1)
		go func() {
			defer group.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			if t.Failed() {
				return // one is enough to know
			}
			conn, err := c.Client.Dial(c.ctx, "tcp", c.virtual(lab.EchoPort).String())
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			conns[i] = conn
		}()
	}
	group.Wait()
	if t.Failed() {
		return
	}
	if n := len(c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort), State: "ESTABLISHED"})); n != many {
		t.Errorf("%d established connections, want %d", n, many)
	}
	for _, conn := range conns {
		c.echo(conn)
		conn.Close()
	}
}

// serveTCP makes a service at a port of the VIP with the first server, which
// serve answers there.
func (c *cluster) serveTCP(port int, serve func(*net.TCPConn)) {
	c.t.Helper()
	c.must(c.Servers[0].ServeTCP(port, serve))
	c.vsnat("service", "add", "tcp", c.virtual(port).String())
	c.vsnat("server", "add", "tcp", c.virtual(port).String(), at(c.Servers[0], port).String())
}

// dialTCP connects the client to a port of the VIP until the end of the test.
func (c *cluster) dialTCP(port int) *net.TCPConn {
	c.t.Helper()
	conn, err := c.Client.Dial(c.ctx, "tcp", c.virtual(port).String())
	c.must(err)
	c.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit / 2))
	return conn.(*net.TCPConn)
}

// echo sends a few bytes to an echo service and wants them back.
func (c *cluster) echo(conn net.Conn) {
	c.t.Helper()
	c.must(tryEcho(conn))
}

func tryEcho(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(limit / 2))
	sent := []byte(time.Now().String())
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != string(sent) {
		return fmt.Errorf("echo %q, want %q", got, sent)
	}
	return nil
}
