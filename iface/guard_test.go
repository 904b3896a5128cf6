// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

func service(proto uint8, at string) iface.GuardService {
	ap := netip.MustParseAddrPort(at)
	return iface.GuardService{Proto: proto, Addr: ap.Addr(), Port: ap.Port()}
}

func addresses(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// rules are those of a director whose host has every address of the lab.
func (lab *guardLab) rules() iface.GuardRules {
	return iface.GuardRules{
		Links: []string{"pub", "priv"},
		Host:  addresses("192.0.2.1", "10.0.0.1", "2001:db8::1"),
	}
}

func (lab *guardLab) open(t *testing.T, method string) iface.Guard {
	t.Helper()
	var g iface.Guard
	err := lab.host.Do(func() (err error) { g, err = iface.OpenGuard(method); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func (lab *guardLab) apply(t *testing.T, g iface.Guard, rules iface.GuardRules) {
	t.Helper()
	if err := lab.host.Do(func() error { return g.Apply(rules) }); err != nil {
		t.Fatal(err)
	}
}

func (lab *guardLab) limits(g iface.Guard) (limits []string) {
	lab.host.Do(func() error { limits = g.Limits(); return nil })
	return limits
}

// atClient watches what the client gets back from the host.
func (lab *guardLab) atClient() probe {
	return probe{from: lab.client, watch: lab.client, link: "eth0", marker: "192.0.2.1"}
}

func TestGuardSilencesServicesOfTheHost(t *testing.T) {
	for _, method := range []string{iface.GuardNFT, iface.GuardSocket} {
		t.Run(method, func(t *testing.T) {
			lab := newGuardLab(t)
			listen(t, lab.host, "192.0.2.1:22")
			steps := []struct {
				what, marker string
				send         func() error
				refused      string
			}{
				{"tcp", "192.0.2.1", func() error { return sendSYN("192.0.2.1:80") }, "tcp 192.0.2.1:80 ACK RST"},
				{"udp", "192.0.2.1", func() error { return sendDatagram("", "192.0.2.1:53") }, "icmp 192.0.2.1 DestinationUnreachable(Port)"},
				{"tcp over IPv6", "2001:db8::1", func() error { return sendSYN("[2001:db8::1]:80") }, "tcp [2001:db8::1]:80 ACK RST"},
			}
			check := func(when string, refused bool) {
				t.Helper()
				for _, s := range steps {
					p := lab.atClient()
					p.marker = s.marker
					want := []string{}
					if refused {
						want = append(want, s.refused)
					}
					expect(t, s.what+" "+when, p.run(t, s.send), want...)
				}
				expect(t, "another port "+when, lab.atClient().run(t, func() error { return sendSYN("192.0.2.1:81") }), "tcp 192.0.2.1:81 ACK RST")
				err := lab.client.Do(func() error {
					c, err := net.Dial("tcp", "192.0.2.1:22")
					if err == nil {
						c.(*net.TCPConn).SetLinger(0) // a RST: no late answer for a later probe to see
						c.Close()
					}
					return err
				})
				if err != nil {
					t.Errorf("the host's own service %s: %v", when, err)
				}
			}

			check("before", true)
			g := lab.open(t, method)
			if g.Method() != method {
				t.Errorf("method %s, want %s", g.Method(), method)
			}
			rules := lab.rules()
			rules.Services = []iface.GuardService{
				service(tcp, "192.0.2.1:80"), service(udp, "192.0.2.1:53"), service(tcp, "[2001:db8::1]:80"),
			}
			lab.apply(t, g, rules)
			check("guarded", false)
			lab.apply(t, g, rules)
			check("guarded twice", false)

			rules.Services = rules.Services[:1]
			lab.apply(t, g, rules)
			expect(t, "a service that stays", lab.atClient().run(t, steps[0].send))
			expect(t, "a service that went", lab.atClient().run(t, steps[1].send), steps[1].refused)

			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if err := g.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
			check("after", true)
		})
	}
}

func TestGuardTakesManyServices(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	for i := range 3500 { // more than fit into one message
		rules.Services = append(rules.Services, service(tcp, fmt.Sprintf("192.0.2.1:%d", 1000+i)))
		rules.Owned = append(rules.Owned, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
	}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	for _, port := range []string{"1000", "2200", "4499"} {
		expect(t, "port "+port, lab.atClient().run(t, func() error { return sendSYN("192.0.2.1:" + port) }))
	}
	expect(t, "port 4500", lab.atClient().run(t, func() error { return sendSYN("192.0.2.1:4500") }), "tcp 192.0.2.1:4500 ACK RST")
}

func TestGuardSocketNamesWhoHasThePort(t *testing.T) {
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardSocket)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, g, rules)

	for _, at := range []string{"192.0.2.1:81", "0.0.0.0:82", "[::]:83"} {
		l := listen(t, lab.host, at)
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		next := rules
		next.Services = []iface.GuardService{service(tcp, "192.0.2.1:84"), service(tcp, fmt.Sprintf("192.0.2.1:%d", port))}
		err := lab.host.Do(func() error { return g.Apply(next) })
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), "hint:") {
			t.Errorf("a listener at %s: %v", at, err)
		}
	}
	expect(t, "the old rules stay", lab.atClient().run(t, func() error { return sendSYN("192.0.2.1:80") }))
	expect(t, "no part of the refused ones", lab.atClient().run(t, func() error { return sendSYN("192.0.2.1:84") }), "tcp 192.0.2.1:84 ACK RST")

	var c net.PacketConn
	if err := lab.host.Do(func() (err error) { c, err = net.ListenPacket("udp", "0.0.0.0:53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rules.Services = []iface.GuardService{service(udp, "192.0.2.1:53")}
	if err := lab.host.Do(func() error { return g.Apply(rules) }); err == nil || !strings.Contains(err.Error(), "inode") {
		t.Errorf("a datagram socket on the port: %v", err)
	}
}

func TestGuardTellsItsLimits(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Owned = addresses("203.0.113.23")
	rules.Servers = []iface.GuardService{service(tcp, "10.0.0.2:80")}
	for _, c := range []struct {
		method, forward string
		want            []string
	}{
		{iface.GuardNFT, "1", nil},
		{iface.GuardSocket, "0", nil},
		{iface.GuardSocket, "1", []string{"net.ipv4.ip_forward is 1", "net.ipv4.ip_forward is 1"}},
		{iface.GuardNone, "1", []string{"net.ipv4.ip_forward is 1", "net.ipv4.ip_forward is 1"}},
	} {
		lab.forwarding(t, c.forward)
		g := lab.open(t, c.method)
		lab.apply(t, g, rules)
		got := lab.limits(g)
		if len(got) != len(c.want) {
			t.Errorf("%s with ip_forward %s: %q", c.method, c.forward, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s with ip_forward %s: %q lacks %q", c.method, c.forward, got[i], want)
			}
		}
		g.Close()
	}
}

func TestGuardAutoTakesNFT(t *testing.T) {
	lab := newGuardLab(t)
	if g := lab.open(t, iface.GuardAuto); g.Method() != iface.GuardNFT {
		t.Errorf("auto took %s", g.Method())
	}
	if _, err := iface.OpenGuard("iptables"); err == nil || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("an unknown method: %v", err)
	}
}
