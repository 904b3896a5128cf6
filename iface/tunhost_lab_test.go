// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
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
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if err := sendPing("", to, waitedPing); err != nil {
		return err
	}
	return waitEchoReply(c)
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
	late := time.Now().Add(30 * time.Second) // what is lost never comes
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

// hostServes wants the host's own service at port 22 reached by the client.
func (lab *guardLab) hostServes(t *testing.T, plan hostPlan) {
	t.Helper()
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
}
