// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

func TestSNAT(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Far: true}, nil, func(t *testing.T, c *cluster) {
		for _, peer := range []*lab.Node{c.Client, c.Far} {
			c.run("to the "+peer.Name, func(t *testing.T, c *cluster) { snatPeer(t, c, peer) })
		}
		c.run("two hosts, one port", twoHostsOnePort)
		c.run("one port, two peers", onePortTwoPeers)
		c.run("a port of a service", portOfService)
		c.run("nothing leaves unchanged", nothingLeavesUnchanged)
		c.run("large", func(t *testing.T, c *cluster) {
			c.must(c.Far.ServeTCP(lab.SinkPort, func(conn *net.TCPConn) {
				defer conn.Close()
				if d, err := lab.ReadDigest(conn); err == nil {
					fmt.Fprintln(conn, d)
				}
			}))
			c.must(c.Servers[1].Upload(c.ctx, netip.AddrPortFrom(c.Far.Addr, lab.SinkPort), 20<<20))
		})
	})
}

// snatPeer has each server talk to a peer, which must see the VIP.
func snatPeer(t *testing.T, c *cluster, peer *lab.Node) {
	vip := c.Config.VIP().String()
	for _, server := range c.Servers {
		page, err := server.Get(c.ctx, fmt.Sprintf("http://%v/", at(peer, lab.WhoPort)))
		c.must(err)
		if host, _, _ := net.SplitHostPort(page); host != vip {
			t.Errorf("%s sees TCP of %s come from %s, want %s", peer.Name, server.Name, page, vip)
		}
		who := c.whoUDP(server, nil, peer)
		if who.Addr() != c.Config.VIP() {
			t.Errorf("%s sees UDP of %s come from %v, want %s", peer.Name, server.Name, who, vip)
		}
		for _, size := range []int{56, 1400, 8 << 10} {
			c.mustPing(server, peer.Addr, 7, size) // the same id from each: echo ids are ports
		}
	}
}

// keptPort and those after it are taken by the tests alone: the hosts' own
// sockets get ports from 32768 on, and a mapping outlives its socket.
const keptPort = 21_000

// twoHostsOnePort keeps connections apart that differ in nothing but the host
// that opened them.
func twoHostsOnePort(t *testing.T, c *cluster) {
	local := &net.UDPAddr{Port: keptPort}
	first, second := c.whoUDP(c.Servers[0], local, c.Far), c.whoUDP(c.Servers[1], local, c.Far)
	if first.Port() != keptPort {
		t.Errorf("the port was free, and became %v", first)
	}
	if second == first {
		t.Errorf("two hosts share %v", first)
	}
	if again := c.whoUDP(c.Servers[1], local, c.Far); again != second {
		t.Errorf("the second host was %v, and is %v now", second, again)
	}
}

// onePortTwoPeers: one inside endpoint is one outside endpoint to everybody.
func onePortTwoPeers(t *testing.T, c *cluster) {
	local := &net.UDPAddr{Port: keptPort + 1}
	// Taken by another host, so that the port must change.
	if other := c.whoUDP(c.Servers[2], local, c.Far); int(other.Port()) != local.Port {
		t.Errorf("the port was free, and became %v", other)
	}
	a, b := c.whoUDP(c.Servers[1], local, c.Far), c.whoUDP(c.Servers[1], local, c.Client)
	if a != b || int(a.Port()) == local.Port {
		t.Errorf("one endpoint is %v to one peer and %v to another", a, b)
	}
}

// portOfService is never handed out: here it is the one that a host asks for.
func portOfService(t *testing.T, c *cluster) {
	const port = 8080
	who := c.whoUDP(c.Servers[0], &net.UDPAddr{Port: keptPort + 2}, c.Far) // a port of no service is kept
	if who.Port() != keptPort+2 {
		t.Errorf("port %d became %v", keptPort+2, who)
	}
	c.vsnat("service", "add", "udp", c.virtual(port).String())
	if who := c.whoUDP(c.Servers[0], &net.UDPAddr{Port: port}, c.Far); who.Port() == port {
		t.Errorf("%v, the address of a service, was handed out", who)
	}
}

// nothingLeavesUnchanged has a server send what belongs to no connection: no
// packet may leave the cluster with an inside address.
func nothingLeavesUnchanged(t *testing.T, c *cluster) {
	server := c.Servers[0]
	inside, outside := c.capture(server, "eth0"), c.capture(c.Client, "eth0")
	gateway := c.gatewayMAC()
	ether := ethernet(inside.mac, gateway, server.Addr)
	ip := func(proto layers.IPProtocol, to netip.Addr) gopacket.SerializableLayer {
		return ipHeader(server.Addr, to, proto, 0)
	}
	for _, to := range []netip.Addr{c.Client.Addr, c.Far.Addr} {
		for _, tcp := range []layers.TCP{
			{SrcPort: 80, DstPort: 50_000, ACK: true, Seq: 5, Ack: 6},
			{SrcPort: 80, DstPort: 50_001, SYN: true, ACK: true, Seq: 5, Ack: 6},
			{SrcPort: 80, DstPort: 50_002, RST: true, Seq: 5},
			{SrcPort: 9999, DstPort: 50_003, FIN: true, ACK: true, Seq: 5, Ack: 6},
		} {
			inside.send(frame(t, ether, ip(layers.IPProtocolTCP, to), &tcp, gopacket.Payload("stray")))
		}
		inside.send(frame(t, ether, ip(layers.IPProtocolUDP, to), &layers.UDP{SrcPort: lab.EchoPort, DstPort: 50_004}, gopacket.Payload("stray")))
		inside.send(frame(t, ether, ip(layers.IPProtocolSCTP, to), gopacket.Payload("0123456789abcdef")))
	}
	time.Sleep(settle)
	for _, p := range outside.seen(func(p gopacket.Packet) bool { return c.Config.Inside().Contains(source(p)) }) {
		t.Errorf("left the cluster:\n%v", p)
	}
}

// TestStrays has servers that no SNAT rule is about: a host that forwards nothing lets
// nothing of theirs out, and one that forwards lets it out as it does without us.
func TestStrays(t *testing.T) {
	t.Parallel()
	for _, forward := range []bool{false, true} {
		configure := func(c *lab.Cluster, io string) string {
			text := site(c, io)
			return text[:strings.Index(text, "snat:\n")]
		}
		t.Run(fmt.Sprintf("forwarding %t", forward), func(t *testing.T) {
			eachFamily(t, lab.Config{Forward: forward}, configure, func(t *testing.T, c *cluster) {
				server := c.Servers[0]
				inside, outside := c.capture(server, "eth0"), c.capture(c.Client, "eth0")
				ip := func(proto layers.IPProtocol) gopacket.SerializableLayer {
					return ipHeader(server.Addr, c.Client.Addr, proto, 0)
				}
				ether := ethernet(inside.mac, c.gatewayMAC(), server.Addr)
				inside.send(frame(t, ether, ip(layers.IPProtocolUDP), &layers.UDP{SrcPort: 50_005, DstPort: 50_006}, gopacket.Payload("stray")))
				inside.send(frame(t, ether, ip(layers.IPProtocolTCP), &layers.TCP{SrcPort: 50_007, DstPort: 50_008, SYN: true}))
				roundRobin(t, c)
				left := func(p gopacket.Packet) bool { return c.Config.Inside().Contains(source(p)) }
				if forward {
					outside.wait(2, "strays of a server", left)
					return
				}
				time.Sleep(settle)
				for _, p := range outside.seen(left) {
					t.Errorf("left the cluster:\n%v", p)
				}
			})
		})
	}
}

// gatewayMAC is where frames of the servers to the gateway go.
func (c *cluster) gatewayMAC() net.HardwareAddr {
	c.t.Helper()
	link := "eth1"
	if c.Config.OneArm {
		link = "eth0"
	}
	nic, err := c.Director.Interface(link)
	c.must(err)
	return nic.HardwareAddr
}

// whoUDP asks a peer as whom it sees a node's socket.
func (c *cluster) whoUDP(n *lab.Node, local *net.UDPAddr, peer *lab.Node) netip.AddrPort {
	c.t.Helper()
	return c.whoUDPAt(n, local, at(peer, lab.WhoPort))
}

// whoUDPAt is whoUDP of any endpoint.
func (c *cluster) whoUDPAt(n *lab.Node, local *net.UDPAddr, peer netip.AddrPort) netip.AddrPort {
	c.t.Helper()
	var from net.Addr
	if local != nil {
		from = local
	}
	conn, err := n.DialFrom(c.ctx, "udp", from, peer.String())
	c.must(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit / 4))
	_, err = conn.Write([]byte("who am I?"))
	c.must(err)
	buffer := make([]byte, 100)
	k, err := conn.Read(buffer)
	c.must(err)
	who, err := netip.ParseAddrPort(strings.TrimSpace(string(buffer[:k])))
	c.must(err)
	return who
}

// TestHairpin has the VIP used from inside: by a real server, which may get its
// own answer, and by another host of the servers' network.
func TestHairpin(t *testing.T) {
	t.Parallel()
	// The fourth server is in no service.
	configure := func(c *lab.Cluster, io string) string {
		text := site(c, io)
		for _, port := range []int{80, 8080, lab.EchoPort, lab.SinkPort, lab.SourcePort} {
			text = strings.ReplaceAll(text, fmt.Sprintf("      - %q\n", at(c.Servers[3], port)), "")
			text = strings.ReplaceAll(text, fmt.Sprintf("      - %v\n", at(c.Servers[3], port)), "")
		}
		return text
	}
	for name, config := range map[string]lab.Config{"two arms": {Servers: 4}, "one arm": {Servers: 4, OneArm: true}} {
		t.Run(name, func(t *testing.T) {
			eachFamily(t, config, configure, func(t *testing.T, c *cluster) {
				for _, client := range []*lab.Node{c.Servers[0], c.Servers[3]} {
					c.run("TCP by "+client.Name, func(t *testing.T, c *cluster) {
						seen := make(map[string]int)
						for range 6 {
							seen[c.mustGet(client, 80)]++
						}
						for i := 1; i <= 3; i++ {
							if seen[c.Config.ServerPage(i)] != 2 {
								t.Errorf("server %d answered %d of 6 requests, want 2", i, seen[c.Config.ServerPage(i)])
							}
						}
						c.must(client.Upload(c.ctx, c.virtual(lab.SinkPort), 4<<20))
						c.must(client.Download(c.ctx, c.virtual(lab.SourcePort), 4<<20))
					})
					c.run("UDP by "+client.Name, func(t *testing.T, c *cluster) {
						for _, size := range []int{10, 8 << 10} {
							for range 3 {
								conn, err := client.Dial(c.ctx, "udp", c.virtual(lab.EchoPort).String())
								c.must(err)
								conn.SetDeadline(time.Now().Add(limit / 4))
								c.exchange(conn, 2, size)
								conn.Close()
							}
						}
					})
					c.run("ping by "+client.Name, func(t *testing.T, c *cluster) {
						c.mustPing(client, c.Config.VIP(), 1, 56)
					})
				}
				c.run("listed as full NAT", func(t *testing.T, c *cluster) {
					conn, err := c.Servers[0].Dial(c.ctx, "tcp", c.virtual(lab.EchoPort).String())
					c.must(err)
					defer conn.Close()
					c.echo(conn)
					list := c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort), State: "ESTABLISHED"})
					if len(list) != 1 || list[0].Kind != "fullnat" || list[0].Local.Addr() != c.Config.VIP() {
						t.Errorf("connections %+v, want one of kind fullnat whose local address is the VIP", list)
					}
				})
			})
		})
	}
}

// TestOneArm is the reference cluster with everything on one link, with the host's
// addresses and with none.
func TestOneArm(t *testing.T) {
	t.Parallel()
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostBare} {
		t.Run(fmt.Sprintf("VIP %v", host), func(t *testing.T) {
			eachFamily(t, lab.Config{OneArm: true, Host: host}, nil, oneArm)
		})
	}
}

func oneArm(t *testing.T, c *cluster) {
	c.run("round robin", roundRobin)
	c.run("upload and download", func(t *testing.T, c *cluster) {
		c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), 4<<20))
		c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), 4<<20))
	})
	c.run("fragments", func(t *testing.T, c *cluster) { c.exchange(c.dialUDP(lab.EchoPort), 3, 8<<10) })
	c.run("SNAT to the client", func(t *testing.T, c *cluster) { snatPeer(t, c, c.Client) })
	c.run("one answer", func(t *testing.T, c *cluster) {
		w := c.capture(c.Client, "eth0")
		conn := c.dialTCP(80)
		if a := w.answers(c.Config.VIP()); a.synAck != 1 || a.rst+a.icmp != 0 {
			t.Errorf("the client got %+v, want one SYN-ACK", a)
		}
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		if b, err := io.ReadAll(conn); err != nil || len(b) == 0 {
			t.Errorf("read %q, %v", b, err)
		}
	})
}
