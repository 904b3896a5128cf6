// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// What one shard sends another gets, once, in order and unchanged, while both are at
// work; what does not fit is refused as a whole.
func TestRing(t *testing.T) {
	r := newRing()
	const packets = 20_000
	size := func(n int) int { return n * 7919 % (iface.MaxFrame + 1) }
	fill := func(b []byte, n int) []byte {
		for i := range b {
			b[i] = byte(n + i)
		}
		return b
	}
	go func() {
		b := make([]byte, iface.MaxFrame)
		for n := range packets {
			l := letter{port: uint16(n % nat.MaxPorts), hops: uint8(n % 3), header: 14, from: conntrack.LinkAddr{2, byte(n)}, silent: n%5 == 0}
			l.offload.GSOSize = uint16(n)
			for !r.send(&l, fill(b[:size(n)], n)) {
				runtime.Gosched()
			}
		}
	}()
	want := make([]byte, iface.MaxFrame)
	for n := 0; n < packets; {
		var l letter
		data, next := r.receive(r.taken.Load(), &l)
		if data == nil {
			runtime.Gosched()
			continue
		}
		if !bytes.Equal(data, fill(want[:size(n)], n)) || int(l.port) != n%nat.MaxPorts || int(l.hops) != n%3 || l.header != 14 ||
			l.from != (conntrack.LinkAddr{2, byte(n)}) || l.silent != (n%5 == 0) || l.offload.GSOSize != uint16(n) {
			t.Fatalf("packet %d of %d bytes came as %d bytes with %+v", n, size(n), len(data), l)
		}
		r.taken.Store(next)
		n++
	}
	if !r.empty() {
		t.Error("something is left")
	}
	for full := 0; ; full++ {
		if !r.send(&letter{}, want) {
			if full < ringBytes/len(want)-1 {
				t.Errorf("%d frames of %d bytes fill it", full, len(want))
			}
			break
		}
	}
}

// Handing over costs no memory, on either side.
func TestHandOverAllocatesNothing(t *testing.T) {
	r := newRing()
	data := make([]byte, 1514)
	n := testing.AllocsPerRun(1000, func() {
		if !r.send(&letter{port: 1, header: 14}, data) {
			t.Fatal("no room")
		}
		var l letter
		_, next := r.receive(r.taken.Load(), &l)
		r.taken.Store(next)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The kernel's program and the Forwarder agree: what the program sends to a shard finds its
// connection there, whichever way it goes, in both families, and so does what is said of
// it by ICMP.
func TestSteering(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, v6 := range []bool{false, true} {
		addr := func() netip.Addr {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], random.Uint64())
			binary.BigEndian.PutUint64(b[8:], random.Uint64())
			if v6 {
				return netip.AddrFrom16(b)
			}
			return netip.AddrFrom4([4]byte(b[:]))
		}
		for _, many := range []int{0, 1, 2, 33, 150} {
			var ours []netip.Addr
			for range many {
				ours = append(ours, addr())
			}
			key := nat.NewShardKey()
			if many == 33 {
				key = nat.ShardKey{Mask4: 0xffffff00, Mask6: 0xffffffff_ffff0000}
			}
			raw, err := iface.Steering{Mask4: key.Mask4, Mask6: key.Mask6}.Assemble(ours)
			must(t, err)
			program, ok := bpf.Disassemble(raw)
			if !ok {
				t.Fatal("not all of the program is known")
			}
			vm, err := bpf.NewVM(program)
			must(t, err)
			for i := range 300 {
				outside, other := addr(), addr()
				mine := many > 0 && i%3 != 0
				if mine {
					other = ours[random.IntN(many)]
				}
				for n := 2; n < 6; n++ {
					want := key.Of(new(conntrack.AddrFrom(outside)), n)
					src, dst := outside, other // it arrives
					if !mine {
						src, dst = other, outside // it leaves
					}
					packet := plain(src, dst, 6)
					got, err := vm.Run(packet)
					must(t, err)
					if got%n != want {
						t.Fatalf("%v > %v, %d addresses of ours: queue %d of %d, the Forwarder says %d", src, dst, many, got%n, n, want)
					}
					// About what went the other way, from whoever.
					got, err = vm.Run(errorAbout(addr(), plain(dst, src, 17)))
					must(t, err)
					if got%n != want {
						t.Fatalf("error about %v > %v: queue %d of %d, the Forwarder says %d", dst, src, got%n, n, want)
					}
				}
			}
		}
	}
	raw, err := iface.Steering{}.Assemble(nil)
	must(t, err)
	program, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(program)
	must(t, err)
	if n, err := vm.Run([]byte{0, 1, 8, 0, 6, 4, 0, 1}); n != 0 || err != nil {
		t.Errorf("ARP goes to %d, %v", n, err)
	}
}

// plain is a packet without a payload.
func plain(src, dst netip.Addr, proto byte) []byte {
	if src.Is4() {
		b := make([]byte, 28)
		b[0], b[9] = 0x45, proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return b
	}
	b := make([]byte, 48)
	b[0], b[6] = 6<<4, proto
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return b
}

// errorAbout is an ICMP error to the source of a packet that it quotes.
func errorAbout(from netip.Addr, packet []byte) []byte {
	if from.Is4() {
		e := plain(from, netip.AddrFrom4([4]byte(packet[12:])), 1)
		e[20] = 3
		return append(e, packet...)
	}
	e := plain(from, netip.AddrFrom16([16]byte(packet[8:])), 58)
	e[40] = 1
	return append(e, packet...)
}
