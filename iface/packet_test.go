// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

var (
	ours    = netip.MustParseAddr("192.0.2.1")
	someone = netip.MustParseAddr("192.0.2.99")
	far     = netip.MustParseAddr("198.51.100.7")
)

// cable is a veth pair with a queue on both ends: both belong to this namespace.
type cable struct {
	near, far iface.Queue
	link      netlink.Link // of near
	farLink   netlink.Link
}

// quietCable is a veth pair without IPv6, or the host itself would send neighbour
// discovery, which every filter admits.
func quietCable(t *testing.T) netlink.Link {
	t.Helper()
	link := ifacetest.NewCable(t, "near", nil, "far")
	for _, name := range []string{"near", "far"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			t.Fatal(err)
		}
	}
	return link
}

// newCable admits everything at the far end, and packets to ours at the near one.
func newCable(t *testing.T) cable {
	t.Helper()
	c := cable{link: quietCable(t)}
	var err error
	if c.farLink, err = netlink.LinkByName("far"); err != nil {
		t.Fatal(err)
	}
	c.near = open(t, c.link, iface.PacketOptions{Filter: iface.Filter{Ours: []netip.Addr{ours}}})
	c.far = open(t, c.farLink, iface.PacketOptions{Filter: everything()})
	return c
}

func everything() iface.Filter {
	return iface.Filter{Inside: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
}

func open(t *testing.T, link netlink.Link, opts iface.PacketOptions) iface.Queue {
	t.Helper()
	q, err := iface.OpenPacket(portOf(link), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func portOf(link netlink.Link) iface.Link {
	a := link.Attrs()
	l := iface.Link{Index: a.Index, Name: a.Name, MTU: a.MTU, Ethernet: true}
	copy(l.MAC[:], a.HardwareAddr)
	return l
}

// datagram is a UDP packet in an Ethernet frame to the MAC address of link (nil:
// broadcast), with its number as payload.
func datagram(link netlink.Link, source, destination netip.Addr, number uint32, size int) []byte {
	p := bytes.Repeat([]byte{0xff}, 6)
	if link != nil {
		p = append([]byte(nil), link.Attrs().HardwareAddr...)
	}
	p = append(p, 2, 0, 0, 0, 0, 9, 0x08, 0x00)
	p = append(p, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0)
	p = append(p, source.AsSlice()...)
	p = append(p, destination.AsSlice()...)
	p = append(p, 0x9c, 0x40, 0, 9, 0, 0, 0, 0) // port 9: nobody listens
	p = binary.BigEndian.AppendUint32(p, number)
	p = append(p, make([]byte, max(0, size-len(p)))...)
	binary.BigEndian.PutUint16(p[16:], uint16(len(p)-14))
	binary.BigEndian.PutUint16(p[38:], uint16(len(p)-34))
	return p
}

func numberOf(f iface.Frame) uint32 { return binary.BigEndian.Uint32(f.Data[42:]) }

// receive waits until n frames came and returns copies of them. The network of a
// namespace delivers within the sender's call, the limit is for a lost frame.
func receive(t *testing.T, q iface.Queue, n int) []iface.Frame {
	t.Helper()
	p := newPoller(t)
	if err := p.Add(q.FD(), 1); err != nil {
		t.Fatal(err)
	}
	var got []iface.Frame
	b := make([]iface.Frame, iface.BatchSize)
	for len(got) < n {
		if len(wait(t, p, 30*time.Second)) == 0 {
			t.Fatalf("%d of %d frames came", len(got), n)
		}
		k, err := q.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b[:k] {
			f.Data = bytes.Clone(f.Data)
			got = append(got, f)
		}
	}
	return got
}

func send(t *testing.T, q iface.Queue, frames ...[]byte) {
	t.Helper()
	b := make([]iface.Frame, len(frames))
	for i := range frames {
		b[i].Data = frames[i]
	}
	if n, err := q.Write(b); n != len(b) || err != nil {
		t.Fatalf("%d of %d frames sent, %v", n, len(b), err)
	}
}

func nothingMore(t *testing.T, q iface.Queue) {
	t.Helper()
	b := make([]iface.Frame, 1)
	if n, err := q.Read(b); n != 0 || err != nil {
		t.Fatalf("unexpected: %d frames, %v: %x", n, err, b[0].Data)
	}
}

func TestPacketCarriesFramesBothWays(t *testing.T) {
	c := newCable(t)
	nothingMore(t, c.near)
	var frames [][]byte
	for i := range uint32(150) { // more than two batches
		frames = append(frames, datagram(c.link, far, ours, i, 60+int(i)*9))
	}
	send(t, c.far, frames...)
	got := receive(t, c.near, len(frames))
	for i, f := range got {
		if !bytes.Equal(f.Data, frames[i]) {
			t.Fatalf("frame %d came as %x, want %x", i, f.Data, frames[i])
		}
		if f.Kind != iface.Host || f.Tagged || f.Truncated || f.Offload.Segmented() {
			t.Fatalf("frame %d is marked %+v", i, f)
		}
	}
	// What was read goes out again from the memory it was read into.
	send(t, c.far, frames[:3]...)
	b := make([]iface.Frame, 8)
	n, err := c.near.Read(b)
	if n != 3 || err != nil {
		t.Fatalf("%d frames, %v", n, err)
	}
	if n, err := c.near.Write(b[:3]); n != 3 || err != nil {
		t.Fatalf("%d frames sent, %v", n, err)
	}
	for i, f := range receive(t, c.far, 3) {
		if !bytes.Equal(f.Data, frames[i]) {
			t.Fatalf("frame %d came back as %x, want %x", i, f.Data, frames[i])
		}
	}
	near, farther := c.near.Stats(), c.far.Stats()
	if near.ReceivedFrames != 153 || farther.SentFrames != 153 || near.ReceivedBytes != farther.SentBytes || near.SentFrames != 3 {
		t.Errorf("counted %+v and %+v", near, farther)
	}
}

func TestPacketTellsToWhomAFrameWasAddressed(t *testing.T) {
	c := newCable(t)
	for _, size := range []int{60, 1514} { // within a slot of the ring, and longer
		group := datagram(nil, far, ours, 2, size)
		copy(group, []byte{1, 0, 0x5e, 0, 0, 5})
		other := datagram(nil, far, ours, 3, size)
		copy(other, []byte{2, 0, 0, 0, 0, 77})
		send(t, c.far, datagram(c.link, far, ours, 0, size), datagram(nil, far, ours, 1, size), group, other)
		for i, f := range receive(t, c.near, 4) {
			if want := []iface.Kind{iface.Host, iface.Broadcast, iface.Multicast, iface.OtherHost}[i]; f.Kind != want {
				t.Errorf("frame %d of %d bytes is for %v, want %v", i, size, f.Kind, want)
			}
		}
	}
}

func TestPacketDoesNotSeeItsOwnFrames(t *testing.T) {
	for _, egress := range []iface.Egress{iface.EgressByLink, iface.EgressDirect, iface.EgressQueued} {
		t.Run(fmt.Sprintf("egress %d", egress), func(t *testing.T) {
			link := quietCable(t)
			q := open(t, link, iface.PacketOptions{Filter: everything(), Egress: egress})
			// The kernel keeps a socket from hearing itself; the other shards' queues
			// on the link hear it unless they ask not to.
			other := open(t, link, iface.PacketOptions{Filter: everything()})
			send(t, q, datagram(nil, ours, far, 1, 60))
			nothingMore(t, q)
			nothingMore(t, other)
			if s := q.Stats(); s.SentFrames != 1 || s.ReceivedFrames != 0 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// What we send on a link that has a queueing discipline goes through it, where captures
// listen.
func TestPacketLeavesByTheQueueingDiscipline(t *testing.T) {
	link := quietCable(t)
	err := netlink.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		QdiscType:  "pfifo",
	})
	if err != nil {
		t.Fatal(err)
	}
	q := open(t, link, iface.PacketOptions{})
	capture, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(capture) })
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // network byte order
	if err := errors.Join(
		unix.Bind(capture, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}),
		unix.SetsockoptTimeval(capture, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})); err != nil {
		t.Fatal(err)
	}
	const many = iface.BatchSize // by the ring; one frame is not worth it
	send(t, q, datagram(nil, ours, far, 0, 60))
	batch := make([][]byte, many)
	for i := range batch {
		batch[i] = datagram(nil, ours, far, uint32(1+i), 60)
	}
	send(t, q, batch...)
	b := make([]byte, 2000)
	for i := range uint32(1 + many) {
		n, _, err := unix.Recvfrom(capture, b, 0)
		if err != nil {
			t.Fatalf("after %d frames: %v", i, err)
		}
		if got := numberOf(iface.Frame{Data: b[:n]}); got != i {
			t.Fatalf("frame %d is in place of number %d", got, i)
		}
	}
}

// A flood of foreign frames runs while the queue is opened: none may slip in
// between the socket, the filter and the binding.
func TestPacketFilterHoldsFromTheFirstFrame(t *testing.T) {
	c := newCable(t)
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		flood := make([]iface.Frame, 32)
		for i := range flood {
			flood[i].Data = datagram(c.link, far, someone, uint32(i), 60)
		}
		total := 0
		for {
			select {
			case <-stop:
				stopped <- total
				return
			default:
				n, _ := c.far.Write(flood)
				total += n
			}
		}
	}()
	b := make([]iface.Frame, iface.BatchSize)
	for range 60 {
		q := open(t, c.link, iface.PacketOptions{Filter: iface.Filter{Ours: []netip.Addr{ours}}})
		if n, err := q.Read(b); n != 0 || err != nil {
			t.Errorf("%d frames, %v", n, err)
		}
		q.Close()
	}
	close(stop)
	if total := <-stopped; total < 1000 {
		t.Fatalf("a flood of %d frames only", total)
	}
	nothingMore(t, c.near)
}

func TestPacketFilterIsReplaced(t *testing.T) {
	c := newCable(t)
	both := [][]byte{datagram(c.link, far, ours, 1, 60), datagram(c.link, far, someone, 2, 60)}
	for _, row := range []struct {
		filter iface.Filter
		want   []uint32
	}{
		{iface.Filter{}, nil},
		{iface.Filter{Ours: []netip.Addr{someone}}, []uint32{2}},
		{iface.Filter{Inside: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, []uint32{1, 2}},
		{manyAddresses(1300, someone), []uint32{2}},
		{manyAddresses(5000, someone), []uint32{1, 2}},
	} {
		if err := c.near.SetFilter(row.filter); err != nil {
			t.Fatal(err)
		}
		send(t, c.far, both...)
		got := receive(t, c.near, len(row.want))
		for i, f := range got {
			if numberOf(f) != row.want[i] {
				t.Errorf("frame %d came, want %d", numberOf(f), row.want[i])
			}
		}
		nothingMore(t, c.near)
	}
}

func manyAddresses(n int, last netip.Addr) iface.Filter {
	f := iface.Filter{Ours: []netip.Addr{last}}
	for i := range n - 1 {
		f.Ours = append(f.Ours, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))
	}
	return f
}

func TestPacketFlagsATagTheKernelTookOff(t *testing.T) {
	c := newCable(t)
	for _, size := range []int{60, 1000} { // within a slot of the ring, and longer
		flagsATag(t, c, datagram(c.link, far, ours, 1, size))
	}
}

func flagsATag(t *testing.T, c cable, plain []byte) {
	t.Helper()
	tagged := append(append(bytes.Clone(plain[:12]), 0x81, 0x00, 0x00, 0x07), plain[12:]...)
	double := append(append(bytes.Clone(plain[:12]), 0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x08), plain[12:]...)
	// The doubly tagged frame still has a tag at the ethertype: not admitted.
	send(t, c.far, tagged, double, plain)
	got := receive(t, c.near, 2)
	if !got[0].Tagged || got[1].Tagged {
		t.Errorf("tagged: %v and %v, want the first only", got[0].Tagged, got[1].Tagged)
	}
	if !bytes.Equal(got[0].Data, plain) {
		t.Errorf("the tagged frame came as %x, want it without its tag", got[0].Data)
	}
	nothingMore(t, c.near)
}

func TestPacketDoesNotAllocate(t *testing.T) {
	c := newCable(t)
	frames := make([]iface.Frame, 40)
	for i := range frames {
		frames[i].Data = datagram(c.link, far, ours, uint32(i), 60)
	}
	frames[7].Data = datagram(c.link, far, ours, 7, 1800) // refused
	b := make([]iface.Frame, iface.BatchSize)
	total := 0
	if n := testing.AllocsPerRun(100, func() {
		c.far.Write(frames)
		k, _ := c.near.Read(b)
		c.near.Read(b)
		total += k
	}); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	if total != 101*39 {
		t.Errorf("%d frames came, want %d", total, 101*39)
	}
	if err := netlink.LinkSetDown(c.link); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		c.near.Write(frames)
		c.near.Read(b)
	}); n != 0 {
		t.Errorf("%v allocations while the link is down", n)
	}
}

func TestPacketCloseWhileReading(t *testing.T) {
	c := newCable(t)
	send(t, c.far, datagram(c.link, far, ours, 7, 60))
	b := make([]iface.Frame, 1)
	if n, err := c.near.Read(b); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	reading := make(chan error)
	go func() {
		into := make([]iface.Frame, 8)
		for {
			if _, err := c.near.Read(into[:0]); err != nil {
				reading <- err
				return
			}
			if _, err := c.near.Write(nil); err != nil {
				reading <- err
				return
			}
		}
	}()
	before := c.near.Stats()
	if err := c.near.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-reading; !closed(err) {
		t.Errorf("read: %v, want that the queue is closed", err)
	}
	if err := c.near.Close(); !closed(err) {
		t.Errorf("second close: %v", err)
	}
	if err := c.near.SetFilter(iface.Filter{}); !closed(err) {
		t.Errorf("set the filter: %v", err)
	}
	if got := c.near.Stats(); got != before {
		t.Errorf("counted %+v after closing, %+v before", got, before)
	}
	if c.near.FD() != -1 {
		t.Error("a closed queue has a descriptor")
	}
	if numberOf(b[0]) != 7 {
		t.Error("a borrowed frame changed with the close")
	}
}

func closed(err error) bool { return errors.Is(err, iface.ErrClosed) }
