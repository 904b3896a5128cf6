// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func writeFile(t *testing.T, path, value string) {
	t.Helper()
	// Without IPv6 in the kernel there is nothing to write.
	if err := os.WriteFile(path, []byte(value), 0); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func TestTUNExchangesPacketsWithTheHost(t *testing.T) {
	tun, link, ok := openTUN(t, 1400)
	if !ok {
		return
	}
	if a := link.Attrs(); a.MTU != 1400 || a.Flags&net.FlagUp == 0 {
		t.Errorf("MTU %d, flags %v; want 1400 and up", a.MTU, a.Flags)
	}
	socket := socketBehind(t, link)

	// From the device to the host, with the checksum still to be completed: the
	// host's socket takes the datagram only if it is right.
	packet := datagram(nil, someone, ours, 7, 200)[14:]
	o := partial(packet)
	if n, err := tun.Write([]iface.Frame{{Data: packet, Offload: o}}); n != 1 || err != nil {
		t.Fatalf("%d sent, %v", n, err)
	}
	b := make([]byte, 2000)
	n, from, err := socket.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if n != 200-42 || from.Addr() != someone {
		t.Errorf("%d bytes from %v", n, from)
	}

	// And back.
	if _, err := socket.WriteToUDPAddrPort(b[:n], netip.AddrPortFrom(someone, 40000)); err != nil {
		t.Fatal(err)
	}
	got := receive(t, tun, 1)
	if len(got[0].Data) != 200-14 || got[0].Kind != iface.Host || got[0].Offload != o {
		t.Errorf("came as %+v", got[0])
	}
	nothingMore(t, tun)
	if s := tun.Stats(); s.SentFrames != 1 || s.ReceivedFrames < 1 || s.SendRefused+s.SendDrops != 0 {
		t.Errorf("counted %+v", s)
	}
}

// partial leaves only the pseudo-header sum in a UDP packet's checksum field.
func partial(packet []byte) iface.Offload {
	sum := uint32(17 + len(packet) - 20)
	for i := 12; i < 20; i += 2 {
		sum += uint32(packet[i])<<8 | uint32(packet[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	packet[26], packet[27] = byte(sum>>8), byte(sum)
	header := uint32(0)
	packet[10], packet[11] = 0, 0
	for i := 0; i < 20; i += 2 {
		header += uint32(packet[i])<<8 | uint32(packet[i+1])
	}
	header = header>>16 + header&0xffff
	header = ^(header>>16 + header&0xffff)
	packet[10], packet[11] = byte(header>>8), byte(header)
	return iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 20, ChecksumOffset: 6}
}

// What the host would cut into segments comes whole, with the header that says so.
func TestTUNReadsSuperPackets(t *testing.T) {
	tun, link, ok := openTUN(t, 1400)
	if !ok {
		return
	}
	address, _ := netlink.ParseAddr("192.0.2.1/24")
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(someone, 9)))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Write(make([]byte, 3500)); err != nil {
		t.Fatal(err)
	}
	f := receive(t, tun, 1)[0]
	if !f.Offload.Segmented() { // Linux before 6.2 cuts trains of datagrams itself
		sizes := []int{len(f.Data)}
		for _, f := range receive(t, tun, 3) {
			sizes = append(sizes, len(f.Data))
		}
		if want := []int{1028, 1028, 1028, 528}; !slices.Equal(sizes, want) {
			t.Errorf("came as %v bytes, want %v", sizes, want)
		}
		return
	}
	if len(f.Data) != 3528 || f.Offload.GSOType != iface.GSOUDPL4 || f.Offload.GSOSize != 1000 || !f.Offload.NeedsChecksum() {
		t.Errorf("came as %d bytes with %+v", len(f.Data), f.Offload)
	}
	nothingMore(t, tun)
}

// socketBehind is a socket of the host at 192.0.2.1, which it gives to a link.
func socketBehind(t *testing.T, link netlink.Link) *net.UDPConn {
	t.Helper()
	address, _ := netlink.ParseAddr("192.0.2.1/24")
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	socket.SetDeadline(time.Now().Add(30 * time.Second))
	return socket
}

func TestTUNSegmentsSuperPackets(t *testing.T) {
	tun, link, ok := openTUN(t, 1400)
	if !ok {
		return
	}
	socket := socketBehind(t, link)
	packet := datagram(nil, someone, ours, 7, 42+3000)[14:]
	o := partial(packet)
	o.GSOType, o.GSOSize, o.HeaderLen = iface.GSOUDPL4, 1300, 28
	odd := iface.Frame{Data: packet, Offload: o}
	odd.Offload.GSOType = 77
	if n, err := tun.Write([]iface.Frame{{Data: packet, Offload: o}, odd}); n != 1 || err != nil {
		t.Fatalf("%d sent, %v", n, err)
	}
	for _, want := range []int{1300, 1300, 400} {
		n, _, err := socket.ReadFromUDPAddrPort(make([]byte, 2000))
		if n != want || err != nil {
			t.Fatalf("%d bytes came, %v, want %d", n, err, want)
		}
	}
	if s := tun.Stats(); s.SendRefused != 1 {
		t.Errorf("counted %+v, want 1 refused", s)
	}
}

func TestTUNFailures(t *testing.T) {
	tun, link, ok := openTUN(t, 1400)
	if !ok {
		return
	}
	poller := newPoller(t)
	poller.Add(tun.FD(), 1)
	frame := []iface.Frame{{Data: datagram(nil, far, ours, 1, 60)[14:]}}
	b := make([]iface.Frame, 1)
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	if n, err := tun.Write(frame); n != 0 || !iface.IsDown(err) {
		t.Errorf("write: %d, %v, want that the link is down", n, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	send(t, tun, frame[0].Data)
	nothingMore(t, tun)
	if n := testing.AllocsPerRun(100, func() { tun.Write(frame); tun.Read(b) }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, poller, 30*time.Second); len(got) != 1 {
		t.Error("the poller does not report a device that was deleted")
	}
	if _, err := tun.Read(b); !iface.IsGone(err) {
		t.Errorf("read: %v, want that the link is gone", err)
	}
	if n, err := tun.Write(frame); n != 0 || !iface.IsGone(err) {
		t.Errorf("write: %d, %v, want that the link is gone", n, err)
	}
	if err := tun.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tun.Read(b); !closed(err) {
		t.Errorf("read: %v, want that the queue is closed", err)
	}
}

func TestTUNVanishesWithClose(t *testing.T) {
	tun, _, ok := openTUN(t, 1400)
	if !ok {
		return
	}
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(tun.Name()); err == nil {
		t.Errorf("%s is still there", tun.Name())
	}
}

func TestTUNSaysWhatToDo(t *testing.T) {
	ifacetest.InNamespace(t)
	ifacetest.NewCable(t, "taken", nil, "peer")
	rows := []struct {
		name string
		mtu  int
		want string
	}{
		{"a", 67, "MTU 67"},
		{"a", 70000, "MTU 70000"},
		{"much-too-long-a-name", 1500, "longer than 15 bytes"},
		{"taken", 1500, "hint: choose another name"},
	}
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		rows = append(rows, struct {
			name string
			mtu  int
			want string
		}{"a", 1500, "/dev/net/tun: "}, struct {
			name string
			mtu  int
			want string
		}{"a", 1500, "\nhint: "})
	}
	for _, row := range rows {
		q, err := iface.OpenTUN(row.name, row.mtu)
		if err == nil {
			q.Close()
			t.Errorf("%q with MTU %d was opened", row.name, row.mtu)
			continue
		}
		if !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q with MTU %d: %v, want %q in it", row.name, row.mtu, err, row.want)
		}
	}
}
