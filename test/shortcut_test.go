// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/iface/shortcut"
	"github.com/vsnat/vsnat/test/lab"
)

// offloaded is site with the kernel forwarding what is in the middle of connections.
func offloaded(c *lab.Cluster, io string) string { return "offload: tcx\n" + site(c, io) }

// noShortcuts is why BPF programs cannot be had here, or nil.
func noShortcuts() error {
	table, err := shortcut.Open(1)
	if err == nil {
		table.Close()
	}
	return err
}

// TestShortcuts moves much through the kernel, which vsnat has told how. Where that
// cannot be had, as by an ordinary user, a director that has to refuses to start, and one
// that may do without does.
func TestShortcuts(t *testing.T) {
	t.Parallel()
	if why := noShortcuts(); why != nil {
		shortcutsRefused(t)
		return
	}
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		t.Parallel()
		onPacket(t, lab.Config{IPv6: ipv6}, offloaded, func(t *testing.T, c *cluster) {
			if h, err := c.control.Health(c.ctx); err != nil || h.Offload != control.OffloadTCX {
				t.Fatalf("offload %q, %v", h.Offload, err)
			}
			c.run("transfers", shortTransfers)
			c.run("to their end", shortToItsEnd)
			c.run("a server is deleted", shortDeleted)
		})
	})
}

func shortcutsRefused(t *testing.T) {
	c := &cluster{Cluster: lab.Start(t, lab.Config{}), t: t, ctx: testContext(t), io: "packet"}
	_, err := c.StartDirector(c.ctx, lab.DirectorOptions{Config: offloaded(c.Cluster, c.io)})
	if err == nil {
		t.Fatal("the director started, although it can load no BPF programs")
	}
	for _, want := range []string{"offload tcx: ", "hint: they need CAP_BPF and CAP_NET_ADMIN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q:\n%v", want, err)
		}
	}
	c.start("offload: auto\n" + site(c.Cluster, c.io))
	h, err := c.control.Health(c.ctx)
	c.must(err)
	if h.Offload != control.OffloadNone || h.Status != "ok" || !strings.Contains(c.director.Logs(), "the kernel forwards nothing by itself") {
		t.Errorf("offload %s, %s, log:\n%s", h.Offload, h.Status, c.director.Logs())
	}
	c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), 4<<20))
}

// shortTransfers: what arrives is what was sent, the kernel forwarded most of it, and what
// is counted for the services is what their link has seen.
func shortTransfers(t *testing.T, c *cluster) {
	const size = 30 << 20
	before, frames := c.counted(), linkCount(t, c)
	c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), size))
	c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), size))
	after, seen := c.counted(), linkCount(t, c)

	if n := after.bytes - before.bytes; n < 2*size*3/4 {
		t.Errorf("the kernel forwarded %d bytes of %d", n, 2*size)
	}
	in, out := after.in.less(before.in), after.out.less(before.out)
	for _, row := range []struct {
		what         string
		bytes, frame uint64
	}{{"in", in.bytes + 14*in.packets, seen.out - frames.out}, {"out", out.bytes + 14*out.packets, seen.in - frames.in}} {
		if apart := max(row.bytes, row.frame) - min(row.bytes, row.frame); apart > 4000 { // what neighbours say, and late ends
			t.Errorf("%s: counted %d bytes of frames, the link %d", row.what, row.bytes, row.frame)
		}
	}
}

// tally is what was counted of all services, and of the kernel's part.
type tally struct {
	bytes   uint64 // that the kernel forwarded
	in, out traffic
}

type traffic struct{ packets, bytes uint64 }

func (t traffic) less(o traffic) traffic { return traffic{t.packets - o.packets, t.bytes - o.bytes} }

func (c *cluster) counted() (k tally) {
	c.t.Helper()
	s, err := c.control.Stats(c.ctx)
	c.must(err)
	k.bytes = s.Events["offloaded-bytes"]
	k.in, k.out = traffic{s.Total.InPackets, s.Total.InBytes}, traffic{s.Total.OutPackets, s.Total.OutBytes}
	return k
}

// linkCount is what the link to the servers has sent and received, in bytes of frames.
func linkCount(t *testing.T, c *cluster) (seen struct{ in, out uint64 }) {
	t.Helper()
	c.must(c.Director.Do(func() error {
		link, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		seen.in, seen.out = link.Attrs().Statistics.RxBytes, link.Attrs().Statistics.TxBytes
		return nil
	}))
	return seen
}

// conn is what the director has of the connection of one of the client's sockets.
func (c *cluster) conn(socket net.Conn) (found control.Conn) {
	c.t.Helper()
	for _, conn := range c.conns(control.ConnQuery{}) {
		if conn.Client.String() == socket.LocalAddr().String() {
			found = conn
		}
	}
	return found
}

// untilOffloaded waits until the kernel forwards what a socket of the client sends and gets.
func (c *cluster) untilOffloaded(socket net.Conn) {
	c.t.Helper()
	c.eventually("the kernel forwards it", func() bool { return slices.Contains(c.conn(socket).Flags, "offloaded") })
}

// shortToItsEnd: when one end has said all, vsnat sees it, and what follows.
func shortToItsEnd(t *testing.T, c *cluster) {
	const size = 4 << 20
	conn := c.dialTCP(lab.EchoPort)
	pause := make(chan bool)
	echoed := make(chan lab.Digest, 1)
	go func() {
		stream := lab.Stream(size)
		io.CopyN(conn, stream, size/2)
		<-pause
		io.Copy(conn, stream)
		conn.CloseWrite()
	}()
	go func() {
		got, _ := lab.ReadDigest(conn) // too little says enough
		echoed <- got
	}()
	c.untilOffloaded(conn)
	close(pause)
	if got, want := <-echoed, lab.StreamDigest(size); got != want {
		t.Errorf("came back: %v, want %v", got, want)
	}
	conn.Close()
	c.eventually("it is over", func() bool { return c.conn(conn).State == "TIME_WAIT" })
	if flags := c.conn(conn).Flags; slices.Contains(flags, "offloaded") {
		t.Errorf("the kernel still forwards it: %q", flags)
	}
	// One that the client breaks off is over as well: its reset is in the window.
	conn = c.dialTCP(lab.SourcePort)
	fmt.Fprintln(conn, 1<<40)
	io.CopyN(io.Discard, conn, size)
	c.untilOffloaded(conn)
	io.CopyN(io.Discard, conn, size)
	conn.SetLinger(0)
	conn.Close()
	c.eventually("it is over", func() bool { return c.conn(conn).State == "CLOSE" })
}

// shortDeleted: with its server a connection ends at once, for both ends.
func shortDeleted(t *testing.T, c *cluster) {
	const port = 2120
	accepted := make(chan *net.TCPConn, 1)
	c.must(c.Servers[0].ServeTCP(port, func(conn *net.TCPConn) { accepted <- conn }))
	virtual := c.virtual(port).String()
	c.vsnat("service", "add", "tcp", virtual, "--on-server-down", "reset")
	c.vsnat("server", "add", "tcp", virtual, at(c.Servers[0], port).String())
	client := c.dialTCP(port)
	server := <-accepted
	defer server.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(server, lab.Stream(1<<40))
		sent <- err
	}()
	received := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, client)
		received <- err
	}()
	c.untilOffloaded(client)
	c.vsnat("server", "delete", "tcp", virtual, at(c.Servers[0], port).String())
	for _, end := range []chan error{sent, received} {
		select {
		case err := <-end:
			if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("an end says %v", err)
			}
		case <-time.After(2 * time.Second):
			t.Error("an end has heard nothing after 2 s")
		}
	}
}
