// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
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

func TestGuardHidesNothingFromTheTap(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	rules.Owned = addresses("203.0.113.23")
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	p := probe{from: lab.client, watch: lab.host, link: "pub", marker: "192.0.2.1"}
	got := p.run(t, func() error {
		return firstError(sendSYN("192.0.2.1:80"), sendDatagram("192.0.2.21:4000", "203.0.113.23:53"))
	})
	if len(got) != 2 || !strings.HasSuffix(got[0], " SYN") || got[1] != "udp 192.0.2.21:4000" {
		t.Errorf("the tap saw %q", got)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestGuardOwnedAddressIsNotForwarded(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	// The marker takes the same way to an address that nobody owns; inside
	// has no route back and need not.
	p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: "203.0.113.99"}
	send := func() error { return sendDatagram("192.0.2.21:4000", "203.0.113.23:53") }
	expect(t, "without a guard", p.run(t, send), "udp 192.0.2.21:4000")
	rules := lab.rules()
	rules.Owned = addresses("203.0.113.23")
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	expect(t, "guarded", p.run(t, send))
}

func TestGuardTransitOfInsideIsNotForwarded(t *testing.T) {
	lab := newGuardLab(t)
	lab.forwarding(t, "1")
	out := probe{from: lab.inside, watch: lab.client, link: "eth0", marker: "192.0.2.21", source: "10.0.0.200"}
	send := func() error {
		return firstError(
			sendDatagram("10.0.0.2:80", "192.0.2.21:4000"),
			sendDatagram("10.0.0.2:81", "192.0.2.21:4000"),
			icmpError("10.0.0.2", "192.0.2.21"))
	}
	reply, other, unreachable := "udp 10.0.0.2:80", "udp 10.0.0.2:81", "icmp 10.0.0.2 DestinationUnreachable(Port)"
	expect(t, "without a guard", out.run(t, send), reply, other, unreachable)

	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Servers = []iface.GuardService{service(udp, "10.0.0.2:80")}
	lab.apply(t, g, rules)
	expect(t, "a real server", out.run(t, send), other)

	rules.Servers[0].Port = 0
	lab.apply(t, g, rules)
	expect(t, "a real server on every port", out.run(t, send))

	rules.Servers = nil
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25")}
	lab.apply(t, g, rules)
	expect(t, "an inside network", out.run(t, send))

	// Traffic to the host itself, by whatever address, and its answers stay.
	toHost := probe{from: lab.inside, watch: lab.inside, link: "eth0", marker: "10.0.0.1"}
	expect(t, "inside to the host", toHost.run(t, func() error {
		return firstError(sendDatagram("10.0.0.2:80", "10.0.0.1:9"), sendDatagram("10.0.0.2:80", "192.0.2.1:9"))
	}), "icmp 10.0.0.1 DestinationUnreachable(Port)", "icmp 192.0.2.1 DestinationUnreachable(Port)")
}

// icmpError sends a port unreachable about a datagram that to would have sent.
func icmpError(from, to string) error {
	c, err := net.Dial("ip4:icmp", to)
	if from != "" {
		c, err = net.DialIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
	}
	if err != nil {
		return err
	}
	defer c.Close()
	quoted := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 63, udp, 0, 0}
	quoted = append(quoted, net.ParseIP(to).To4()...)
	quoted = append(quoted, net.ParseIP(from).To4()...)
	quoted = append(quoted, 0x0f, 0xa0, 0, 80, 0, 8, 0, 0)
	message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quoted...)
	sum := uint32(0)
	for i := 0; i < len(message); i += 2 {
		sum += uint32(message[i])<<8 | uint32(message[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = ^(sum>>16 + sum&0xffff)
	message[2], message[3] = byte(sum>>8), byte(sum)
	_, err = c.Write(message)
	return err
}

func TestGuardSNATPorts(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("192.0.2.1"), Min: 1000, Max: 2000, Except: []uint16{1500, 1600}}}
	lab.apply(t, lab.open(t, iface.GuardNFT), rules)
	for _, c := range []struct {
		port  uint16
		quiet bool
	}{{999, false}, {1000, true}, {1499, true}, {1500, false}, {1501, true}, {1600, false}, {2000, true}, {2001, false}} {
		at := fmt.Sprintf("192.0.2.1:%d", c.port)
		want := []string{}
		if !c.quiet {
			want = append(want, "tcp "+at+" ACK RST")
		}
		expect(t, "tcp to "+at, lab.atClient().run(t, func() error { return sendSYN(at) }), want...)
	}
	expect(t, "udp in the range", lab.atClient().run(t, func() error { return sendDatagram("", "192.0.2.1:1000") }))
	expect(t, "udp outside the range", lab.atClient().run(t, func() error { return sendDatagram("", "192.0.2.1:999") }),
		"icmp 192.0.2.1 DestinationUnreachable(Port)")
}

func TestGuardChangeLeavesNoGap(t *testing.T) {
	const changes = 16
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, g, rules)

	changed := make(chan error, 1)
	connections := uint64(0)
	got := lab.atClient().run(t, func() error {
		go func() {
			changed <- lab.host.Do(func() error {
				for i := range changes {
					next := rules
					next.Owned = addresses(fmt.Sprintf("203.0.113.%d", i))
					next.Links = rules.Links[:1+i%2] // priv comes and goes
					if err := g.Apply(next); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		for {
			select {
			case err := <-changed:
				return err
			default:
			}
			connections++
			if err := sendSYN("192.0.2.1:80"); err != nil {
				return err
			}
		}
	})
	expect(t, "connections during changes", got)

	if n := servicesDropped(t, g); n < connections { // a SYN may be sent again
		t.Errorf("%d of %d connections are counted as dropped", n, connections)
	}
}

func TestGuardEqualRulesChangeNothing(t *testing.T) {
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80"), service(udp, "192.0.2.1:53")}
	lab.apply(t, g, rules)
	before := ruleHandles(t, lab.host)
	if len(before) == 0 {
		t.Fatal("no rules are listed")
	}
	rules.Services[0], rules.Services[1] = rules.Services[1], rules.Services[0]
	rules.Services = append(rules.Services, rules.Services[0])
	lab.apply(t, g, rules)
	if after := ruleHandles(t, lab.host); after != before {
		t.Errorf("rules were %s, are %s", before, after)
	}
	rules.Services = rules.Services[:1]
	lab.apply(t, g, rules)
	if after := ruleHandles(t, lab.host); after == before {
		t.Error("other rules left the rules as they were")
	}
}

// ruleHandles lists the kernel's numbers of all rules: a rule written again gets
// another.
func ruleHandles(t *testing.T, in *ifacetest.Namespace) string {
	t.Helper()
	var handles []string
	err := in.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer conn.CloseLasting()
		chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
		for _, c := range chains {
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				return err
			}
			for _, r := range rules {
				handles = append(handles, fmt.Sprintf("%s/%d", c.Name, r.Handle))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(handles, " ")
}

func TestGuardFollowsALinkThatReturns(t *testing.T) {
	lab := newGuardLab(t)
	g := lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Links = append(rules.Links, "absent")
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, g, rules)
	send := func() error { return sendSYN("192.0.2.1:80") }
	expect(t, "at first", lab.atClient().run(t, send))

	pub, err := lab.host.Handle.LinkByName("pub")
	if err == nil {
		err = lab.host.Handle.LinkDel(pub)
	}
	if err != nil {
		t.Fatal(err)
	}
	lab.apply(t, g, rules)
	lab.cable(t, "pub", lab.client)
	lab.address(t, lab.host, "pub", "192.0.2.1/24")
	lab.address(t, lab.client, "eth0", "192.0.2.21/24")
	lab.apply(t, g, rules)
	expect(t, "after it returned", lab.atClient().run(t, send))

	rules.Links = []string{"priv"}
	lab.apply(t, g, rules)
	expect(t, "not served any more", lab.atClient().run(t, send), "tcp 192.0.2.1:80 ACK RST")
}

func TestGuardLeavesOtherFramesAlone(t *testing.T) {
	lab := newGuardLab(t)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	g := lab.open(t, iface.GuardNFT)
	lab.apply(t, g, rules)
	pub, err := lab.host.Handle.LinkByName("pub")
	if err != nil {
		t.Fatal(err)
	}
	ours := pub.Attrs().HardwareAddr
	for _, c := range []struct {
		what    string
		send    func() error
		dropped uint64
	}{
		{"a frame to us", func() error { return sendSYN("192.0.2.1:80") }, 1},
		{"a frame of a VLAN", func() error { return sendTagged(layers.EthernetTypeDot1Q, ours, 80) }, 0},
		{"a frame of a service VLAN", func() error { return sendTagged(layers.EthernetTypeQinQ, ours, 80) }, 0},
	} {
		before := servicesDropped(t, g)
		lab.atClient().run(t, c.send)
		if got := servicesDropped(t, g) - before; got != c.dropped {
			t.Errorf("%s: %d dropped, want %d", c.what, got, c.dropped)
		}
	}

	// A MAC that is not the host's: a macvlan's, for all the guard knows.
	gone := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	neighbour := &netlink.Neigh{IP: net.IP{192, 0, 2, 9}, HardwareAddr: gone, State: netlink.NUD_PERMANENT}
	if eth0, err := lab.client.Handle.LinkByName("eth0"); err != nil {
		t.Fatal(err)
	} else {
		neighbour.LinkIndex = eth0.Attrs().Index
	}
	if err := lab.client.Handle.NeighSet(neighbour); err != nil {
		t.Fatal(err)
	}
	rules.Owned = addresses("192.0.2.9")
	lab.apply(t, g, rules)
	before, err := g.(iface.GuardCounter).Counts()
	if err != nil {
		t.Fatal(err)
	}
	lab.atClient().run(t, func() error { return sendSYN("192.0.2.9:80") })
	if after, err := g.(iface.GuardCounter).Counts(); err != nil || !slices.Equal(before, after) {
		t.Errorf("a frame to another MAC: counts were %v, are %v, %v", before, after, err)
	}
}

func servicesDropped(t *testing.T, g iface.Guard) uint64 {
	t.Helper()
	counts, err := g.(iface.GuardCounter).Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Rule == "services" {
			return c.Packets
		}
	}
	t.Fatalf("no count of services in %v", counts)
	return 0
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

func TestTwoGuardsLiveSideBySide(t *testing.T) {
	lab := newGuardLab(t)
	a, b := lab.open(t, iface.GuardNFT), lab.open(t, iface.GuardNFT)
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:80")}
	lab.apply(t, a, rules)
	rules.Services = []iface.GuardService{service(tcp, "192.0.2.1:81")}
	lab.apply(t, b, rules)
	for _, at := range []string{"192.0.2.1:80", "192.0.2.1:81"} {
		expect(t, at, lab.atClient().run(t, func() error { return sendSYN(at) }))
	}
}

// guardChild tells a run of the test binary that it is the child of
// TestGuardLeavesNothingBehind, and how to end.
const guardChild = "VSNAT_TEST_GUARD_CHILD"

func TestGuardLeavesNothingBehind(t *testing.T) {
	if end := os.Getenv(guardChild); end != "" {
		holdGuard(t, end)
		return
	}
	for _, end := range []string{"kill", "terminate", "panic"} {
		t.Run(end, func(t *testing.T) {
			lab := newGuardLab(t)
			child := exec.Command("/proc/self/exe", "-test.run=^TestGuardLeavesNothingBehind$")
			child.Env = append(os.Environ(), guardChild+"="+end)
			in, errIn := child.StdinPipe()
			out, errOut := child.StdoutPipe()
			if err := firstError(errIn, errOut, lab.host.Do(child.Start)); err != nil {
				t.Fatal(err)
			}
			defer child.Process.Kill()
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "guarded\n" {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if tables := tableNames(t, lab.host); len(tables) != 1 || !strings.HasPrefix(tables[0], "vsnat-") {
				t.Fatalf("tables of the running child: %q", tables)
			}
			send := func() error { return sendSYN("192.0.2.1:80") }
			expect(t, "guarded by the child", lab.atClient().run(t, send))

			switch end {
			case "kill":
				child.Process.Kill()
			case "terminate":
				child.Process.Signal(unix.SIGTERM)
			case "panic":
				in.Close()
			}
			child.Wait()
			if tables := tableNames(t, lab.host); len(tables) != 0 {
				t.Errorf("left behind: %q", tables)
			}
			expect(t, "after the child", lab.atClient().run(t, send), "tcp 192.0.2.1:80 ACK RST")
		})
	}
}

func holdGuard(t *testing.T, end string) {
	g, err := iface.OpenGuard(iface.GuardNFT)
	if err != nil {
		t.Fatal(err)
	}
	rules := iface.GuardRules{Links: []string{"pub"}, Services: []iface.GuardService{service(tcp, "192.0.2.1:80")}}
	if err := g.Apply(rules); err != nil {
		t.Fatal(err)
	}
	fmt.Println("guarded")
	os.Stdin.Read(make([]byte, 1)) // until the parent ends us or closes the pipe
	panic(end)
}

func tableNames(t *testing.T, in *ifacetest.Namespace) (names []string) {
	t.Helper()
	err := in.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer conn.CloseLasting()
		tables, err := conn.ListTables()
		for _, table := range tables {
			names = append(names, table.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
