// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

func TestPacketSkipsWhatCannotBeSent(t *testing.T) {
	c := newCable(t)
	bad := iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 1000, ChecksumOffset: 16}
	b := []iface.Frame{
		{Data: datagram(c.link, far, ours, 0, 60)},
		{Data: datagram(c.link, far, ours, 1, 1800)},             // longer than the MTU
		{Data: datagram(c.link, far, ours, 2, 60), Offload: bad}, // checksum beyond the end
		{Data: datagram(c.link, far, ours, 3, 60)},
		{Data: datagram(c.link, far, ours, 4, 60), Truncated: true},
		{Data: nil},
		{Data: make([]byte, 5)}, // no whole header
		{Data: datagram(c.link, far, ours, 7, 60), Offload: iface.Offload{GSOType: 99, GSOSize: 10}},
		// The hint of what was a super-packet once does no harm.
		{Data: datagram(c.link, far, ours, 8, 60), Offload: iface.Offload{HeaderLen: 9000}},
	}
	n, err := c.far.Write(b)
	if n != 3 || err != nil {
		t.Errorf("%d frames sent, %v; want 3", n, err)
	}
	got := receive(t, c.near, 3)
	for i, want := range []uint32{0, 3, 8} {
		if numberOf(got[i]) != want {
			t.Errorf("frame %d came, want %d", numberOf(got[i]), want)
		}
	}
	if s := c.far.Stats(); s.SentFrames != 3 || s.SendRefused != 6 || s.SendDrops != 0 {
		t.Errorf("counted %+v, want 3 sent and 6 refused", s)
	}
}

func TestPacketSurvivesALinkThatGoesDown(t *testing.T) {
	c := newCable(t)
	poller := newPoller(t)
	poller.Add(c.near.FD(), 1)
	frame := []iface.Frame{{Data: datagram(c.link, far, ours, 1, 60)}}
	b := make([]iface.Frame, 4)
	for round := range 3 {
		send(t, c.far, frame[0].Data) // still waiting when the link goes down
		if err := netlink.LinkSetDown(c.link); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, poller, 30*time.Second); len(got) != 1 {
			t.Fatal("the poller does not report a link that went down")
		}
		n, err := c.near.Read(b)
		if n > 0 && err == nil { // what was waiting came before the news
			_, err = c.near.Read(b)
		}
		if !iface.IsDown(err) || iface.IsGone(err) {
			t.Fatalf("round %d: read: %v, want that the link is down", round, err)
		}
		if n != 1 {
			t.Errorf("round %d: %d frames with the error, want the one that was waiting", round, n)
		}
		nothingMore(t, c.near) // reported once
		if got := wait(t, poller, 0); len(got) != 0 {
			t.Fatal("the poller would spin")
		}
		n, err = c.near.Write(frame)
		if n != 0 || !iface.IsDown(err) {
			t.Fatalf("round %d: write: %d, %v, want that the link is down", round, n, err)
		}
		if err := netlink.LinkSetUp(c.link); err != nil {
			t.Fatal(err)
		}
		send(t, c.far, frame[0].Data)
		receive(t, c.near, 1)
		send(t, c.near, frame[0].Data)
	}
	if s := c.near.Stats(); s.SendDrops != 3 || s.SentFrames != 3 || s.SendRefused != 0 {
		t.Errorf("counted %+v, want 3 dropped and 3 sent", s)
	}
}

func TestPacketOpensOnALinkThatIsDown(t *testing.T) {
	link := quietCable(t)
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	q := open(t, link, iface.PacketOptions{Filter: everything()})
	if _, err := q.Read(make([]iface.Frame, 1)); !iface.IsDown(err) {
		t.Fatalf("read: %v, want that the link is down", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	send(t, q, datagram(nil, ours, far, 1, 60))
	nothingMore(t, q)
}

func TestPacketTellsALinkThatIsGone(t *testing.T) {
	c := newCable(t)
	poller := newPoller(t)
	poller.Add(c.near.FD(), 1)
	if err := netlink.LinkDel(c.link); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, poller, 30*time.Second); len(got) != 1 {
		t.Fatal("the poller does not report a link that was removed")
	}
	b := make([]iface.Frame, 4)
	for range 2 {
		if _, err := c.near.Read(b); !iface.IsGone(err) {
			t.Fatalf("read: %v, want that the link is gone", err)
		}
		b[0] = iface.Frame{Data: datagram(nil, far, ours, 1, 60)}
		if n, err := c.near.Write(b[:1]); n != 0 || !iface.IsGone(err) {
			t.Fatalf("write: %d, %v, want that the link is gone", n, err)
		}
	}
	if _, err := iface.OpenPacket(portOf(c.link), iface.PacketOptions{}); !iface.IsGone(err) {
		t.Errorf("open: %v, want that the link is gone", err)
	}
}

// The kernel wakes nobody for a link that is removed while it is down.
func TestPacketTellsALinkThatIsGoneWhileDown(t *testing.T) {
	c := newCable(t)
	b := make([]iface.Frame, 4)
	if err := netlink.LinkSetDown(c.link); err != nil {
		t.Fatal(err)
	}
	if _, err := c.near.Read(b); !iface.IsDown(err) {
		t.Fatalf("read: %v, want that the link is down", err)
	}
	if err := netlink.LinkDel(c.link); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.near.Read(b); !iface.IsGone(err) {
			t.Fatalf("read: %v, want that the link is gone", err)
		}
	}
}

// Without a carrier the driver's queue takes nothing (ENOBUFS): each frame is
// given up and counted, and the write ends.
func TestPacketGivesUpOnALinkThatTakesNothing(t *testing.T) {
	c := newCable(t)
	if err := netlink.LinkSetDown(c.farLink); err != nil {
		t.Fatal(err)
	}
	frames := make([]iface.Frame, 100)
	for i := range frames {
		frames[i].Data = datagram(nil, ours, far, uint32(i), 60)
	}
	if n, err := c.near.Write(frames); n != 0 || err != nil {
		t.Errorf("%d sent, %v", n, err)
	}
	if s := c.near.Stats(); s.SendDrops != 100 || s.SentFrames != 0 || s.SendRefused != 0 {
		t.Errorf("counted %+v, want 100 dropped", s)
	}
}

// A queueing discipline that holds frames back fills the send buffer (EAGAIN).
// What is dropped is counted, and the write ends.
func TestPacketGivesUpOnAFullSendBuffer(t *testing.T) {
	c := newCable(t)
	qdisc := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: c.link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		// 1000 bytes a second after a burst of 2000, which is 2 s in units of 64 ns.
		Rate: 1000, Limit: 1 << 30, Buffer: 2e9 / 64,
	}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		// A kernel without sch_tbf has nothing that holds frames back; that a
		// full queue drops and counts is tested with ENOBUFS above.
		if !errors.Is(err, syscall.ENOENT) {
			t.Fatal(err)
		}
		return
	}
	q := open(t, c.link, iface.PacketOptions{SendBuffer: 64 << 10, Egress: iface.EgressQueued})
	frames := make([]iface.Frame, 600)
	for i := range frames {
		frames[i].Data = datagram(nil, ours, far, uint32(i), 1000)
	}
	n, err := q.Write(frames)
	if n == 0 || n >= 600 || err != nil {
		t.Errorf("%d sent, %v", n, err)
	}
	if s := q.Stats(); s.SentFrames != uint64(n) || s.SendDrops != uint64(600-n) || s.SendRefused != 0 {
		t.Errorf("%d sent, counted %+v", n, s)
	}
}

func TestPacketCountsWhatTheKernelDropped(t *testing.T) {
	long := iface.Offload{Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOUDPL4, HeaderLen: 42, GSOSize: 1000, ChecksumStart: 34, ChecksumOffset: 6}
	for name, row := range map[string]struct {
		frames, size int
		offload      iface.Offload
	}{
		"short": {iface.ReceiveSlots + 300, 300, iface.Offload{}},
		"long":  {100, 9042, long},
	} {
		t.Run(name, func(t *testing.T) {
			link := quietCable(t)
			farLink, err := netlink.LinkByName("far")
			if err != nil {
				t.Fatal(err)
			}
			q := open(t, link, iface.PacketOptions{Filter: everything(), ReceiveBuffer: 16 << 10})
			sender := open(t, farLink, iface.PacketOptions{})
			frame := []iface.Frame{{Data: datagram(link, far, ours, 1, row.size), Offload: row.offload}}
			for round := range 2 {
				for range row.frames {
					if n, err := sender.Write(frame); n != 1 || err != nil {
						t.Fatal(n, err)
					}
				}
				total, received := uint64((round+1)*row.frames), 0
				for b := make([]iface.Frame, iface.BatchSize); ; {
					n, err := q.Read(b)
					if err != nil {
						t.Fatal(err)
					}
					if n == 0 {
						break
					}
					received += n
				}
				s := q.Stats()
				if s.KernelDrops == 0 || s.ReceivedFrames+s.KernelDrops != total {
					t.Errorf("round %d: %d received, %d dropped, want %d together", round, s.ReceivedFrames, s.KernelDrops, total)
				}
				if received == row.frames {
					t.Error("the buffer was never full")
				}
				if !iface.HasReceiveRing(q) {
					t.Error("a ring that was full is taken for one that is blocked")
				}
				if again := q.Stats(); again.KernelDrops != s.KernelDrops {
					t.Errorf("asking twice changed %d drops to %d", s.KernelDrops, again.KernelDrops)
				}
			}
		})
	}
}

// A frame above 64 KiB (BIG TCP) does not fit: delivered cut, flagged, never sent.
func TestPacketFlagsAFrameThatDoesNotFit(t *testing.T) {
	c := newCable(t)
	for _, link := range []netlink.Link{c.link, c.farLink} {
		if err := errors.Join(netlink.LinkSetMTU(link, 65535), netlink.LinkSetGSOIPv4MaxSize(link, 200_000)); err != nil {
			t.Fatal(err)
		}
	}
	fits := datagram(c.link, far, ours, 1, 65535+14)
	// A super-packet may exceed the MTU; the kernel's own limit is 512 KiB.
	huge := datagram(c.link, far, ours, 2, 100_000)
	binary.BigEndian.PutUint16(huge[16:], 0)
	b := []iface.Frame{
		{Data: fits},
		{Data: huge, Offload: iface.Offload{Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOUDPL4, HeaderLen: 42, GSOSize: 1400, ChecksumStart: 34, ChecksumOffset: 6}},
	}
	if n, err := c.far.Write(b); n != 2 || err != nil {
		t.Fatalf("%d sent, %v (%+v)", n, err, c.far.Stats())
	}
	got := receive(t, c.near, 2)
	if got[0].Truncated || !bytes.Equal(got[0].Data, fits) {
		t.Errorf("the largest frame that fits came with %d of %d bytes", len(got[0].Data), len(fits))
	}
	if !got[1].Truncated {
		t.Errorf("a frame of %d bytes came with %d and no flag", len(huge), len(got[1].Data))
	}
	if n, err := c.near.Write(got[1:]); n != 0 || err != nil {
		t.Errorf("a cut frame was sent on: %d, %v", n, err)
	}
	if s := c.near.Stats(); s.Truncated != 1 || s.SendRefused != 1 {
		t.Errorf("counted %+v, want 1 truncated and 1 refused", s)
	}
}
