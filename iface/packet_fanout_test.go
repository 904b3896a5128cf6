// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/iface"
)

// Several queues of one link get each frame once. What comes from an outside address and
// what goes to it come by one queue, the same after the link was down, and with addresses
// of ours that are new.
func TestQueuesDivideALink(t *testing.T) {
	link := quietCable(t)
	farLink, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	far := open(t, farLink, iface.PacketOptions{})
	inside := netip.MustParseAddr("10.0.0.2")
	filter := iface.Filter{Inside: []netip.Prefix{netip.PrefixFrom(inside, 32)}}
	const size = 3
	queues, err := iface.OpenPackets(portOf(link), iface.PacketOptions{Filter: filter}, iface.Steering{Mask4: ^uint32(0), Mask6: ^uint64(0)}, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		t.Cleanup(func() { q.Close() })
	}
	follow := func(f iface.Filter) {
		t.Helper()
		for _, q := range queues {
			if err := q.SetFilter(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	const many = 60
	outside := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }
	// where sends and tells by which queue each frame came: from outside to an address, and
	// from inside to outside.
	where := func(to netip.Addr) (in, out [many]int) {
		t.Helper()
		var frames [][]byte
		for i := range many {
			frames = append(frames, datagram(link, outside(i), to, uint32(i), 60), datagram(link, inside, outside(i), uint32(many+i), 60))
			in[i], out[i] = -1, -1
		}
		for len(frames) > 0 {
			n := min(len(frames), iface.BatchSize)
			send(t, far, frames[:n]...)
			frames = frames[n:]
		}
		seen := 0
		for n, q := range queues {
			var b [iface.BatchSize]iface.Frame
			for {
				got, err := q.Read(b[:])
				if err != nil && !iface.IsDown(err) {
					t.Fatal(err)
				}
				for _, f := range b[:got] {
					seen++
					if number := int(numberOf(f)); number < many {
						in[number] = n
					} else {
						out[number-many] = n
					}
				}
				if got == 0 && err == nil {
					break
				}
			}
		}
		if seen != 2*many {
			t.Fatalf("%d frames came of %d", seen, 2*many)
		}
		return in, out
	}

	follow(iface.Filter{Inside: filter.Inside, Ours: []netip.Addr{ours}})
	in, out := where(ours)
	if in != out {
		t.Errorf("by one queue from outside and by another to it:\n%v\n%v", in, out)
	}
	var spread [size]int
	for _, n := range in {
		spread[n]++
	}
	for n := range spread {
		if spread[n] < many/size/2 {
			t.Errorf("queue %d of %v has too little to do", n, spread)
		}
	}
	for range 3 {
		if err := netlink.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	if again, back := where(ours); again != in || back != in {
		t.Errorf("after the link was down\n%v\n%v, before\n%v", again, back, in)
	}
	follow(iface.Filter{Inside: filter.Inside, Ours: []netip.Addr{ours, someone}})
	if again, back := where(someone); again != in || back != in {
		t.Errorf("to a new address\n%v\n%v, to the other\n%v", again, back, in)
	}
}

// Queues that are opened while the link is down divide it when it is up.
func TestQueuesOfALinkThatIsDown(t *testing.T) {
	link := quietCable(t)
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	queues, err := iface.OpenPackets(portOf(link), iface.PacketOptions{Filter: everything()}, iface.Steering{Mask4: ^uint32(0)}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		t.Cleanup(func() { q.Close() })
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	farLink, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	far := open(t, farLink, iface.PacketOptions{})
	var came [2]int
	for i := range 40 {
		send(t, far, datagram(link, someone, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), uint32(i), 60))
	}
	for n, q := range queues {
		var b [iface.BatchSize]iface.Frame
		came[n], _ = q.Read(b[:])
		if came[n] == 0 {
			came[n], _ = q.Read(b[:]) // the first told that the link was down
		}
	}
	if came[0]+came[1] != 40 || came[0] == 0 || came[1] == 0 {
		t.Errorf("%v frames came of 40", came)
	}
}
