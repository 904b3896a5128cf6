// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"bytes"
	"testing"

	"github.com/vsnat/vsnat/iface"
)

// Frames that fit a slot and frames that do not come in the order in which they were sent,
// through more slots than there are, and are whole.
func TestPacketReceivesShortAndLongInOrder(t *testing.T) {
	c := newCable(t)
	sizes := []int{60, 1514, 9042, 342, 20_042, 40_042, 61, 64_042, 100, 100}
	const group = 10
	for first := uint32(0); first < iface.ReceiveSlots+100; first += group {
		var frames []iface.Frame
		for i := range uint32(group) {
			f := iface.Frame{Data: datagram(c.link, far, ours, first+i, sizes[(first+i)*7/3%uint32(len(sizes))])}
			if len(f.Data) > 1514 {
				f.Offload = iface.Offload{
					Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOUDPL4, HeaderLen: 42, GSOSize: 1000, ChecksumStart: 34, ChecksumOffset: 6,
				}
			}
			f.Data[len(f.Data)-1] = byte(first)
			frames = append(frames, f)
		}
		if n, err := c.far.Write(frames); n != group || err != nil {
			t.Fatal(n, err)
		}
		for i, f := range receive(t, c.near, group) {
			want := frames[i]
			if !bytes.Equal(f.Data, want.Data) || f.Truncated || f.Kind != iface.Host ||
				f.Offload.GSOSize != want.Offload.GSOSize || f.Offload.NeedsChecksum() != want.Offload.NeedsChecksum() {
				t.Fatalf("frame %d of %d bytes came as number %d of %d bytes, %+v", int(first)+i, len(want.Data), numberOf(f), len(f.Data), f)
			}
		}
	}
	if !iface.HasReceiveRing(c.near) {
		t.Error("without a ring")
	}
	if s := c.near.Stats(); s.ReceivedFrames < iface.ReceiveSlots+100 || s.KernelDrops+s.ReceiveErrors+s.Truncated != 0 {
		t.Errorf("counted %+v", s)
	}
}

// A super-packet that the offload header cannot express takes the ring with it, and not
// the port. The kernel has no way to tell UFO to a packet socket, but lets a TUN device
// send it.
func TestPacketOutlivesItsReceiveRing(t *testing.T) {
	tun, link, ok := openTUN(t, 1500)
	if !ok {
		return
	}
	port := portOf(link)
	port.Ethernet = false
	q, err := iface.OpenPacket(port, iface.PacketOptions{Filter: everything()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })

	write := func(number uint32, size int, o iface.Offload) {
		t.Helper()
		if n, err := tun.Write([]iface.Frame{{Data: datagram(nil, far, ours, number, size)[14:], Offload: o}}); n != 1 || err != nil {
			t.Fatal(n, err, tun.Stats())
		}
	}
	b := make([]iface.Frame, iface.BatchSize)
	read := func() int {
		t.Helper()
		n, err := q.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	write(1, 60, iface.Offload{})
	looker := q.(iface.Looker)
	if ready, known := looker.Ready(); !ready || !known {
		t.Error("the first frame is not there yet")
	}
	if n := read(); n != 1 || read() != 0 {
		t.Fatalf("%d frames came, want the first", n)
	}
	if ready, known := looker.Ready(); ready || !known {
		t.Error("something is left")
	}
	write(2, 5034, iface.Offload{Flags: iface.FlagNeedsChecksum, GSOType: iface.GSOUDP, HeaderLen: 28, GSOSize: 1000, ChecksumStart: 20, ChecksumOffset: 6})
	write(3, 60, iface.Offload{})
	if n := read(); n != 0 || iface.HasReceiveRing(q) {
		t.Fatalf("%d frames came by a ring that is blocked", n)
	}
	write(4, 60, iface.Offload{})
	if _, known := looker.Ready(); known {
		t.Error("it is known without a ring what has come")
	}
	if n := read(); n != 1 {
		t.Fatalf("%d frames came without the ring, want 1", n)
	}
	if s := q.Stats(); s.ReceivedFrames != 2 || s.KernelDrops != 2 || s.ReceiveErrors != 1 {
		t.Errorf("counted %+v", s)
	}
}
