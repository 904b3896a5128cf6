// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/vsnat/vsnat/iface"
)

// admits is what a filter means, written without its cleverness.
func admits(f iface.Filter, layer iface.Layer, frame []byte) bool {
	packet := frame
	if layer == iface.Ethernet {
		if len(frame) < 14 {
			return false
		}
		packet = frame[14:]
		switch binary.BigEndian.Uint16(frame[12:]) {
		case 0x0806:
			return true
		case 0x0800:
		default:
			return false
		}
	} else if len(frame) == 0 || frame[0]>>4 != 4 {
		return false
	}
	if len(f.Ours) > 0 && len(packet) < 20 {
		return false // a question beyond the end is answered with no
	}
	within := func(offset int, is func(netip.Addr) bool) bool {
		return len(packet) >= offset+4 && is(netip.AddrFrom4([4]byte(packet[offset:])))
	}
	return within(16, func(a netip.Addr) bool { return slices.Contains(f.Ours, a) }) ||
		within(12, func(a netip.Addr) bool {
			return slices.ContainsFunc(f.Inside, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
		})
}

func machine(t *testing.T, f iface.Filter, layer iface.Layer) *bpf.VM {
	t.Helper()
	raw, err := f.Assemble(layer)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 4096 {
		t.Fatalf("%d instructions, the kernel takes 4096", len(raw))
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("an instruction does not disassemble")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t *testing.T, vm *bpf.VM, frame []byte) bool {
	t.Helper()
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 && n < 0x40000 {
		t.Fatalf("the frame is cut to %d bytes", n)
	}
	return n != 0
}

// Addresses come from a small range so that hits, near misses and prefixes
// inside each other are common.
func address(r *rand.Rand, spread uint32) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], 0x0a000000+r.Uint32N(spread))
	return netip.AddrFrom4(raw)
}

func randomFrame(r *rand.Rand, layer iface.Layer, spread uint32) []byte {
	var frame []byte
	if layer == iface.Ethernet {
		types := []uint16{0x0800, 0x0800, 0x0800, 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x0000}
		frame = make([]byte, 14)
		kind := types[r.IntN(len(types))]
		binary.BigEndian.PutUint16(frame[12:], kind)
		if kind == 0x8100 || kind == 0x88a8 {
			frame = append(frame, 0, 1, 0x08, 0x00)
		}
	}
	source, destination := address(r, spread).As4(), address(r, spread).As4()
	header := make([]byte, 20)
	header[0] = []byte{0x45, 0x45, 0x45, 0x45, 0x60, 0x00, 0xf5}[r.IntN(7)]
	copy(header[12:], source[:])
	copy(header[16:], destination[:])
	frame = append(frame, header...)
	if r.IntN(8) == 0 {
		frame = frame[:r.IntN(len(frame)+1)]
	}
	return frame
}

func TestFilterAdmitsWhatItSays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, layer := range []iface.Layer{iface.Ethernet, iface.Network} {
		for _, size := range []int{0, 1, 2, 31, 32, 33, 64, 65, 300, 1200} {
			t.Run(fmt.Sprintf("layer %d, %d addresses", layer, size), func(t *testing.T) {
				spread := uint32(3*size + 10)
				var f iface.Filter
				for range size {
					f.Ours = append(f.Ours, address(r, spread))
				}
				for range min(size, 60) {
					f.Inside = append(f.Inside, netip.PrefixFrom(address(r, spread), 24+r.IntN(9)))
				}
				if size == 2 {
					f.Inside = nil
				}
				vm := machine(t, f, layer)
				admitted := 0
				for range 4000 {
					frame := randomFrame(r, layer, spread)
					got, want := run(t, vm, frame), admits(f, layer, frame)
					if got != want {
						t.Fatalf("admitted %v, want %v: frame %x", got, want, frame)
					}
					if got {
						admitted++
					}
				}
				if size > 0 && (admitted == 0 || admitted == 4000) {
					t.Fatalf("%d of 4000 frames admitted: the frames test nothing", admitted)
				}
			})
		}
	}
}

func TestFilterFindsEachOfManyAddresses(t *testing.T) {
	var f iface.Filter
	for i := range 1300 {
		f.Ours = append(f.Ours, netip.AddrFrom4([4]byte{byte(10 + i%7*30), byte(i >> 8), byte(i), 1}))
	}
	vm := machine(t, f, iface.Network)
	for _, addr := range f.Ours {
		packet := make([]byte, 20)
		packet[0] = 0x45
		for bit := -1; bit < 32; bit++ {
			raw := addr.As4()
			if bit >= 0 {
				raw[bit/8] ^= 1 << (bit % 8)
			}
			copy(packet[16:], raw[:])
			if got, want := run(t, vm, packet), slices.Contains(f.Ours, netip.AddrFrom4(raw)); got != want {
				t.Fatalf("to %v: admitted %v, want %v", netip.AddrFrom4(raw), got, want)
			}
		}
	}
}

func TestFilterTooLongAdmitsAllIPv4(t *testing.T) {
	var f iface.Filter
	for i := range 20000 {
		f.Ours = append(f.Ours, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))
	}
	vm := machine(t, f, iface.Ethernet)
	frame := make([]byte, 34)
	for kind, want := range map[uint16]bool{0x0800: true, 0x0806: true, 0x86dd: false, 0x8100: false} {
		binary.BigEndian.PutUint16(frame[12:], kind)
		if got := run(t, vm, frame); got != want {
			t.Errorf("ethertype %#04x: admitted %v, want %v", kind, got, want)
		}
	}
}

func TestFilterKnowsBothFormsOfAnIPv4Address(t *testing.T) {
	vm := machine(t, iface.Filter{
		Ours:   []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		Inside: []netip.Prefix{netip.MustParsePrefix("::ffff:10.1.0.0/112"), netip.MustParsePrefix("2001:db8::/32"), {}},
	}, iface.Network)
	for _, row := range []struct {
		source, destination string
		want                bool
	}{
		{"198.51.100.1", "192.0.2.1", true},
		{"198.51.100.1", "192.0.2.2", false},
		{"10.1.255.1", "198.51.100.1", true},
		{"10.2.0.1", "198.51.100.1", false},
	} {
		packet := make([]byte, 20)
		packet[0] = 0x45
		copy(packet[12:], netip.MustParseAddr(row.source).AsSlice())
		copy(packet[16:], netip.MustParseAddr(row.destination).AsSlice())
		if got := run(t, vm, packet); got != row.want {
			t.Errorf("%s to %s: admitted %v, want %v", row.source, row.destination, got, row.want)
		}
	}
}

func TestFilterInsideEverything(t *testing.T) {
	vm := machine(t, iface.Filter{Inside: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, iface.Network)
	packet := make([]byte, 20)
	packet[0] = 0x45
	if !run(t, vm, packet) {
		t.Error("an IPv4 packet is refused although every source is inside")
	}
	packet[0] = 0x60
	if run(t, vm, packet) {
		t.Error("an IPv6 packet is admitted")
	}
}
