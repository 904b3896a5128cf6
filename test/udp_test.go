// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

func TestUDP(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		c.run("flows in turn", udpFlows)
		whole := 1500 - 28 // the largest datagram that is no fragment
		if c.Config.IPv6 {
			whole = 1500 - 48
		}
		for _, size := range []int{0, 1, whole, whole + 1, 8 << 10, 60_000} {
			c.run(fmt.Sprintf("%d bytes", size), func(t *testing.T, c *cluster) {
				c.exchange(c.dialUDP(lab.EchoPort), 5, size)
			})
		}
		if c.Config.IPv6 {
			c.run("checksum zero", checksumMissing)
		} else {
			c.run("checksum zero", checksumZero)
		}
		c.run("segments in one call", udpSegments)
		c.run("port closed", udpPortClosed)
		c.run("no server", udpNoServer)
	})
}

// udpFlows go to the servers in turn, and each stays with its own.
func udpFlows(t *testing.T, c *cluster) {
	var servers []netip.Addr
	for range 6 {
		conn := c.dialUDP(lab.EchoPort)
		c.exchange(conn, 3, 100)
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		for _, e := range c.conns(control.ConnQuery{Proto: control.UDP, Service: c.virtual(lab.EchoPort)}) {
			if e.Client == local {
				servers = append(servers, e.Server.Addr())
			}
		}
	}
	third, second, first := c.Servers[2].Addr, c.Servers[1].Addr, c.Servers[0].Addr
	if want := []netip.Addr{third, second, first, third, second, first}; !slices.Equal(servers, want) {
		t.Errorf("servers %v, want %v", servers, want)
	}
}

// checksumZero stays zero both ways, and the datagrams arrive.
func checksumZero(t *testing.T, c *cluster) {
	const port = 2200
	server, err := c.Servers[0].ListenPacket("udp4", fmt.Sprintf(":%d", port))
	c.must(err)
	defer server.Close()
	c.setOption(server, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	go func() {
		buffer := make([]byte, 2000)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			server.WriteTo(buffer[:n], from)
		}
	}()
	c.serviceUDP(port)

	inside, outside := c.capture(c.Servers[0], "eth0"), c.capture(c.Client, "eth0")
	conn := c.dialUDP(port)
	c.setOption(conn, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	c.exchange(conn, 3, 333)
	for name, w := range map[string]*wire{"server": inside, "client": outside} {
		w.wait(3, "datagrams without a checksum at the "+name, func(p gopacket.Packet) bool {
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if ok && udp.Checksum != 0 {
				t.Errorf("the %s got a checksum of %#x", name, udp.Checksum)
			}
			return ok
		})
	}
}

// checksumMissing is what IPv6 does not allow (RFC 8200, 8.1): the datagram goes no
// further, and is counted.
func checksumMissing(t *testing.T, c *cluster) {
	before := c.drops()["udp-header"]
	conn := c.dialUDP(lab.EchoPort)
	c.setOption(conn, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1)
	_, err := conn.Write([]byte("no checksum"))
	c.must(err)
	c.eventually("the datagram is counted", func() bool { return c.drops()["udp-header"] == before+1 })
	c.setOption(conn, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 0)
	c.exchange(conn, 1, 100) // nothing else came back
}

// setOption sets an option of a socket.
func (c *cluster) setOption(conn net.PacketConn, level, option, value int) {
	c.t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	c.must(err)
	c.must(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }))
	c.must(err)
}

// udpSegments sends one buffer that the kernel cuts into datagrams, as late as
// it can: the director meets it whole.
func udpSegments(t *testing.T, c *cluster) {
	const segment, many = 1200, 20
	conn := c.dialUDP(lab.EchoPort)
	c.setOption(conn, unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment)
	want, err := io.ReadAll(lab.Stream(segment * many))
	c.must(err)
	_, err = conn.Write(want)
	c.must(err)
	var got []byte
	buffer := make([]byte, 1<<16)
	for range many {
		n, err := conn.Read(buffer)
		c.must(err)
		if n != segment {
			t.Errorf("a datagram of %d bytes, want %d", n, segment)
		}
		got = append(got, buffer[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back differs")
	}
}

// udpPortClosed has a server that does not listen: its ICMP error reaches the
// client as one of the VIP, and shows nothing of the inside.
func udpPortClosed(t *testing.T, c *cluster) {
	const port = 2201
	c.serviceUDP(port)
	w := c.refusesDatagram(port)
	for _, p := range w.seen(func(gopacket.Packet) bool { return true }) {
		if server := c.Servers[0].Addr.AsSlice(); bytes.Contains(p.Data(), server) {
			t.Errorf("the server's address leaves the cluster:\n%v", p)
		}
	}
}

// refusesDatagram wants a datagram of the client refused by one ICMP error of the VIP, and
// returns what was captured at the client.
func (c *cluster) refusesDatagram(port int) *wire {
	c.t.Helper()
	w := c.capture(c.Client, "eth0")
	conn := c.dialUDP(port)
	_, err := conn.Write([]byte("anybody there?"))
	c.must(err)
	if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNREFUSED) {
		c.t.Errorf("read: %v, want refused", err)
	}
	if a := w.answers(c.Config.VIP()); a != (answers{icmp: 1}) {
		c.t.Errorf("the client got %+v, want one ICMP error of the VIP", a)
	}
	return w
}

func udpNoServer(_ *testing.T, c *cluster) {
	const port = 2202
	c.vsnat("service", "add", "udp", c.virtual(port).String())
	c.refusesDatagram(port)
}

// serviceUDP makes a service at a port of the VIP with the first server.
func (c *cluster) serviceUDP(port int) {
	c.t.Helper()
	c.vsnat("service", "add", "udp", c.virtual(port).String())
	c.vsnat("server", "add", "udp", c.virtual(port).String(), at(c.Servers[0], port).String())
}

// dialUDP makes a socket of the client, connected to a port of the VIP.
func (c *cluster) dialUDP(port int) interface {
	net.Conn
	net.PacketConn
} {
	c.t.Helper()
	conn, err := c.Client.Dial(c.ctx, "udp", c.virtual(port).String())
	c.must(err)
	c.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit / 4))
	return conn.(*net.UDPConn)
}

// exchange sends datagrams to an echo service, one after the other, and wants
// each back.
func (c *cluster) exchange(conn net.Conn, many, size int) {
	c.t.Helper()
	buffer := make([]byte, 1<<16)
	for i := range many {
		sent, err := io.ReadAll(lab.Stream(int64(size + i)))
		c.must(err)
		sent = sent[i:]
		_, err = conn.Write(sent)
		c.must(err)
		n, err := conn.Read(buffer)
		if err != nil {
			c.t.Fatalf("datagram %d of %d bytes: %v", i+1, size, err)
		}
		if !bytes.Equal(buffer[:n], sent) {
			c.t.Fatalf("datagram %d of %d bytes came back with %d bytes, or different ones", i+1, size, n)
		}
	}
}
