// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// The far end of a tunnel, for kernels that have no device for it: what arrives is
// read from a socket, unwrapped, and given back to the kernel of the server, which
// has the VIP on lo. Wrapped packets in fragments are put together by that kernel.

// tunnelProto is how a kind of tunnel arrives.
type tunnelProto struct {
	network4, network6 string // of the socket, for the family of the outer packet
	shim               int    // bytes in front of the packet inside
}

func tunnelProtos(inner6 bool) map[string]tunnelProto {
	proto := "4"
	if inner6 {
		proto = "41"
	}
	return map[string]tunnelProto{
		"ipip": {"ip4:" + proto, "ip6:" + proto, 0},
		"gre":  {"ip4:47", "ip6:47", 4},
		"gue":  {"udp4", "udp6", 4},
	}
}

// guePort is where the servers listen for GUE.
const guePort = 6080

// unwrap starts the far end of tunnels of a kind at a node, until the end of the
// test. inject gives a packet to the node's kernel.
func unwrap(t *testing.T, n *lab.Node, kind string, inner6 bool, inject func([]byte) error) {
	t.Helper()
	p := tunnelProtos(inner6)[kind]
	network, address := p.network4, n.Addr.String()
	if n.Addr.Is6() {
		network = p.network6
	}
	if kind == "gue" {
		address = netip.AddrPortFrom(n.Addr, guePort).String()
	}
	conn, err := n.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(8 << 20) // as large as the host lets it be
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 1<<16)
		for {
			size, _, err := conn.ReadFrom(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && size > p.shim {
				_ = inject(buffer[p.shim:size]) // what does not fit in is lost, as on a link
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// An injector opens a way for packets into a node's kernel.
type injector func(t *testing.T, n *lab.Node) (inject func([]byte) error)

// injectors are the ways there are for this user: a TUN device, and a pair of links
// in the node, which any namespace may have.
func injectors() map[string]injector {
	all := map[string]injector{"pair of links": throughLinks}
	if tunForbidden() == nil {
		all["TUN device"] = throughTUN
	}
	return all
}

func throughTUN(t *testing.T, n *lab.Node) func([]byte) error {
	t.Helper()
	var fd int
	err := n.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq("unwrap")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, err := range []error{n.SetMTU("unwrap", 65535), n.SetUp("unwrap")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return func(packet []byte) error {
		_, err := unix.Write(fd, packet)
		return err
	}
}

func throughLinks(t *testing.T, n *lab.Node) func([]byte) error {
	t.Helper()
	err := n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "unwrap0", 65535
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "unwrap1"})
	})
	for _, err := range []error{err, n.SetMTU("unwrap1", 65535), n.SetUp("unwrap0"), n.SetUp("unwrap1")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	from, err := n.Interface("unwrap0")
	if err != nil {
		t.Fatal(err)
	}
	to, err := n.Interface("unwrap1")
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	err = n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: from.Index}); err != nil {
		t.Fatal(err)
	}
	frame := append(append([]byte(nil), to.HardwareAddr...), from.HardwareAddr...)
	frame = append(frame, 0, 0)
	frame = append(frame, make([]byte, 1<<16)...)
	return func(packet []byte) error {
		kind := uint16(unix.ETH_P_IP)
		if packet[0]>>4 == 6 {
			kind = unix.ETH_P_IPV6
		}
		binary.BigEndian.PutUint16(frame[12:], kind)
		size := copy(frame[etherLen:], packet)
		_, err := unix.Write(fd, frame[:etherLen+size])
		for errors.Is(err, unix.ENOBUFS) {
			runtime.Gosched()
			_, err = unix.Write(fd, frame[:etherLen+size])
		}
		return err
	}
}
