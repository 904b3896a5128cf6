// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bytes"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

// small are n frames that a ring takes, and one batch that it does not.
func small(link netlink.Link, n int) []iface.Frame {
	frames := make([]iface.Frame, n)
	for i := range frames {
		frames[i].Data = datagram(link, far, ours, uint32(i), 60+i*7%400)
		if i%3 == 0 {
			frames[i].Offload = iface.Offload{Flags: iface.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 6}
		}
		if i/iface.BatchSize == 1 {
			frames[i].Data = datagram(link, far, ours, uint32(i), 500)
		}
	}
	return frames
}

// Small frames arrive as they were, among others in order, and their memory is
// the caller's again when Write returns, however late somebody reads them.
func TestPacketSendsSmallFrames(t *testing.T) {
	c := newCable(t)
	const n = 4*iface.BatchSize + 5
	frames := small(c.link, n)
	want := make([]iface.Frame, n)
	for i, f := range frames {
		want[i] = iface.Frame{Data: bytes.Clone(f.Data), Offload: f.Offload}
	}
	if sent, err := c.far.Write(frames); sent != n || err != nil {
		t.Fatalf("%d sent, %v", sent, err)
	}
	for _, f := range frames {
		for i := range f.Data {
			f.Data[i] = 0xee
		}
	}
	if sent, err := c.far.Write(frames[:10]); sent != 10 || err != nil { // the same slots, with garbage
		t.Fatalf("%d sent, %v", sent, err)
	}
	for i, f := range receive(t, c.near, n) {
		if !bytes.Equal(f.Data, want[i].Data) || f.Offload != want[i].Offload {
			t.Fatalf("frame %d arrived as\n%x %+v, want\n%x %+v", i, f.Data, f.Offload, want[i].Data, want[i].Offload)
		}
	}
	var bytes uint64
	for _, f := range want {
		bytes += uint64(len(f.Data))
	}
	for _, f := range frames[:10] {
		bytes += uint64(len(f.Data))
	}
	if s := c.far.Stats(); s.SentFrames != n+10 || s.SentBytes != bytes || s.SendDrops != 0 || s.SendRefused != 0 {
		t.Errorf("counted %+v, want %d frames and %d bytes", s, n+10, bytes)
	}
}

// What a ring did not send is not in it when the link is up again.
func TestPacketSendsSmallFramesAfterTheLinkWasDown(t *testing.T) {
	c := newCable(t)
	frames := small(c.link, 20)
	for range 3 {
		if sent, err := c.far.Write(frames[:7]); sent != 7 || err != nil {
			t.Fatalf("%d sent, %v", sent, err)
		}
		if got := receive(t, c.near, 7); numberOf(got[6]) != 6 {
			t.Fatalf("the last frame is number %d", numberOf(got[6]))
		}
		if err := netlink.LinkSetDown(c.farLink); err != nil {
			t.Fatal(err)
		}
		if sent, err := c.far.Write(frames); sent != 0 || !iface.IsDown(err) {
			t.Fatalf("%d sent, %v, want that the link is down", sent, err)
		}
		if err := netlink.LinkSetUp(c.farLink); err != nil {
			t.Fatal(err)
		}
		if sent := iface.SendByRing(c.far, frames[:3]); sent != 3 {
			t.Fatalf("the ring sends %d of 3", sent)
		}
		receive(t, c.near, 3)
	}
	nothingMore(t, c.near)
	if s := c.far.Stats(); s.SentFrames != 21 || s.SendDrops != 60 {
		t.Errorf("counted %+v, want 21 sent and 60 dropped", s)
	}
}

// A link may take less than the ring does.
func TestPacketSendsNoSmallFrameAboveTheMTU(t *testing.T) {
	link := quietCable(t)
	if err := netlink.LinkSetMTU(link, 200); err != nil {
		t.Fatal(err)
	}
	port := portOf(link)
	port.MTU = 200
	q, err := iface.OpenPacket(port, iface.PacketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	frames := make([]iface.Frame, 8)
	for i := range frames {
		frames[i].Data = datagram(nil, ours, far, uint32(i), 213+i%2*2)
	}
	if n, err := q.Write(frames); n != 4 || err != nil {
		t.Errorf("%d sent, %v, want the four that fit", n, err)
	}
	if s := q.Stats(); s.SendRefused != 4 || s.SentFrames != 4 {
		t.Errorf("counted %+v, want 4 sent and 4 refused", s)
	}
}
