// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func listenTCP(t *testing.T, network, address string) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, uint16(l.Addr().(*net.TCPAddr).Port)
}

func listenUDP(t *testing.T, network, address string) uint16 {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

func TestBusyPorts(t *testing.T) {
	server, one := listenTCP(t, "tcp4", "127.0.0.1:0")
	client, err := net.Dial("tcp4", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, anyTCP := listenTCP(t, "tcp4", "0.0.0.0:0")
	_, dual := listenTCP(t, "tcp", "[::]:0")
	_, only6 := listenTCP(t, "tcp6", "[::]:0")
	udp := listenUDP(t, "udp4", "127.0.0.1:0")
	udp6 := listenUDP(t, "udp6", "[::1]:0")
	outgoing := uint16(client.LocalAddr().(*net.TCPAddr).Port)

	want := []BusyPort{
		{unix.IPPROTO_TCP, netip.MustParseAddr("127.0.0.1"), one, true},
		{unix.IPPROTO_TCP, netip.MustParseAddr("127.0.0.1"), outgoing, false},
		{unix.IPPROTO_TCP, netip.MustParseAddr("0.0.0.0"), anyTCP, true},
		{unix.IPPROTO_TCP, netip.MustParseAddr("0.0.0.0"), dual, true},
		{unix.IPPROTO_TCP, netip.MustParseAddr("::"), dual, true},
		{unix.IPPROTO_TCP, netip.MustParseAddr("::"), only6, true},
		{unix.IPPROTO_UDP, netip.MustParseAddr("127.0.0.1"), udp, true},
		{unix.IPPROTO_UDP, netip.MustParseAddr("::1"), udp6, true},
	}
	busy, err := BusyPorts()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !slices.Contains(busy, w) {
			t.Errorf("BusyPorts: no %+v among %+v", w, busy)
		}
	}
	if slices.Contains(busy, BusyPort{unix.IPPROTO_TCP, netip.MustParseAddr("0.0.0.0"), only6, true}) {
		t.Error("an IPv6-only socket is said to hold the IPv4 port")
	}

	// The second source says the same, but for not knowing what is IPv6 only.
	var proc []BusyPort
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			found, err := procPorts(proto, family)
			if err != nil {
				t.Fatal(err)
			}
			proc = append(proc, found...)
		}
	}
	for _, w := range want {
		if !slices.Contains(proc, w) {
			t.Errorf("/proc: no %+v among %+v", w, proc)
		}
	}
}

func TestBusyPortsOfOddMessages(t *testing.T) {
	for _, m := range [][]byte{nil, make([]byte, sizeofDiagMessage-1), make([]byte, sizeofDiagMessage)} {
		if got := appendDiag(nil, unix.IPPROTO_TCP, m); len(got) != 0 {
			t.Errorf("%d bytes of zero: %+v", len(m), got)
		}
	}
	text := "  sl  local_address rem_address   st\n   0: 0100007G:0016 00000000:0000 0A\n   1: 01:0016 00000000:0000 0A\n   2: 0100007F\n"
	if got := parseProcPorts(unix.IPPROTO_TCP, text); len(got) != 0 {
		t.Errorf("odd lines: %+v", got)
	}
}
