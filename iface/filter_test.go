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
	packet, version := frame, 0
	if layer == iface.Ethernet {
		if len(frame) < 14 {
			return false
		}
		packet = frame[14:]
		switch binary.BigEndian.Uint16(frame[12:]) {
		case 0x0806:
			return true
		case 0x0800:
			version = 4
		case 0x86dd:
			version = 6
		}
	} else if len(frame) > 0 {
		version = int(frame[0] >> 4)
	}
	var source, destination netip.Addr
	icmp := false
	switch {
	case version == 4 && len(packet) >= 20:
		source, destination = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		icmp = packet[9] == 1
	case version == 6 && len(packet) >= 40:
		source, destination = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		icmp = packet[6] == 58
		if layer == iface.Ethernet && packet[6] == 58 {
			if len(packet) == 40 {
				return false // ICMPv6 without a type
			}
			if packet[40] >= 133 && packet[40] <= 137 {
				return true
			}
		}
	default:
		return false
	}
	return slices.Contains(f.Ours, destination) ||
		icmp && slices.Contains(f.Errors, destination) ||
		slices.ContainsFunc(f.Networks, func(p netip.Prefix) bool { return p.Masked().Contains(destination) }) ||
		slices.ContainsFunc(f.Inside, func(p netip.Prefix) bool { return p.Masked().Contains(source) })
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
// inside each other are common. Those of IPv6 share all of their words, three,
// two, or only the first.
func address(r *rand.Rand, spread uint32) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], 0x0a000000+r.Uint32N(spread))
	return netip.AddrFrom4(raw)
}

func address6(r *rand.Rand, spread uint32) netip.Addr {
	raw := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	word := r.IntN(3)
	for i := 4 + 4*word; i < 16; i += 4 {
		binary.BigEndian.PutUint32(raw[i:], r.Uint32N(1+spread/6))
	}
	return netip.AddrFrom16(raw)
}

// near is an address of the filter, or one that differs from it in one bit, or
// any of the range.
func near(r *rand.Rand, f iface.Filter, bits int, spread uint32) netip.Addr {
	list := f.Ours
	if len(f.Errors) > 0 && r.IntN(2) == 0 {
		list = f.Errors
	}
	if len(list) > 0 && r.IntN(2) == 0 {
		if a := list[r.IntN(len(list))]; a.BitLen() == bits {
			raw := a.AsSlice()
			raw[r.IntN(len(raw))] ^= byte(r.IntN(2)) << r.IntN(8)
			a, _ = netip.AddrFromSlice(raw)
			return a
		}
	}
	if bits == 32 {
		return address(r, spread)
	}
	return address6(r, spread)
}

func randomFrame(r *rand.Rand, layer iface.Layer, f iface.Filter, spread uint32) []byte {
	var frame []byte
	version := []byte{4, 4, 6, 6, 0, 15}[r.IntN(6)]
	if layer == iface.Ethernet {
		frame = make([]byte, 14)
		kind := map[byte]uint16{4: 0x0800, 6: 0x86dd, 0: 0x0806, 15: 0x8100}[version]
		if r.IntN(8) == 0 {
			kind = 0x88a8
		}
		binary.BigEndian.PutUint16(frame[12:], kind)
		if kind == 0x8100 || kind == 0x88a8 {
			frame = append(frame, 0, 1, 0x08, 0x00)
		}
	}
	header := make([]byte, 20)
	if version == 6 {
		header = make([]byte, 40+r.IntN(3))
		header[6] = []byte{6, 17, 58, 58, 0, 44, 43}[r.IntN(7)]
		copy(header[8:], near(r, f, 128, spread).AsSlice())
		copy(header[24:], near(r, f, 128, spread).AsSlice())
		if len(header) > 40 {
			header[40] = byte(128 + r.IntN(12))
		}
	} else {
		header[9] = byte(r.IntN(3))
		copy(header[12:], near(r, f, 32, spread).AsSlice())
		copy(header[16:], near(r, f, 32, spread).AsSlice())
	}
	header[0] = version<<4 | 5
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
				for range min(size, 50, 1200-size) {
					f.Ours = append(f.Ours, address6(r, spread))
				}
				for range min(size, 10, 1200-size) {
					f.Inside = append(f.Inside, netip.PrefixFrom(address6(r, spread), 60+r.IntN(69)))
				}
				for range min(size, 5) {
					f.Networks = append(f.Networks, netip.PrefixFrom(address(r, spread), 28+r.IntN(5)), netip.PrefixFrom(address6(r, spread), 90+r.IntN(39)))
				}
				for range min(size, 7) {
					f.Errors = append(f.Errors, address(r, spread), address6(r, spread))
				}
				if size == 2 {
					f.Inside, f.Networks = nil, nil
				}
				vm := machine(t, f, layer)
				admitted := 0
				for range 4000 {
					frame := randomFrame(r, layer, f, spread)
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

func TestFilterFindsEachOfManyIPv6Addresses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var f iface.Filter
	for i := range 240 {
		raw := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint64(raw[8:], r.Uint64())
		if i%2 == 0 { // half of them in one row
			clear(raw[8:])
			raw[15] = byte(i)
		}
		f.Ours = append(f.Ours, netip.AddrFrom16(raw))
	}
	vm := machine(t, f, iface.Network)
	for _, addr := range f.Ours {
		packet := make([]byte, 40)
		packet[0] = 0x60
		for bit := -1; bit < 128; bit++ {
			raw := addr.As16()
			if bit >= 0 {
				raw[bit/8] ^= 1 << (bit % 8)
			}
			copy(packet[24:], raw[:])
			if got, want := run(t, vm, packet), slices.Contains(f.Ours, netip.AddrFrom16(raw)); got != want {
				t.Fatalf("to %v: admitted %v, want %v", netip.AddrFrom16(raw), got, want)
			}
		}
	}
}

func TestFilterTooLongAdmitsAllOfItsFamily(t *testing.T) {
	many := func(v6 bool) []netip.Addr {
		var list []netip.Addr
		for i := range 20000 {
			if v6 {
				list = append(list, netip.AddrFrom16([16]byte{0x20, byte(i >> 8), byte(i), 15: 1}))
			} else {
				list = append(list, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))
			}
		}
		return list
	}
	one4, one6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, row := range []struct {
		name string
		ours []netip.Addr
		all4 bool
		all6 bool
	}{
		{"IPv4", append(many(false), one6), true, false},
		{"IPv6", append(many(true), one4), false, true},
		{"both", append(many(true), many(false)...), true, true},
	} {
		vm := machine(t, iface.Filter{Ours: row.ours}, iface.Ethernet)
		frame := make([]byte, 14+40)
		admit := func(kind uint16, to netip.Addr) bool {
			binary.BigEndian.PutUint16(frame[12:], kind)
			clear(frame[14:])
			at := 14 + 16
			if to.Is6() {
				at = 14 + 24
			}
			copy(frame[at:], to.AsSlice())
			return run(t, vm, frame)
		}
		for _, c := range []struct {
			what string
			kind uint16
			to   netip.Addr
			want bool
		}{
			{"any IPv4", 0x0800, netip.MustParseAddr("198.51.100.1"), row.all4},
			{"any IPv6", 0x86dd, netip.MustParseAddr("2001:db8::99"), row.all6},
			{"the one of IPv4", 0x0800, one4, true},
			{"the one of IPv6", 0x86dd, one6, true},
			{"ARP", 0x0806, one4, true},
			{"a VLAN", 0x8100, one4, false},
		} {
			if got := admit(c.kind, c.to); got != c.want {
				t.Errorf("too long a list of %s: %s admitted %v, want %v", row.name, c.what, got, c.want)
			}
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
		{"2001:db9::1", "2001:db8::1", true},
		{"2001:db9::1", "2001:db8::2", false},
		{"2001:db8:ffff::1", "2001:db9::1", true},
	} {
		packet := make([]byte, 40)
		source, destination := netip.MustParseAddr(row.source), netip.MustParseAddr(row.destination)
		if packet[0] = 0x45; source.Is4() {
			copy(packet[12:], source.AsSlice())
			copy(packet[16:], destination.AsSlice())
		} else {
			packet[0] = 0x60
			copy(packet[8:], source.AsSlice())
			copy(packet[24:], destination.AsSlice())
		}
		if got := run(t, vm, packet); got != row.want {
			t.Errorf("%s to %s: admitted %v, want %v", row.source, row.destination, got, row.want)
		}
	}
}

func TestFilterEverything(t *testing.T) {
	for _, row := range []struct {
		network string
		version byte
		want    bool
	}{{"0.0.0.0/0", 0x45, true}, {"0.0.0.0/0", 0x60, false}, {"::/0", 0x60, true}, {"::/0", 0x45, false}} {
		all := []netip.Prefix{netip.MustParsePrefix(row.network)}
		for side, f := range map[string]iface.Filter{"from": {Inside: all}, "to": {Networks: all}} {
			packet := make([]byte, 40)
			packet[0] = row.version
			if got := run(t, machine(t, f, iface.Network), packet); got != row.want {
				t.Errorf("%s %s: a packet that begins with %x is admitted: %v", side, row.network, row.version, got)
			}
		}
	}
}
