// SPDX-License-Identifier: Apache-2.0

package test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// transferSize is the size of the transfers, in bytes. A TUN device has no
// super-packets, and takes its time.
func transferSize(io string) int64 {
	if io == "tun" {
		return 50 << 20
	}
	return 200 << 20
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		c.run("download", func(t *testing.T, c *cluster) {
			c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), transferSize(c.io)))
		})
		c.run("upload", func(t *testing.T, c *cluster) {
			c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), transferSize(c.io)))
		})
		c.run("both ways at once", func(t *testing.T, c *cluster) {
			c.echoStream(transferSize(c.io) / 4)
		})
	})
}

// echoStream sends so many bytes, closes its half, and wants all of them back.
func (c *cluster) echoStream(size int64) {
	c.t.Helper()
	conn := c.dialTCP(lab.EchoPort)
	go func() {
		io.Copy(conn, lab.Stream(size))
		conn.CloseWrite()
	}()
	got, err := lab.ReadDigest(conn)
	c.must(err)
	if want := lab.StreamDigest(size); got != want {
		c.t.Errorf("came back: %v, want %v", got, want)
	}
}

// TestPathMTU lowers the MTU of a link during a transfer through it, of each link
// on the way in turn. The sender must learn of it, and go on with smaller segments.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		upload bool
		link   func(c *cluster) (*lab.Node, string)
	}{
		{"download, director's outside link", false, func(c *cluster) (*lab.Node, string) { return c.Director, "eth0" }},
		{"download, router behind the director", false, func(c *cluster) (*lab.Node, string) { return c.Router, "eth0" }},
		{"upload, director's inside link", true, func(c *cluster) (*lab.Node, string) { return c.Director, "eth1" }},
		{"upload, router before the director", true, func(c *cluster) (*lab.Node, string) { return c.Router, "eth1" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachFamily(t, lab.Config{Servers: 1, Router: true}, nil, func(t *testing.T, c *cluster) {
				mtu := 1000
				if c.Config.IPv6 {
					mtu = 1300
				}
				node, link := test.link(c)
				shrinkDuringTransfer(t, c, test.upload, mtu, func() { c.must(node.SetMTU(link, mtu)) })
			})
		})
	}
}

// shrinkDuringTransfer calls shrink when a part of a transfer is over, and wants
// the sender to learn of the new path MTU while it sends, and all to arrive.
func shrinkDuringTransfer(t *testing.T, c *cluster, upload bool, mtu int, shrink func()) {
	const port, part = 2100, 1 << 20
	accepted := make(chan *net.TCPConn, 1)
	c.serveTCP(port, func(conn *net.TCPConn) { accepted <- conn })
	client := c.dialTCP(port)
	server := <-accepted
	defer server.Close()
	server.SetDeadline(time.Now().Add(limit / 2))

	from, to := server, client
	if upload {
		from, to = client, server
	}
	if got := pathMTUOf(t, from); got != 1500 {
		t.Fatalf("the sender starts with a path MTU of %d", got)
	}
	type outcome struct {
		lab.Digest
		err error
	}
	arrived := make(chan outcome, 1)
	go func() {
		d, err := lab.ReadDigest(to)
		arrived <- outcome{d, err}
	}()

	stream, sent := lab.Stream(1<<40), int64(0)
	send := func() {
		t.Helper()
		n, err := io.CopyN(from, stream, part)
		sent += n
		c.must(err)
	}
	send()
	shrink()
	// The director hears of a change of its links a moment later.
	c.eventually("the sender knows the path MTU", func() bool { send(); return pathMTUOf(t, from) == mtu })
	send()
	c.must(from.CloseWrite())
	got := <-arrived
	c.must(got.err)
	if want := lab.StreamDigest(sent); got.Digest != want {
		t.Errorf("arrived: %v, want %v", got.Digest, want)
	}
}

// pathMTUOf is what a connection's kernel knows of the way to its peer.
func pathMTUOf(t *testing.T, conn *net.TCPConn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if conn.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	var mtu int
	e := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, option) })
	if e != nil || err != nil {
		t.Fatal(e, err)
	}
	return mtu
}
