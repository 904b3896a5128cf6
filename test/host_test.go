// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// TestHost has the VIP in each place of the director's host, and the host's own
// forwarding off and on. Whoever is responsible for a packet answers it, once.
func TestHost(t *testing.T) {
	t.Parallel()
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC, lab.HostVIPOnLoopback, lab.HostBare} {
		for _, forward := range []bool{false, true} {
			t.Run(fmt.Sprintf("VIP %v, forwarding %t", host, forward), func(t *testing.T) {
				configure := func(c *lab.Cluster, io string) string {
					serveSSH(t, c, 22)
					return site(c, io)
				}
				eachFamily(t, lab.Config{Host: host, Forward: forward}, configure, func(t *testing.T, c *cluster) {
					c.run("round robin", roundRobin)
					c.run("one answer", oneAnswer)
					c.run("one copy", oneCopy)
					c.run("SNAT", func(t *testing.T, c *cluster) { snatPeer(t, c, c.Client) })
					if host != lab.HostBare {
						c.run("the host's own connections", hostsOwn)
					}
					if hasVIP(host) {
						c.run("ssh to the VIP", sshToVIP)
					}
				})
			})
		}
	}
}

func hasVIP(h lab.HostAddresses) bool { return h == lab.HostVIPOnNIC || h == lab.HostVIPOnLoopback }

// oneAnswer sends one packet of each kind to the VIP and counts what comes back.
func oneAnswer(t *testing.T, c *cluster) {
	w := c.capture(c.Client, "eth0")
	tests := []struct {
		name, proto string
		port        int
		want        answers
	}{
		{"SYN to the service", "tcp", 80, answers{synAck: 1}},
		{"SYN to a closed port", "tcp", 81, answers{rst: 1}},
		{"datagram to the service", "udp", lab.EchoPort, answers{udp: 1}},
		{"datagram to a closed port", "udp", 81, answers{icmp: 1}},
	}
	const firstPort = 21_000 // none that the client's kernel gives a connection
	for i, test := range tests {
		from := firstPort + uint16(i)
		if test.proto == "udp" {
			// Or the client's kernel would answer the datagram with an ICMP error.
			conn, err := c.Client.ListenPacket("udp", fmt.Sprintf(":%d", from))
			c.must(err)
			defer conn.Close()
		}
		c.probe(w, test.proto, from, test.port, 64)
	}
	c.mustPing(c.Client, c.Config.VIP(), 3, 56)
	// Somebody who is not the client's kernel, which asks when it likes.
	asker := net.HardwareAddr{2, 0, 0, 0, 0, 77}
	w.send(c.question(asker, c.Config.ClientAddr(77), c.Config.VIP()))

	for i, test := range tests {
		w.wait(1, test.name, func(p gopacket.Packet) bool { return answeredPort(p) == firstPort+uint16(i) })
	}
	w.wait(1, "an answer to who has the VIP", func(p gopacket.Packet) bool { _, ok := answerTo(p, asker); return ok })
	time.Sleep(settle)
	for i, test := range tests {
		if got := w.answersTo(c.Config.VIP(), firstPort+uint16(i)); got != test.want {
			t.Errorf("%s: the client got %+v, want %+v:\n%v", test.name, got, test.want, w.seen(func(p gopacket.Packet) bool { return answeredPort(p) == firstPort+uint16(i) }))
		}
	}
	if got := w.answersTo(c.Config.VIP(), 0); got.echo != 1 {
		t.Errorf("ping: the client got %d replies, want one", got.echo)
	}
	var replies []net.HardwareAddr
	w.seen(func(p gopacket.Packet) bool {
		if mac, ok := answerTo(p, asker); ok {
			replies = append(replies, mac)
		}
		return false
	})
	if want := c.nextHopMAC(); len(replies) != 1 || !bytes.Equal(replies[0], want) {
		t.Errorf("asked where the VIP is, %v say they have it, want %v once", replies, want)
	}
}

// oneCopy counts datagrams at both ends: in, out and opened from inside, each
// exists once, and only as what it should be.
func oneCopy(t *testing.T, c *cluster) {
	var inside []*wire
	for _, s := range c.Servers {
		inside = append(inside, c.capture(s, "eth0"))
	}
	outside := c.capture(c.Client, "eth0")
	const many = 10
	c.exchange(c.dialUDP(lab.EchoPort), many, 700)
	for range many {
		c.whoUDP(c.Servers[1], nil, c.Client)
	}

	if got := outside.answers(c.Config.VIP()); got != (answers{udp: 2 * many}) {
		t.Errorf("the client got %+v of the VIP, want %d datagrams", got, 2*many)
	}
	isUDP := func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeUDP) != nil }
	if n := len(outside.seen(isUDP)); n != 2*many {
		t.Errorf("the client got %d datagrams in all, want %d", n, 2*many)
	}
	got := 0
	for _, w := range inside {
		got += len(w.seen(func(p gopacket.Packet) bool { return isUDP(p) && source(p) == c.Client.Addr }))
	}
	if got != 2*many { // requests of the client, and its answers to the server's
		t.Errorf("the servers got %d datagrams, want %d", got, 2*many)
	}
}

// hostsOwn are connections that the director's host opens itself.
func hostsOwn(t *testing.T, c *cluster) {
	page, err := c.Director.Get(c.ctx, fmt.Sprintf("http://%v/", at(c.Client, lab.WhoPort)))
	c.must(err)
	if from := netip.MustParseAddrPort(page).Addr(); from != c.Director.Addr {
		t.Errorf("the client sees the director's host as %v, want %v", from, c.Director.Addr)
	}
	c.whoUDP(c.Director, nil, c.Client)
	c.mustPing(c.Director, c.Client.Addr, 9, 56)
	// A health check is one, too.
	if page, err := c.Director.Get(c.ctx, fmt.Sprintf("http://%v/", at(c.Servers[0], lab.PagePort))); err != nil || page != c.Config.ServerPage(1) {
		t.Errorf("the host itself asks server 1: %q, %v", page, err)
	}
	c.mustPing(c.Director, c.Servers[0].Addr, 9, 56)
}

// serveSSH makes the director's host listen like an ssh server.
func serveSSH(t *testing.T, c *lab.Cluster, port int) {
	t.Helper()
	err := c.Director.ServeTCP(port, func(conn *net.TCPConn) {
		io.WriteString(conn, "SSH-2.0-host\r\n")
		conn.Close()
	})
	if err != nil {
		t.Error(err)
	}
}

// sshToVIP is a service of the host on the VIP, beside those of the director.
func sshToVIP(t *testing.T, c *cluster) {
	for range 3 {
		w := c.capture(c.Client, "eth0")
		conn := c.dialTCP(22)
		if b, err := io.ReadAll(conn); err != nil || string(b) != "SSH-2.0-host\r\n" {
			t.Errorf("port 22 of the VIP: %q, %v", b, err)
		}
		conn.Close()
		if got := w.answers(c.Config.VIP()); got != (answers{synAck: 1}) {
			t.Errorf("the client got %+v, want one SYN-ACK", got)
		}
	}
}

// TestHostLate has the host begin to listen on the VIP after the director has
// started, on a port that SNAT might have handed out: who asks for it is served sooner
// than the director looks by itself.
func TestHostLate(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{Host: lab.HostVIPOnNIC}, nil, func(t *testing.T, c *cluster) {
		serveSSH(t, c.Cluster, 2222)
		began := time.Now()
		var conn net.Conn
		c.eventually("the host's new port answers", func() (ok bool) {
			var err error
			conn, err = c.Client.Dial(c.ctx, "tcp", c.virtual(2222).String())
			return err == nil
		})
		defer conn.Close()
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		if b, err := io.ReadAll(conn); err != nil || string(b) != "SSH-2.0-host\r\n" {
			t.Errorf("port 2222 of the VIP: %q, %v", b, err)
		}
		roundRobin(t, c)
	})
}

// TestHostFirewall has a host that lets nothing in, out or through, and checks every
// source strictly: the packets of the cluster never come to where that is asked.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		onPacket(t, lab.Config{IPv6: ipv6, Host: lab.HostVIPOnNIC}, nil, func(t *testing.T, c *cluster) {
			c.must(c.Director.SetSysctl("net.ipv4.conf.all.rp_filter", "1"))
			c.must(c.Director.Do(dropEverything))
			ctx, cancel := contextWithin(c, settle)
			defer cancel()
			if _, err := c.Director.Dial(ctx, "tcp", at(c.Client, lab.WhoPort).String()); err == nil {
				t.Fatal("the firewall let the host's own connection out")
			}
			roundRobin(t, c)
			snatPeer(t, c, c.Client)
		})
	})
}

// dropEverything is a firewall of the network namespace that it is called in. What a
// link needs to find its neighbours is let through.
func dropEverything() error {
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	policy := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{
		"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward, "output": nftables.ChainHookOutput,
	} {
		chain := nft.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	return nft.Flush()
}
