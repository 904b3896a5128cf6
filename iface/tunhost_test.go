// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

const tunName = "vsnat0"

// hostPlan names the addresses of the lab in one family.
type hostPlan struct {
	host, hostInside, owned   string // owned is no host's
	client, server, neighbour string // neighbour is another address of the server
	inside                    string // has server, not neighbour
}

var hostPlans = map[string]hostPlan{
	"IPv4": {"192.0.2.1", "10.0.0.1", "192.0.2.23", "192.0.2.21", "10.0.0.2", "10.0.0.200", "10.0.0.0/25"},
	"IPv6": {"2001:db8::1", "2001:db8:a::1", "2001:db8::23", "2001:db8::21", "2001:db8:a::2", "2001:db8:a::200", "2001:db8:a::/121"},
}

// newTUNLab is the lab in both families, whose host forwards nothing.
func newTUNLab(t *testing.T) *guardLab {
	t.Helper()
	lab := newGuardLab6(t)
	setSysctl(t, lab.host, "net/ipv6/conf/all/forwarding", "0")
	lab.forwarding(t, "0")
	return lab
}

// inEachFamily runs a test of a TUN device in both; it ends where there may be none.
func inEachFamily(t *testing.T, f func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan)) {
	for name, plan := range hostPlans {
		t.Run(name, func(t *testing.T) {
			lab := newTUNLab(t)
			if q := openDevice(t, lab); q != nil {
				f(t, lab, q, plan)
			}
		})
	}
}

func at(host string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port).String()
}

// openDevice opens a TUN device on the host of the lab. Where it may not be opened
// the error must say what to do, and nil is returned: the test ends there.
func openDevice(t *testing.T, lab *guardLab) *iface.TUN {
	t.Helper()
	var q *iface.TUN
	err := lab.host.Do(func() (err error) { q, err = iface.OpenTUN(tunName, 1500); return err })
	if err == nil {
		t.Cleanup(func() { q.Close() })
		return q
	}
	if f, open := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); open == nil {
		f.Close()
		t.Fatalf("the device may be opened, but: %v", err)
	}
	if !strings.Contains(err.Error(), "/dev/net/tun") || !strings.Contains(err.Error(), "hint:") {
		t.Fatalf("no plain word about why there is no TUN device: %v", err)
	}
	return nil
}

func openTUNHost(t *testing.T, lab *guardLab, options iface.TUNHostOptions) *iface.TUNHost {
	t.Helper()
	var h *iface.TUNHost
	err := lab.host.Do(func() (err error) { h, err = iface.OpenTUNHost(tunName, options); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.host.Do(h.Close) })
	return h
}

func (lab *guardLab) routeInto(t *testing.T, h *iface.TUNHost, rules iface.TUNHostRules) {
	t.Helper()
	if err := lab.host.Do(func() error { return h.Apply(rules) }); err != nil {
		t.Fatal(err)
	}
}

// readDevice gives every packet that comes out of the device to f until it says
// that it has enough.
func readDevice(t *testing.T, q *iface.TUN, f func(packet []byte) (enough bool)) {
	t.Helper()
	frames := make([]iface.Frame, iface.BatchSize)
	for {
		n, err := q.Read(frames)
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range frames[:n] {
			if f(frame.Data) {
				return
			}
		}
		if n > 0 {
			continue
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 10_000)
		if err != nil && !errors.Is(err, unix.EINTR) || err == nil && ready == 0 {
			t.Fatalf("nothing more comes out of the device: %v", err)
		}
	}
}

// deviceProbe sends, then pings an address that the device serves; it returns what
// came out of the device before that ping.
func (lab *guardLab) deviceProbe(t *testing.T, q *iface.TUN, marker string, send func() error) (seen []string) {
	t.Helper()
	const id = 0x7612
	err := lab.client.Do(func() error { return firstError(send(), sendPing("", marker, id)) })
	if err != nil {
		t.Fatal(err)
	}
	readDevice(t, q, func(p []byte) bool {
		text, enough := describe(inEthernet(p), id)
		if !enough && text != "" {
			seen = append(seen, text)
		}
		return enough
	})
	return seen
}

func inEthernet(p []byte) []byte {
	if p[0]>>4 == 6 { // the host asks for routers
		return append([]byte{12: 0x86, 13: 0xdd}, p...)
	}
	return append([]byte{12: 8, 13: 0}, p...)
}

func TestTUNHostTakesServicesOfTheHost(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		listen(t, lab.host, at(plan.host, 22))
		setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", "1")
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		rules.Services = []iface.GuardService{service(udp, at(plan.host, 53))}
		rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr(plan.host), Min: 1000, Max: 1999, Except: []uint16{1500}}}
		lab.routeInto(t, h, rules)

		from := at(plan.client, 4000)
		for port, taken := range map[uint16]bool{53: true, 54: false, 1000: true, 1500: false, 1999: true, 2000: false} {
			to, want := at(plan.host, port), []string{}
			if taken {
				want = append(want, "udp "+from)
			}
			expect(t, "to "+to, lab.deviceProbe(t, q, plan.host, func() error { return sendDatagram(from, to) }), want...)
		}
		err := lab.client.Do(func() error {
			c, err := net.Dial("tcp", at(plan.host, 22))
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("the host's own service: %v", err)
		}

		// What is not ours goes back as it came, and the host answers.
		done := make(chan error, 1)
		go func() {
			done <- lab.client.Do(func() error { return pingAndWait(plan.host) })
		}()
		readDevice(t, q, func(p []byte) bool {
			_, isPing := describe(inEthernet(p), waitedPing)
			if _, err := q.Write([]iface.Frame{{Data: p}}); err != nil {
				t.Error(err)
			}
			return isPing
		})
		if err := <-done; err != nil {
			t.Errorf("a ping that went through the device: %v", err)
		}
		if len(h.Limits()) != 1 {
			t.Errorf("limits %q", h.Limits())
		}
	})
}

// To IPv4's check of sources a fragment of ours comes from the host itself: it has
// no port by which the check would find our rules.
func TestTUNHostPassesFragmentsOfTheHost(t *testing.T) {
	lab := newTUNLab(t)
	q := openDevice(t, lab)
	if q == nil {
		return
	}
	setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", "1")
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(udp, "192.0.2.1:53")}
	lab.routeInto(t, h, rules)
	p := probe{from: lab.host, watch: lab.client, link: "eth0", marker: "192.0.2.21"}
	expect(t, "written with an address of the host", p.run(t, func() error {
		_, err := q.Write([]iface.Frame{{Data: lastFragment("192.0.2.1", "192.0.2.21")}})
		return err
	}), "fragment 192.0.2.1")
}

func lastFragment(from, to string) []byte {
	out := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{
		Version: 4, IHL: 5, TTL: 64, Id: 1, FragOffset: 1, Protocol: layers.IPProtocolUDP,
		SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to),
	}
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, gopacket.Payload("the rest"))
	if err != nil {
		panic(err)
	}
	return out.Bytes()
}

// waitedPing names the ping of pingAndWait.
const waitedPing = 0x7613

// pingAndWait pings from a thread of its own until an answer comes.
func pingAndWait(to string) error {
	network, any := "ip4:icmp", "0.0.0.0"
	if strings.Contains(to, ":") {
		network, any = "ip6:ipv6-icmp", "::"
	}
	c, err := net.ListenPacket(network, any)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := sendPing("", to, waitedPing); err != nil {
		return err
	}
	return waitEchoReply(c)
}

func TestTUNHostTranslatedTrafficFlows(t *testing.T) {
	for name, owned := range map[string]bool{"an address of the host": false, "an owned address": true} {
		t.Run(name, func(t *testing.T) {
			inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
				for _, strictness := range []string{"0", "1"} { // "all" of rp_filter
					setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", strictness)
					flow(t, lab, q, plan, owned)
				}
			})
		})
	}
}

// flow is a director of one UDP service, for one question and its answer.
func flow(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan, owned bool) {
	t.Helper()
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	defer lab.host.Do(h.Close)
	rules, vip := lab.rules(), plan.host
	if owned {
		vip = plan.owned
		rules.Owned = addresses(vip)
	} else {
		rules.Services = []iface.GuardService{service(udp, at(vip, 53))}
	}
	rules.Servers = []iface.GuardService{service(udp, at(plan.server, 5353))}
	lab.routeInto(t, h, rules)

	var server net.PacketConn
	var client net.Conn
	err := firstError(
		lab.inside.Do(func() (err error) { server, err = net.ListenPacket("udp", at(plan.server, 5353)); return err }),
		lab.client.Do(func() (err error) { client, err = net.Dial("udp", at(vip, 53)); return err }))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	defer client.Close()
	late := time.Now().Add(10 * time.Second) // what is lost never comes
	server.SetReadDeadline(late)
	client.SetReadDeadline(late)

	answered := make(chan error, 1)
	go func() {
		b := make([]byte, 100)
		n, from, err := server.ReadFrom(b)
		if err == nil {
			_, err = server.WriteTo(append(b[:n], " answered"...), from)
		}
		answered <- err
	}()
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	asker, virtual := netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort(at(vip, 53))
	answerer := netip.MustParseAddrPort(at(plan.server, 5353))
	for _, step := range []struct {
		name                   string
		from, to, newFrom, new netip.AddrPort
	}{
		{"question", asker, virtual, asker, answerer},
		{"answer", answerer, asker, virtual, asker},
	} {
		readDevice(t, q, func(p []byte) bool {
			out, ok := readdress(t, p, step.from, step.to, step.newFrom, step.new)
			if !ok {
				return false
			}
			if _, err := q.Write([]iface.Frame{{Data: out}}); err != nil {
				t.Fatal(err)
			}
			return true
		})
	}
	b := make([]byte, 100)
	n, err := client.Read(b)
	if err != nil || string(b[:n]) != "question answered" {
		t.Errorf("the client got %q, %v", b[:n], err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// readdress makes the UDP packet that a NAT would make of p, if it is the one
// expected.
func readdress(t *testing.T, p []byte, from, to, newFrom, newTo netip.AddrPort) ([]byte, bool) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if p[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	decoded := gopacket.NewPacket(p, first, gopacket.Default)
	u, _ := decoded.TransportLayer().(*layers.UDP)
	if u == nil {
		return nil, false
	}
	src, dst := decoded.NetworkLayer().NetworkFlow().Endpoints()
	text := at(src.String(), uint16(u.SrcPort)) + " > " + at(dst.String(), uint16(u.DstPort))
	if text != from.String()+" > "+to.String() {
		t.Errorf("out of the device came %s, want %s > %s", text, from, to)
		return nil, false
	}
	u.SrcPort, u.DstPort = layers.UDPPort(newFrom.Port()), layers.UDPPort(newTo.Port())
	var network gopacket.SerializableLayer
	switch ip := decoded.NetworkLayer().(type) {
	case *layers.IPv4:
		ip.SrcIP, ip.DstIP = newFrom.Addr().AsSlice(), newTo.Addr().AsSlice()
		u.SetNetworkLayerForChecksum(ip)
		network = ip
	case *layers.IPv6:
		ip.SrcIP, ip.DstIP = newFrom.Addr().AsSlice(), newTo.Addr().AsSlice()
		u.SetNetworkLayerForChecksum(ip)
		network = ip
	}
	out := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, network, u, gopacket.Payload(u.Payload))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), true
}

func TestTUNHostTakesTransitOnly(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		rules.Owned = addresses(plan.owned)
		rules.Inside = []netip.Prefix{netip.MustParsePrefix(plan.inside)}
		lab.routeInto(t, h, rules)
		listen(t, lab.host, at(plan.hostInside, 22))
		err := lab.inside.Do(func() error {
			c, err := net.Dial("tcp", at(plan.hostInside, 22))
			if err == nil {
				c.Close()
			}
			return firstError(err, sendDatagram(at(plan.server, 80), at(plan.host, 9)), sendDatagram(at(plan.server, 80), at(plan.client, 4000)),
				sendDatagram(at(plan.neighbour, 80), at(plan.client, 4000)))
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "from inside", lab.deviceProbe(t, q, plan.owned, func() error { return nil }), "udp "+at(plan.server, 80))
	})
}

// A question that is sent to an address alone, as a neighbour sends it that has
// known it for a while, is answered by the host, however much else is taken.
func TestTUNHostLeavesNeighbourDiscovery(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules, plan := lab.rules(), hostPlans["IPv6"]
	rules.Owned = addresses(plan.owned)
	rules.Services = []iface.GuardService{service(udp, at(plan.host, 53))}
	lab.routeInto(t, h, rules)
	pub, err := lab.host.Handle.LinkByName("pub")
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := lab.client.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{plan.host, plan.owned} {
		entry := &netlink.Neigh{LinkIndex: eth0.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: pub.Attrs().HardwareAddr}
		for _, entry.State = range []int{netlink.NUD_REACHABLE, netlink.NUD_PROBE} {
			if err := lab.client.Handle.NeighSet(entry); err != nil {
				t.Fatal(err)
			}
		}
		state := entry.State
		for end := time.Now().Add(10 * time.Second); state == netlink.NUD_PROBE && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			list, err := lab.client.Handle.NeighList(entry.LinkIndex, netlink.FAMILY_V6)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				if n.IP.Equal(entry.IP) {
					state = n.State
				}
			}
		}
		if state != netlink.NUD_REACHABLE {
			t.Errorf("%s was asked, and is in state %#x", addr, state)
		}
	}
}

// What another station has is not claimed, until it has it no more.
func TestTUNHostLeavesWhatAnotherHas(t *testing.T) {
	lab := newTUNLab(t)
	standIn(t, lab)
	plan := hostPlans["IPv6"]
	lab.address(t, lab.client, "eth0", plan.owned+"/64")
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Owned = addresses(plan.owned, hostPlans["IPv4"].owned)
	lab.routeInto(t, h, rules)
	now := time.Now()
	claim := func(later time.Duration) {
		t.Helper()
		now = now.Add(later)
		if err := lab.host.Do(func() error { return h.Claim(now) }); err != nil {
			t.Fatal(err)
		}
	}
	proxied := func() (links int) {
		list, err := lab.host.Handle.NeighProxyList(0, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			if n.IP.Equal(net.ParseIP(plan.owned)) {
				links++
			}
		}
		return links
	}
	if n := proxied(); n != 2 {
		t.Fatalf("answered for on %d links at first", n)
	}
	claim(0)
	for end := time.Now().Add(10 * time.Second); len(h.Taken()) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		claim(time.Nanosecond)
	}
	client, err := lab.client.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	taken := h.Taken()
	if len(taken) != 1 || taken[0].Link != "pub" || taken[0].Addr.String() != plan.owned || !slices.Equal(taken[0].MAC[:], client.Attrs().HardwareAddr) {
		t.Fatalf("taken %v", taken)
	}
	claim(2 * time.Second)
	lab.routeInto(t, h, rules) // changes nothing about it
	if n := proxied(); n != 1 {
		t.Errorf("answered for on %d links, want the other alone", n)
	}

	addr, _ := netlink.ParseAddr(plan.owned + "/64")
	if err := lab.client.Handle.AddrDel(client, addr); err != nil {
		t.Fatal(err)
	}
	claim(20 * time.Second)
	claim(2 * time.Second)
	if n, taken := proxied(), h.Taken(); n != 2 || len(taken) != 0 {
		t.Errorf("answered for on %d links, taken %v", n, taken)
	}
}

// A host that forwards nothing goes on doing so for all that is not ours.
func TestTUNHostForwardsForNobodyElse(t *testing.T) {
	for name, plan := range hostPlans {
		t.Run(name, func(t *testing.T) {
			lab := newTUNLab(t)
			standIn(t, lab)
			lab.route(t, lab.client, netip.MustParsePrefix(plan.inside).String(), plan.host)
			p := probe{from: lab.client, watch: lab.inside, link: "eth0", marker: plan.server, pinger: lab.host}
			send := func() error { return sendDatagram(at(plan.client, 4000), at(plan.server, 80)) }
			h := openTUNHost(t, lab, iface.TUNHostOptions{})
			rules := lab.rules()
			rules.Owned = addresses(plan.owned)
			lab.routeInto(t, h, rules)
			expect(t, "by a host that forwards for us", p.run(t, send))
			if err := lab.host.Do(h.Close); err != nil {
				t.Fatal(err)
			}

			lab.forwarding(t, "1")
			setSysctl(t, lab.host, "net/ipv6/conf/all/forwarding", "1")
			h = openTUNHost(t, lab, iface.TUNHostOptions{})
			lab.routeInto(t, h, rules)
			expect(t, "by a host that forwards for everybody", p.run(t, send), "udp "+at(plan.client, 4000))
		})
	}
}

// standIn makes something to route into where there may be no TUN device.
func standIn(t *testing.T, lab *guardLab) {
	t.Helper()
	if openDevice(t, lab) != nil {
		return
	}
	err := lab.host.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: tunName}, PeerName: "standin"}
		return firstError(netlink.LinkAdd(veth), netlink.LinkSetUp(veth))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Marked networks are taken whether the host has the address or would route to it,
// and the ICMP about them with them; nothing else to them is.
func TestTUNHostTakesWhatIsMarked(t *testing.T) {
	inEachFamily(t, func(t *testing.T, lab *guardLab, q *iface.TUN, plan hostPlan) {
		listen(t, lab.host, at(plan.host, 22))
		near, far, beyond := "192.0.2.0/24", "203.0.113.0/24", "203.0.113.99"
		if plan.host == hostPlans["IPv6"].host {
			near, far, beyond = "2001:db8::/64", "2001:db8:f::/48", "2001:db8:f::99"
		}
		h := openTUNHost(t, lab, iface.TUNHostOptions{})
		rules := lab.rules()
		other, by := mark(udp, far, 82), mark(udp, plan.host+"/32", 90)
		if near == "2001:db8::/64" {
			by = mark(udp, plan.host+"/128", 90)
		}
		other.From = netip.MustParsePrefix(plan.inside) // not the client's
		by.Link = "priv"
		rules.Marked = []iface.GuardMark{mark(udp, near, 53, 54), mark(0, far, 80), mark(udp, far, 60000, 65535), other, by}
		lab.routeInto(t, h, rules)
		source := uint16(4000)
		for _, c := range []struct {
			to    string
			port  uint16
			taken bool
		}{
			{plan.host, 53, true}, {plan.host, 54, true}, {plan.host, 55, false}, {plan.host, 90, false},
			{beyond, 80, true}, {beyond, 81, false}, {beyond, 82, false}, {beyond, 60000, true}, {beyond, 65534, true}, {beyond, 65535, false},
		} {
			source++
			from, to, want := at(plan.client, source), at(c.to, c.port), []string{}
			if c.taken {
				want = append(want, "udp "+from)
			}
			expect(t, "to "+to, lab.deviceProbe(t, q, plan.host, func() error { return sendDatagram(from, to) }), want...)
		}
		lab.deviceProbe(t, q, beyond, func() error { return nil }) // its ping comes
		err := lab.client.Do(func() error {
			c, err := net.Dial("tcp", at(plan.host, 22))
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("the host's own service: %v", err)
		}
		if len(h.Limits()) != 2 || !strings.Contains(h.Limits()[1], "65535") {
			t.Errorf("limits %q", h.Limits())
		}
	})
}
