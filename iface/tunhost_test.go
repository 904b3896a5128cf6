// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"errors"
	"fmt"
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
	lab := newGuardLab(t)
	q := openDevice(t, lab)
	if q == nil {
		return
	}
	listen(t, lab.host, "192.0.2.1:22")
	setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", "1")
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Services = []iface.GuardService{service(udp, "192.0.2.1:53")}
	rules.SNAT = []iface.GuardPorts{{Addr: netip.MustParseAddr("192.0.2.1"), Min: 1000, Max: 1999, Except: []uint16{1500}}}
	lab.routeInto(t, h, rules)

	for _, c := range []struct {
		to    string
		taken bool
	}{
		{"192.0.2.1:53", true}, {"192.0.2.1:54", false}, {"192.0.2.1:1000", true}, {"192.0.2.1:1500", false},
		{"192.0.2.1:1999", true}, {"192.0.2.1:2000", false},
	} {
		want := []string{}
		if c.taken {
			want = append(want, "udp 192.0.2.21:4000")
		}
		expect(t, "to "+c.to, lab.deviceProbe(t, q, "192.0.2.1", func() error { return sendDatagram("192.0.2.21:4000", c.to) }), want...)
	}
	err := lab.client.Do(func() error {
		c, err := net.Dial("tcp", "192.0.2.1:22")
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
		done <- lab.client.Do(func() error { return pingAndWait("192.0.2.1") })
	}()
	readDevice(t, q, func(p []byte) bool {
		if _, err := q.Write([]iface.Frame{{Data: p}}); err != nil {
			t.Error(err)
		}
		return true
	})
	if err := <-done; err != nil {
		t.Errorf("a ping that went through the device: %v", err)
	}
	// A fragment of ours has no port by which the check of its source would
	// find our rules: to the host it comes from itself.
	p := probe{from: lab.host, watch: lab.client, link: "eth0", marker: "192.0.2.21"}
	expect(t, "written with an address of the host", p.run(t, func() error {
		_, err := q.Write([]iface.Frame{{Data: lastFragment("192.0.2.1", "192.0.2.21")}})
		return err
	}), "fragment 192.0.2.1")
	if len(h.Limits()) != 1 {
		t.Errorf("limits %q", h.Limits())
	}
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

// pingAndWait pings from a thread of its own until an answer comes.
func pingAndWait(to string) error {
	c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := sendPing("", to, 0x7613); err != nil {
		return err
	}
	return waitEchoReply(c)
}

func TestTUNHostTranslatedTrafficFlows(t *testing.T) {
	for _, vip := range []string{"192.0.2.1", "192.0.2.23"} {
		t.Run(vip, func(t *testing.T) {
			lab := newGuardLab(t)
			q := openDevice(t, lab)
			if q == nil {
				return
			}
			for _, strictness := range []string{"0", "1"} { // "all" of rp_filter
				setSysctl(t, lab.host, "net/ipv4/conf/all/rp_filter", strictness)
				flow(t, lab, q, vip)
			}
		})
	}
}

// flow is a director of one UDP service, for one question and its answer.
func flow(t *testing.T, lab *guardLab, q *iface.TUN, vip string) {
	t.Helper()
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	defer lab.host.Do(h.Close)
	rules := lab.rules()
	if vip == "192.0.2.1" {
		rules.Services = []iface.GuardService{service(udp, vip+":53")}
	} else {
		rules.Owned = addresses(vip)
	}
	rules.Servers = []iface.GuardService{service(udp, "10.0.0.2:5353")}
	lab.routeInto(t, h, rules)

	var server net.PacketConn
	var client net.Conn
	err := firstError(
		lab.inside.Do(func() (err error) { server, err = net.ListenPacket("udp", "10.0.0.2:5353"); return err }),
		lab.client.Do(func() (err error) { client, err = net.Dial("udp", vip+":53"); return err }))
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
	for _, step := range []struct {
		name                   string
		from, to, newFrom, new netip.AddrPort
	}{
		{"question", netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort(vip + ":53"),
			netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort("10.0.0.2:5353")},
		{"answer", netip.MustParseAddrPort("10.0.0.2:5353"), netip.MustParseAddrPort(client.LocalAddr().String()),
			netip.MustParseAddrPort(vip + ":53"), netip.MustParseAddrPort(client.LocalAddr().String())},
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
	decoded := gopacket.NewPacket(p, layers.LayerTypeIPv4, gopacket.Default)
	ip, _ := decoded.NetworkLayer().(*layers.IPv4)
	u, _ := decoded.TransportLayer().(*layers.UDP)
	if ip == nil || u == nil {
		return nil, false
	}
	text := fmt.Sprintf("%s:%d > %s:%d", ip.SrcIP, u.SrcPort, ip.DstIP, u.DstPort)
	if text != from.String()+" > "+to.String() {
		t.Errorf("out of the device came %s, want %s > %s", text, from, to)
		return nil, false
	}
	ip.SrcIP, ip.DstIP = newFrom.Addr().AsSlice(), newTo.Addr().AsSlice()
	u.SrcPort, u.DstPort = layers.UDPPort(newFrom.Port()), layers.UDPPort(newTo.Port())
	u.SetNetworkLayerForChecksum(ip)
	out := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, u, gopacket.Payload(u.Payload))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), true
}

func TestTUNHostTakesTransitOnly(t *testing.T) {
	lab := newGuardLab(t)
	q := openDevice(t, lab)
	if q == nil {
		return
	}
	h := openTUNHost(t, lab, iface.TUNHostOptions{})
	rules := lab.rules()
	rules.Owned = addresses("192.0.2.23")
	rules.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25")}
	lab.routeInto(t, h, rules)
	listen(t, lab.host, "10.0.0.1:22")
	err := lab.inside.Do(func() error {
		c, err := net.Dial("tcp", "10.0.0.1:22")
		if err == nil {
			c.Close()
		}
		return firstError(err, sendDatagram("10.0.0.2:80", "192.0.2.1:9"), sendDatagram("10.0.0.2:80", "192.0.2.21:4000"),
			sendDatagram("10.0.0.200:80", "192.0.2.21:4000"))
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "from inside", lab.deviceProbe(t, q, "192.0.2.23", func() error { return nil }), "udp 10.0.0.2:80")
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
