// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// mark is a part of marked traffic, from anywhere unless from is given.
func mark(proto uint8, to string, ports ...uint16) iface.GuardMark {
	m := iface.GuardMark{Proto: proto, From: netip.MustParsePrefix("0.0.0.0/0"), To: netip.MustParsePrefix(to)}
	if m.To.Addr().Is6() {
		m.From = netip.MustParsePrefix("::/0")
	}
	if len(ports) > 0 {
		m.Min, m.Max = ports[0], ports[len(ports)-1]
	}
	return m
}

func TestGuardMarkedOnTheHost(t *testing.T) {
	lab := newGuardLab(t)
	lab.address(t, lab.client, "eth0", "192.0.2.221/24")
	rules := lab.rules()
	from := mark(0, "192.0.2.1/32", 100, 100)
	from.From = netip.MustParsePrefix("192.0.2.128/25")
	by := mark(0, "192.0.2.1/32", 110, 110)
	by.Link = "priv"
	rules.Marked = []iface.GuardMark{
		mark(tcp, "192.0.2.0/24", 80, 82), mark(0, "192.0.2.1/32", 90, 90), mark(tcp, "2001:db8::/32", 80), from, by,
	}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	const refused = "icmp 192.0.2.1 DestinationUnreachable(Port)"
	for _, c := range []struct {
		proto uint8
		from  string
		to    string
		quiet bool
	}{
		{tcp, "", "192.0.2.1:79", false}, {tcp, "", "192.0.2.1:80", true}, {tcp, "", "192.0.2.1:82", true},
		{tcp, "", "192.0.2.1:83", false}, {udp, "", "192.0.2.1:80", false},
		{tcp, "", "192.0.2.1:90", true}, {udp, "", "192.0.2.1:90", true}, {udp, "", "192.0.2.1:91", false},
		{udp, "192.0.2.221:4000", "192.0.2.1:90", true}, {udp, "192.0.2.221:4000", "192.0.2.1:100", true}, {udp, "192.0.2.21:4000", "192.0.2.1:100", false},
		{tcp, "", "[2001:db8::1]:80", true}, {tcp, "", "[2001:db8::1]:81", false},
		{tcp, "", "192.0.2.1:110", false}, {udp, "", "192.0.2.1:110", false},
	} {
		p := lab.atClient()
		want := []string{}
		if !c.quiet {
			want = append(want, "tcp "+c.to+" ACK RST")
		}
		send := func() error { return sendSYN(c.to) }
		if c.proto == udp {
			send = func() error { return sendDatagram(c.from, c.to) }
			if !c.quiet {
				want = []string{refused}
			}
		}
		if strings.HasPrefix(c.to, "[") {
			p.marker = "2001:db8::1"
		}
		expect(t, fmt.Sprintf("protocol %d from %q to %s", c.proto, c.from, c.to), p.run(t, send), want...)
	}
	inside := probe{from: lab.inside, watch: lab.inside, link: "eth0", marker: "10.0.0.1"}
	expect(t, "by the link", inside.run(t, func() error { return sendDatagram("", "192.0.2.1:110") }))
}

// What the host would forward; and a real server's own traffic, which a network's
// rule is not for.
func TestGuardMarkedInTransit(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	in := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: "203.0.113.99"}
	send := func() error {
		return firstError(sendDatagram("192.0.2.21:4000", "203.0.113.23:53"), sendDatagram("192.0.2.21:4001", "203.0.113.23:54"))
	}
	expect(t, "without a guard", in.run(t, send), "udp 192.0.2.21:4000", "udp 192.0.2.21:4001")
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Marked = []iface.GuardMark{mark(udp, "203.0.113.0/24", 53)}
	lab.apply(t, g, rules)
	expect(t, "guarded", in.run(t, send), "udp 192.0.2.21:4001")

	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "192.0.2.21", source: "10.0.0.200"}
	own := func() error {
		return firstError(sendDatagram("10.0.0.2:4000", "192.0.2.21:53"), sendDatagram("10.0.0.200:4001", "192.0.2.21:53"))
	}
	rules.Marked = []iface.GuardMark{mark(udp, "192.0.2.0/24", 53)}
	lab.apply(t, g, rules)
	expect(t, "from hosts inside", out.run(t, own))
	rules.Servers = []iface.GuardService{service(udp, "10.0.0.2:80")}
	lab.apply(t, g, rules)
	expect(t, "from a real server", out.run(t, own), "udp 10.0.0.2:4000")
	rules.Servers, rules.ServerPorts = nil, []iface.GuardRange{{Proto: udp, Addr: netip.MustParseAddr("10.0.0.2"), Min: 80, Max: 81}}
	lab.apply(t, g, rules)
	expect(t, "from a real server with many ports", out.run(t, own), "udp 10.0.0.2:4000")
	rules.Marked = []iface.GuardMark{mark(udp, "192.0.2.21/32", 53)}
	lab.apply(t, g, rules)
	expect(t, "from a real server to one address", out.run(t, own))
}

func TestGuardServerPorts(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	rules := lab.rules()
	for _, addr := range []string{"10.0.0.2", "10.0.0.3"} {
		for _, r := range []iface.GuardRange{{Proto: udp, Min: 1000, Max: 2000}, {Proto: udp, Min: 3000, Max: 3000}, {Proto: tcp, Min: 1, Max: 65535}} {
			r.Addr = netip.MustParseAddr(addr)
			rules.ServerPorts = append(rules.ServerPorts, r)
		}
	}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "192.0.2.21", source: "10.0.0.200"}
	for port, quiet := range map[int]bool{999: false, 1000: true, 2000: true, 2001: false, 3000: true, 3001: false} {
		from := fmt.Sprintf("10.0.0.2:%d", port)
		want := []string{}
		if !quiet {
			want = append(want, "udp "+from)
		}
		expect(t, from, out.run(t, func() error { return sendDatagram(from, "192.0.2.21:4000") }), want...)
	}
	expect(t, "an ICMP error", out.run(t, func() error { return icmpError("10.0.0.2", "192.0.2.21") }))
}

// A rule for everything takes nothing that is sent to many: the host hears it.
func TestGuardMarkedLeavesBroadcasts(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Marked = []iface.GuardMark{mark(0, "0.0.0.0/0"), mark(0, "::/0")}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	var c net.PacketConn
	if err := lab.host.Do(func() (err error) { c, err = net.ListenPacket("udp4", "0.0.0.0:67"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect(t, "to the host alone", lab.atClient().run(t, func() error { return sendDatagram("", "192.0.2.1:68") }))
	if err := lab.client.Do(func() error { return sendDatagram("", "192.0.2.255:67") }); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, from, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "datagram" {
		t.Errorf("a broadcast: %v, %q from %v", err, buf[:n], from)
	}
}

func TestGuardIPv6MarkedInTransit(t *testing.T) {
	lab := newGuardLab6(t)
	p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: "2001:db8:f::99"}
	send := func() error {
		return firstError(sendDatagram("[2001:db8::21]:4000", "[2001:db8:f::23]:53"), sendDatagram("[2001:db8::21]:4001", "[2001:db8:f::23]:54"))
	}
	expect(t, "without a guard", p.run(t, send), "udp [2001:db8::21]:4000", "udp [2001:db8::21]:4001")
	rules := lab.rules6()
	rules.Marked = []iface.GuardMark{mark(0, "2001:db8:f::/48", 53)}
	rules.ServerPorts = []iface.GuardRange{{Proto: udp, Addr: netip.MustParseAddr("2001:db8:a::2"), Min: 80, Max: 81}}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	expect(t, "guarded", p.run(t, send), "udp [2001:db8::21]:4001")
	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "2001:db8::21", source: "2001:db8:a::200"}
	expect(t, "replies", out.run(t, func() error {
		return firstError(sendDatagram("[2001:db8:a::2]:81", "[2001:db8::21]:4000"), sendDatagram("[2001:db8:a::2]:82", "[2001:db8::21]:4000"))
	}), "udp [2001:db8:a::2]:82")
}

func TestGuardTellsWhatOfMarksItLeaves(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	rules := lab.rules()
	rules.Marked = []iface.GuardMark{mark(tcp, "203.0.113.0/24", 80), mark(tcp, "192.0.2.1/32", 80, 99)}
	for method, want := range map[string][]string{
		iface.GuardNFT:    nil,
		iface.GuardSocket: {"also routes what 1 mark rules take", "tcp to 192.0.2.1/32 port 80-99"},
	} {
		g := lab.open(t, method)
		lab.apply(t, g, rules)
		got := lab.limits(g)
		if len(got) < len(want) || len(want) == 0 && len(got) > 0 {
			t.Errorf("%s: %q, want %q", method, got, want)
			continue
		}
		for i, w := range want {
			if !strings.Contains(got[i], w) {
				t.Errorf("%s: %q lacks %q", method, got[i], w)
			}
		}
	}
}

func TestGuardRefusesMarksThatAreNone(t *testing.T) {
	bad := mark(unix.IPPROTO_ICMP, "192.0.2.0/24")
	for what, rules := range map[string]iface.GuardRules{
		"a protocol without ports": {Marked: []iface.GuardMark{bad}},
		"no networks":              {Marked: []iface.GuardMark{{}}},
		"ports":                    {Marked: []iface.GuardMark{mark(tcp, "192.0.2.0/24", 2, 1)}},
		"a server's ports":         {ServerPorts: []iface.GuardRange{{Proto: tcp, Addr: netip.MustParseAddr("10.0.0.2"), Min: 2, Max: 1}}},
		"no server":                {ServerPorts: []iface.GuardRange{{Proto: tcp, Min: 1, Max: 1}}},
	} {
		if _, err := rules.Normal(); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	a, b := iface.GuardRules{}, iface.GuardRules{}
	a.Marked = []iface.GuardMark{mark(tcp, "192.0.2.0/24", 1), mark(tcp, "10.0.0.0/8", 1), mark(tcp, "192.0.2.0/24", 1)}
	b.Marked = []iface.GuardMark{mark(tcp, "::ffff:10.0.0.0/104", 1), mark(tcp, "192.0.2.0/24", 1)}
	b.Marked[0].From = netip.MustParsePrefix("0.0.0.0/0")
	if !a.Equal(b) {
		t.Errorf("%v and %v are not equal", a.Marked, b.Marked)
	}
}
