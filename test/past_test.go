// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// Direct routing and tunnels: the servers have the VIP themselves and answer past
// the director. All are on one link, so that there is a way past it.

// pastSize is the size of the transfers, in bytes.
const pastSize = 50 << 20

// pastUs is site with another method, and makes the servers such that it works:
// the VIP on lo, which they do not answer ARP for, and a way to the clients. words
// are what the configuration says of each server.
func pastUs(t *testing.T, words string) func(c *lab.Cluster, io string) string {
	return func(c *lab.Cluster, io string) string {
		for i := range c.Servers {
			for _, err := range readyForPast(c, i) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		server := regexp.MustCompile(`(?m)^      - "?([^"\n]*)"?$`)
		return server.ReplaceAllString(site(c, io), "      - {address: \"$1\", "+words+"}")
	}
}

func readyForPast(c *lab.Cluster, i int) []error {
	n, vip := c.Servers[i], c.Config.VIP()
	near := netip.MustParsePrefix(fmt.Sprintf("192.168.88.%d/24", 101+i))
	if c.Config.IPv6 {
		near = netip.MustParsePrefix(fmt.Sprintf("2001:db8:88::%d/64", 101+i))
	}
	return []error{
		n.SetSysctl("net.ipv4.conf.all.arp_ignore", "1"),
		n.SetSysctl("net.ipv4.conf.all.arp_announce", "2"),
		n.AddAddr("lo", netip.PrefixFrom(vip, vip.BitLen())),
		n.AddAddr("eth0", near),
	}
}

func TestDirectRouting(t *testing.T) {
	t.Parallel()
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC, lab.HostVIPOnLoopback, lab.HostBare} {
			t.Run("VIP "+host.String(), func(t *testing.T) {
				onPacket(t, lab.Config{OneArm: true, IPv6: ipv6, Host: host}, pastUs(t, "method: route"), func(t *testing.T, c *cluster) {
					c.run("round robin", roundRobin)
					if host == lab.HostBesideVIP {
						directRouting(t, c)
					}
				})
			})
		}
	})
}

// TestDirectRoutingFromVIPAlone has the servers in the VIP's network, where the
// director has no other address: it must not ask for them in the name of the VIP.
func TestDirectRoutingFromVIPAlone(t *testing.T) {
	t.Parallel()
	near := func(c *lab.Cluster, io string) string {
		text := pastUs(t, "method: route")(c, io)
		for i, n := range c.Servers {
			text = strings.ReplaceAll(text, fmt.Sprintf("%q", n.Addr.String()+":80"), fmt.Sprintf("\"192.168.88.%d:80\"", 101+i))
		}
		return text
	}
	for _, host := range []lab.HostAddresses{lab.HostVIPOnNIC, lab.HostBare} {
		t.Run("VIP "+host.String(), func(t *testing.T) {
			onPacket(t, lab.Config{OneArm: true, Host: host}, near, func(t *testing.T, c *cluster) {
				first := c.capture(c.Servers[2], "eth0")
				roundRobin(t, c)
				asked := first.seen(func(p gopacket.Packet) bool {
					arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
					return ok && net.IP(arp.SourceProtAddress).Equal(c.Config.VIP().AsSlice()) && !net.IP(arp.DstProtAddress).Equal(c.Config.VIP().AsSlice())
				})
				if len(asked) > 0 {
					t.Errorf("asked in the name of the VIP:\n%v", asked[0])
				}
			})
		})
	}
}

func directRouting(t *testing.T, c *cluster) {
	c.run("half-close by the client", halfCloseByClient)
	c.run("a thousand connections", thousandConnections)
	transfersPastUs(c)
	c.run("datagrams", datagramsPastUs)
	c.run("answers come from the server itself", answersFromServer)
	c.run("an end by the client", endByClient)
	c.run("path MTU of the answers", pathMTUOfAnswers)
	c.run("a server that is silent", silentServer)
	c.run("by ipvsadm", routeByIPVSAdm)
	c.run("listings", func(t *testing.T, c *cluster) {
		c.wantForward("Route")
		c.wantNothingOut()
	})
}

// transfersPastUs moves many bytes both ways, and wants the director to have had room
// for all of it.
func transfersPastUs(c *cluster) {
	c.run("download", func(t *testing.T, c *cluster) {
		c.must(c.Client.Download(c.ctx, c.virtual(lab.SourcePort), pastSize))
	})
	c.run("upload", func(t *testing.T, c *cluster) {
		c.must(c.Client.Upload(c.ctx, c.virtual(lab.SinkPort), pastSize))
		if n := c.drops()["outbox-full"]; n != 0 {
			t.Errorf("%d packets found no room", n)
		}
	})
}

// datagramsPastUs has the server answer from the VIP, whole and in fragments.
func datagramsPastUs(t *testing.T, c *cluster) {
	for i, n := range c.Servers {
		server, err := n.ListenPacket("udp", c.virtual(2300).String())
		c.must(err)
		defer server.Close()
		go func() {
			buffer := make([]byte, 1<<16)
			for {
				size, from, err := server.ReadFrom(buffer)
				if err != nil {
					return
				}
				server.WriteTo(buffer[:size], from)
			}
		}()
		if i == 0 {
			c.vsnat("service", "add", "udp", c.virtual(2300).String(), "--scheduler", "rr")
		}
		c.addPast(control.UDP, n, 2300)
	}
	for _, size := range []int{0, 1, 1452, 1472, 1473, 8 << 10, 60_000} {
		c.exchange(c.dialUDP(2300), 5, size)
	}
}

// pages is the service of the web pages.
func (c *cluster) pages() control.Service {
	c.t.Helper()
	s, err := c.control.Service(c.ctx, control.ServiceKey{Proto: control.TCP, Address: c.virtual(80)})
	c.must(err)
	return s
}

// addPast adds a server to the service at a port, to be reached as those of the web
// pages are.
func (c *cluster) addPast(proto string, n *lab.Node, port int) {
	c.t.Helper()
	server := c.pages().Servers[0].ServerSpec
	server.Address = at(n, port)
	c.must(c.control.AddServer(c.ctx, control.ServiceKey{Proto: proto, Address: c.virtual(port)}, server))
}

// answersFromServer looks at the link: a request goes by the director, an answer
// does not.
func answersFromServer(t *testing.T, c *cluster) {
	client, director := c.capture(c.Client, "eth0"), c.capture(c.Director, "eth0")
	c.mustGet(c.Client, 80)
	macs := map[string]bool{}
	for _, n := range c.Servers {
		nic, err := n.Interface("eth0")
		c.must(err)
		macs[nic.HardwareAddr.String()] = true
	}
	answers := client.wait(3, "answers of the VIP", func(p gopacket.Packet) bool {
		return p.TransportLayer() != nil && source(p) == c.Config.VIP()
	})
	for _, p := range answers {
		if from := p.LinkLayer().LinkFlow().Src().String(); !macs[from] {
			t.Errorf("an answer is from %s, which is no server", from)
		}
	}
	director.wait(3, "the client's packets", func(p gopacket.Packet) bool {
		return p.TransportLayer() != nil && source(p) == c.Client.Addr
	})
	if seen := director.seen(func(p gopacket.Packet) bool { return p.TransportLayer() != nil && source(p) == c.Config.VIP() }); len(seen) > 0 {
		t.Errorf("the director saw %d answers", len(seen))
	}
}

// endByClient has the director see the end of a connection by the client's FIN, or
// by its RST, alone.
func endByClient(t *testing.T, c *cluster) {
	for end, want := range map[string]string{"FIN": "FIN_WAIT", "RST": "CLOSE"} {
		conn := c.dialTCP(lab.SinkPort)
		_, err := conn.Write([]byte("x"))
		c.must(err)
		local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
		if end == "RST" {
			conn.SetLinger(0)
			conn.Close()
		} else {
			c.must(conn.CloseWrite())
		}
		got := ""
		c.eventually(end+" leads to "+want, func() bool {
			for _, e := range c.conns(control.ConnQuery{Service: c.virtual(lab.SinkPort)}) {
				if e.Client == local {
					got = e.State
				}
			}
			return got == want
		})
	}
}

// pathMTUOfAnswers has a router on the client's side say that an answer is too big.
// It says so to the VIP, and the server has to hear it.
func pathMTUOfAnswers(t *testing.T, c *cluster) {
	const port, mtu = 2301, 1300
	accepted := make(chan *net.TCPConn, 1)
	c.must(c.Servers[0].ServeTCP(port, func(conn *net.TCPConn) { accepted <- conn }))
	c.vsnat("service", "add", "tcp", c.virtual(port).String())
	c.addPast(control.TCP, c.Servers[0], port)
	wire := c.capture(c.Client, "eth0")
	client := c.dialTCP(port)
	server := <-accepted
	defer server.Close()
	_, err := server.Write(make([]byte, 1000))
	c.must(err)
	local := client.LocalAddr().(*net.TCPAddr).AddrPort()
	answer := wire.wait(1, "data of the server", func(p gopacket.Packet) bool {
		tcp, ok := p.TransportLayer().(*layers.TCP)
		return ok && source(p) == c.Config.VIP() && uint16(tcp.DstPort) == local.Port() && len(tcp.Payload) > 0
	})[0]
	if got := pathMTUOf(t, server); got != 1500 {
		t.Fatalf("the server starts with a path MTU of %d", got)
	}
	// What was acknowledged is past: the next segment is the one that did not get through.
	tcp := answer.TransportLayer().(*layers.TCP)
	binary.BigEndian.PutUint32(tcp.Contents[4:], tcp.Seq+uint32(len(tcp.Payload)))
	wire.send(tooBig(t, c, wire.mac, c.nextHopMAC(), c.Client.Addr, c.Config.VIP(), mtu, answer.LinkLayer().LayerPayload()))
	c.eventually("the server knows the path MTU", func() bool { return pathMTUOf(t, server) == mtu })
}

// tooBig is a frame with an ICMP error that a packet is larger than mtu.
func tooBig(t *testing.T, c *cluster, from, to net.HardwareAddr, src, dst netip.Addr, mtu uint16, packet []byte) []byte {
	t.Helper()
	quoted := gopacket.Payload(packet[:min(len(packet), 500)])
	if src.Is4() {
		icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded), Seq: mtu}
		return frame(t, ethernet(from, to, dst), ipHeader(src, dst, layers.IPProtocolICMPv4, 0), icmp, quoted)
	}
	ip := ipHeader(src, dst, layers.IPProtocolICMPv6, 0)
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)}
	c.must(icmp.SetNetworkLayerForChecksum(ip.(*layers.IPv6)))
	return frame(t, ethernet(from, to, dst), ip, icmp, gopacket.Payload(append([]byte{0, 0, byte(mtu >> 8), byte(mtu)}, quoted...)))
}

// routeByIPVSAdm leaves the method out, which is direct routing then, and gives a port,
// which counts for nothing.
func routeByIPVSAdm(t *testing.T, c *cluster) {
	vip := c.virtual(lab.Page2Port).String()
	c.ipvsadm("-D", "-t", vip)
	c.ipvsadm("-A", "-t", vip, "-s", "rr")
	c.ipvsadm("-a", "-t", vip, "-r", at(c.Servers[1], 1234).String())
	if got, want := c.mustGet(c.Client, lab.Page2Port), c.Config.ServerPage(2); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// silentServer has a server that nobody answers for: the client is told.
func silentServer(t *testing.T, c *cluster) {
	nobody := "10.0.0.250:2302"
	if c.Config.IPv6 {
		nobody = "[fd00:10::250]:2302"
	}
	c.vsnat("service", "add", "tcp", c.virtual(2302).String())
	c.vsnat("server", "add", "tcp", c.virtual(2302).String(), nobody, "--method", "route")
	_, err := c.Client.Dial(c.ctx, "tcp", c.virtual(2302).String())
	if err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("dial: %v, want no route to host", err)
	}
}

// wantForward looks for the word of the method in what ipvsadm lists.
func (c *cluster) wantForward(word string) {
	c.t.Helper()
	list := c.ipvsadm("-L", "-n", "-t", c.virtual(80).String())
	for _, n := range c.Servers {
		row := regexp.MustCompile(`-> ` + regexp.QuoteMeta(at(n, 80).String()) + ` +` + word + ` +1 `)
		if !row.MatchString(list) {
			c.t.Errorf("no %v by %s in\n%s", at(n, 80), word, list)
		}
	}
}

// wantNothingOut wants packets counted in, and none out.
func (c *cluster) wantNothingOut() {
	c.t.Helper()
	c.mustGet(c.Client, 80)
	s := c.pages()
	if s.Stats.InPackets == 0 || s.Stats.OutPackets != 0 {
		c.t.Errorf("counted in and out: %+v", s.Stats)
	}
	for _, e := range c.conns(control.ConnQuery{Service: c.virtual(80)}) {
		if e.Kind != s.Servers[0].Method {
			c.t.Errorf("listed as %s: %+v", e.Kind, e)
		}
	}
}

// TestDirectRoutingNeedsPackets: with io: tun the host would send by the VIP, which
// is not where the servers are.
func TestDirectRoutingNeedsPackets(t *testing.T) {
	t.Parallel()
	c := &cluster{Cluster: lab.Start(t, lab.Config{OneArm: true}), t: t, ctx: testContext(t), io: "tun"}
	_, err := c.StartDirector(c.ctx, lab.DirectorOptions{Config: pastUs(t, "method: route")(c.Cluster, "tun")})
	if err == nil || !strings.Contains(err.Error(), "direct routing can't be done with io: tun") {
		t.Fatalf("start: %v", err)
	}
	if tunForbidden() != nil {
		return // it would not start with masquerading either
	}
	c.start(site(c.Cluster, "tun"))
	out, err := c.Director.Command(c.ctx, "ipvsadm", "-e", "-t", c.virtual(80).String(), "-r", "10.0.0.2", "-g").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "io: packet") {
		t.Errorf("edit: %v\n%s", err, out)
	}
}
