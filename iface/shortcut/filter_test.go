// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// open makes a table, or tests that it is refused as it ought to be, where programs can't
// be had.
func open(t *testing.T, rows int) *Table {
	t.Helper()
	table, err := Open(rows)
	if err != nil {
		if !strings.Contains(err.Error(), "hint: they need CAP_BPF and CAP_NET_ADMIN") && !strings.Contains(err.Error(), "hint: Linux 6.6") {
			t.Fatalf("refused without a hint: %v", err)
		}
		return nil
	}
	t.Cleanup(table.Close)
	return table
}

// filterAtLink is the filter as a program that can be given frames: one of a socket would
// be given packets.
func filterAtLink(t *testing.T, table *Table) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: license, Instructions: table.programs().filter()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

func addresses(list ...string) (addrs []netip.Addr) {
	for _, text := range list {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, text := range list {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// TestFilterIsTheClassicOne compares the filter with what queues without shortcuts attach,
// on frames from few addresses, so that most lists are hit.
func TestFilterIsTheClassicOne(t *testing.T) {
	table := open(t, 1)
	if table == nil {
		return
	}
	program := filterAtLink(t, table)
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range []iface.Filter{
		{},
		{Ours: addresses("10.0.0.1", "2001:db8::1"), Inside: prefixes("10.0.0.2/32", "2001:db8::2/128")},
		{
			Ours: addresses("10.0.0.3", "2001:db8::2"), Errors: addresses("10.0.0.2", "2001:db8::3"),
			Inside: prefixes("10.0.0.0/30", "2001:db8::/126"), Networks: prefixes("10.0.0.4/31", "2001:db8::4/127", "10.0.0.1/32"),
		},
		{Inside: prefixes("10.0.0.6/31"), Networks: prefixes("10.0.0.0/24", "10.0.0.4/30")},
		{Inside: prefixes("0.0.0.0/0"), Networks: prefixes("2001:db8::/125")},
		{Inside: prefixes("::/0")},
	} {
		if err := table.AttachFilter(-1, f); err == nil {
			t.Fatal("attached to no socket")
		}
		raw, err := f.Assemble(iface.Ethernet)
		if err != nil {
			t.Fatal(err)
		}
		instructions, _ := bpf.Disassemble(raw)
		classic, err := bpf.NewVM(instructions)
		if err != nil {
			t.Fatal(err)
		}
		admitted := 0
		const frames = 1500
		for range frames {
			frame := randomFrame(r)
			want, err := classic.Run(frame)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := program.Test(frame)
			if errors.Is(err, unix.EINVAL) && len(frame) < 14+40 {
				continue // the kernel tests with no less than an IP header
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got != 0) != (want != 0) || got != 0 && got != admitAll {
				t.Fatalf("%+v: %d, the classic one says %d: % x", f, got, want, frame)
			}
			if got != 0 {
				admitted++
			}
		}
		if admitted == 0 || admitted == frames {
			t.Errorf("%+v admits %d of %d frames: they test nothing", f, admitted, frames)
		}
	}
}

// randomFrame is ARP, IPv4, IPv6 or something else, sometimes cut.
func randomFrame(r *rand.Rand) []byte {
	pick := func(list ...byte) byte { return list[r.IntN(len(list))] }
	frame := make([]byte, 14+40+20)
	switch r.IntN(8) {
	case 0:
		frame[12], frame[13] = 0x08, pick(0, 6)
	case 1, 2, 3:
		frame[12], frame[13] = 0x08, 0
		frame[14] = 0x45
		frame[14+9] = pick(1, 6, 17)
		copy(frame[14+12:], []byte{10, 0, 0, byte(r.IntN(8)), 10, 0, 0, byte(r.IntN(8))})
	case 4, 5, 6:
		frame[12], frame[13] = 0x86, 0xdd
		frame[14] = 6 << 4
		frame[14+6] = pick(0, 6, 17, 58)
		for _, at := range []int{8, 24} {
			copy(frame[14+at:], []byte{0x20, 0x01, 0x0d, 0xb8})
			frame[14+at+15] = byte(r.IntN(8))
		}
		frame[54], frame[55] = pick(58, 132, 133, 137, 138), pick(0, 0, 1)
		frame[62] = pick(130, 131)
	default:
		frame[12], frame[13] = 0x88, pick(0, 0xcc)
	}
	if r.IntN(6) == 0 {
		frame = frame[:14+1+r.IntN(len(frame)-15)]
	}
	return frame
}

// Networks that are in each other, and more addresses than the filter knows.
func TestFilterMarks(t *testing.T) {
	f := iface.Filter{Inside: prefixes("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"), Networks: prefixes("10.0.0.0/12")}
	hosts, networks := marks(&f)
	if len(hosts) != 1 || hosts[hostOf(netip.MustParseAddr("10.1.2.3"))] != markFrom {
		t.Errorf("hosts %v", hosts)
	}
	for text, want := range map[string]uint32{"10.0.0.0/8": markFrom, "10.0.0.0/12": markTo | markFrom, "10.1.0.0/16": markTo | markFrom} {
		if got := networks[networkOf(netip.MustParsePrefix(text))]; got != want {
			t.Errorf("%s has %b, want %b", text, got, want)
		}
	}
	for i := range maxAddrs + 1 {
		f.Ours = append(f.Ours, netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if hosts, networks := marks(&f); len(hosts) != 0 || len(networks) != 1 || networks[network{}] != markTo {
		t.Errorf("too many: %d hosts, networks %v", len(hosts), networks)
	}
}
