// SPDX-License-Identifier: Apache-2.0

package test

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// A wire sees the frames that arrive at a link, from when it is made to the end
// of the test, and can send frames of its own there.
type wire struct {
	t    *testing.T
	fd   int
	link int
	mac  net.HardwareAddr

	mu     sync.Mutex
	frames []gopacket.Packet
}

// settle is how long a wire waits for a packet that must not come: a second
// answer. It bounds how late one could be and still be noticed, no more.
const settle = 150 * time.Millisecond

// capture opens the wire of a node's link. Frames that the node itself sends
// are not seen.
func (c *cluster) capture(n *lab.Node, link string) *wire {
	c.t.Helper()
	nic, err := n.Interface(link)
	c.must(err)
	w := &wire{t: c.t, link: nic.Index, mac: nic.HardwareAddr}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	c.must(n.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	for option, value := range map[int]int{unix.PACKET_IGNORE_OUTGOING: 1} {
		c.must(unix.SetsockoptInt(w.fd, unix.SOL_PACKET, option, value))
	}
	// As large as the host lets it be.
	_ = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	c.must(unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}))
	c.must(unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nic.Index}))

	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.read(stop)
	}()
	c.t.Cleanup(func() {
		close(stop)
		<-ended
		unix.Close(w.fd)
	})
	return w
}

func (w *wire) read(stop chan struct{}) {
	buffer := make([]byte, 1<<17)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // the link is gone, or down
		}
		p := gopacket.NewPacket(append([]byte(nil), buffer[:n]...), layers.LayerTypeEthernet, gopacket.Default)
		w.mu.Lock()
		w.frames = append(w.frames, p)
		w.mu.Unlock()
	}
}

// seen returns what has arrived that match selects.
func (w *wire) seen(match func(gopacket.Packet) bool) []gopacket.Packet {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []gopacket.Packet
	for _, p := range w.frames {
		if match(p) {
			list = append(list, p)
		}
	}
	return list
}

// wait returns the first n packets that match selects.
func (w *wire) wait(n int, what string, match func(gopacket.Packet) bool) []gopacket.Packet {
	w.t.Helper()
	for end := time.Now().Add(limit / 4); ; time.Sleep(5 * time.Millisecond) {
		if list := w.seen(match); len(list) >= n {
			return list
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d of %d packets came: %s", len(w.seen(match)), n, what)
		}
	}
}

// send puts a frame onto the link, and waits where the other end has too many.
func (w *wire) send(frame []byte) {
	w.t.Helper()
	for end := time.Now().Add(limit / 4); ; time.Sleep(time.Millisecond) {
		_, err := unix.Write(w.fd, frame)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.ENOBUFS) || time.Now().After(end) {
			w.t.Fatalf("send a frame of %d bytes: %v", len(frame), err)
		}
	}
}

// answers are how many packets of each kind came from somewhere.
type answers struct{ synAck, rst, icmp, echo, udp int }

// answers counts all that came from addr, after waiting for stragglers.
func (w *wire) answers(from netip.Addr) (a answers) {
	time.Sleep(settle)
	for _, p := range w.seen(func(gopacket.Packet) bool { return true }) {
		a.count(p, from)
	}
	return a
}

// answersTo counts what came from an address to a port, ICMP errors about
// what that port sent included; for port 0, what has no ports.
func (w *wire) answersTo(from netip.Addr, port uint16) (a answers) {
	for _, p := range w.seen(func(p gopacket.Packet) bool { return answeredPort(p) == port }) {
		a.count(p, from)
	}
	return a
}

func answeredPort(p gopacket.Packet) uint16 {
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		return uint16(l.DstPort)
	case *layers.UDP:
		return uint16(l.DstPort)
	}
	if e, ok := errorIn(p); ok {
		return e.from.Port()
	}
	return 0
}

func (a *answers) count(p gopacket.Packet, from netip.Addr) {
	if source(p) != from {
		return
	}
	if _, ok := errorIn(p); ok {
		a.icmp++
	}
	if e, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && e.TypeCode.Type() == layers.ICMPv4TypeEchoReply {
		a.echo++
	}
	if e, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && e.TypeCode.Type() == layers.ICMPv6TypeEchoReply {
		a.echo++
	}
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		switch {
		case l.SYN && l.ACK:
			a.synAck++
		case l.RST:
			a.rst++
		}
	case *layers.UDP:
		a.udp++
	}
}

// source is the IP source of a packet.
func source(p gopacket.Packet) netip.Addr {
	if p.NetworkLayer() == nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	return a
}

// destination is the IP destination of a packet.
func destination(p gopacket.Packet) netip.Addr {
	if p.NetworkLayer() == nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
	return a
}

// frame builds a frame with right lengths and checksums. A hop limit of 0 stands
// for 64.
func frame(t *testing.T, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var ip gopacket.NetworkLayer
	for _, l := range stack {
		switch l := l.(type) {
		case *layers.IPv4:
			ip, l.Version, l.TTL = l, 4, cmp.Or(l.TTL, 64)
		case *layers.IPv6:
			ip, l.Version, l.HopLimit = l, 6, cmp.Or(l.HopLimit, 64)
		case *layers.TCP:
			l.SetNetworkLayerForChecksum(ip)
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(ip)
		case *layers.ICMPv6:
			l.SetNetworkLayerForChecksum(ip)
		}
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, stack...); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// ethernet is the header of a frame that carries packets of the family of an
// address.
func ethernet(from, to net.HardwareAddr, addr netip.Addr) *layers.Ethernet {
	kind := layers.EthernetTypeIPv4
	if addr.Is6() {
		kind = layers.EthernetTypeIPv6
	}
	return &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: kind}
}

// ipHeader is the header of a packet of either family.
func ipHeader(src, dst netip.Addr, proto layers.IPProtocol, ttl uint8) gopacket.SerializableLayer {
	if src.Is6() {
		return &layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), NextHeader: proto, HopLimit: ttl}
	}
	return &layers.IPv4{SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Protocol: proto, TTL: ttl}
}
