// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Filter says which frames the kernel copies for us: ARP, IPv4 packets to an
// address in Ours, and IPv4 packets from a source in Inside. All else stays the
// host's alone and costs nothing. It is a coarse sieve: the forwarder judges each
// packet itself. IPv4 addresses count in both their 4-byte and 16-byte forms;
// IPv6 ones are accepted and admit nothing yet. The zero Filter admits ARP only.
type Filter struct {
	Ours   []netip.Addr
	Inside []netip.Prefix
}

// Layer says what the first byte of a port's frames belongs to.
type Layer uint8

// The layers a port can start at.
const (
	Ethernet Layer = iota // a 14-byte Ethernet header
	Network               // the IP header (TUN, WireGuard, PPP)
)

const (
	// acceptLength is how much of a frame is kept: more than any super-packet.
	acceptLength = 0x40000

	// blockSize is how many values are compared in a row. A conditional jump of
	// classic BPF reaches 255 instructions; and with the largest value of each
	// block looked at first, a list of n costs about n/32+32 comparisons.
	blockSize = 32

	// maxFilter is the longest program we try, well below the kernel's
	// BPF_MAXINSNS of 4096. Longer lists fall back to all of IPv4.
	maxFilter = 1500
)

// offsets of what the filter looks at, from the first byte of the frame.
type offsets struct{ source, destination uint32 }

// Assemble translates the filter to classic BPF for ports of a layer. Lists too
// long for a program (about 1,350 addresses) admit all IPv4 packets, which is
// slower, not wrong.
func (f Filter) Assemble(layer Layer) ([]bpf.RawInstruction, error) {
	program := f.program(layer)
	if len(program) > maxFilter {
		program = wideProgram(layer)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return raw, nil
}

// program is in the order of the questions: which protocol, to one of ours, from
// inside. Any match ends it; a load beyond the frame's end rejects the frame.
func (f Filter) program(layer Layer) []bpf.Instruction {
	program, at := prelude(layer)
	if hosts := f.ours(); len(hosts) > 0 {
		program = append(program, bpf.LoadAbsolute{Off: at.destination, Size: 4})
		program = appendMatch(program, hosts)
	}
	for _, group := range f.inside() {
		if group.mask == 0 {
			return append(program, bpf.RetConstant{Val: acceptLength})
		}
		program = append(program,
			bpf.LoadAbsolute{Off: at.source, Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: group.mask})
		program = appendMatch(program, group.networks)
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// wideProgram admits what a Filter could admit at all.
func wideProgram(layer Layer) []bpf.Instruction {
	program, _ := prelude(layer)
	return append(program, bpf.RetConstant{Val: acceptLength})
}

// prelude answers for everything but IPv4 and falls through with IPv4.
func prelude(layer Layer) ([]bpf.Instruction, offsets) {
	if layer == Network {
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4 << 4, SkipTrue: 1},
			bpf.RetConstant{Val: 0},
		}, offsets{source: 12, destination: 16}
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: acceptLength},
	}, offsets{source: 14 + 12, destination: 14 + 16}
}

// appendMatch accepts when the accumulator is one of values, which are sorted and
// without repetition, and falls through behind the match otherwise.
func appendMatch(program []bpf.Instruction, values []uint32) []bpf.Instruction {
	end := len(program) // one past the match, where the far jumps lead
	for block := range slices.Chunk(values, blockSize) {
		end += len(block) + 3
	}
	for block := range slices.Chunk(values, blockSize) {
		n := len(block)
		// Above the block's largest: skip its comparisons, the far jump and the
		// return.
		program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: block[n-1], SkipTrue: uint8(n + 2)})
		for i, value := range block {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(n - i)})
		}
		program = append(program,
			bpf.Jump{Skip: uint32(end - len(program) - 1)},
			bpf.RetConstant{Val: acceptLength})
	}
	return program
}

// ours are the IPv4 addresses as numbers, sorted, each once.
func (f Filter) ours() []uint32 {
	var values []uint32
	for _, addr := range f.Ours {
		if addr = addr.Unmap(); addr.Is4() {
			values = append(values, number(addr))
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// networks of one prefix length.
type networks struct {
	mask     uint32
	networks []uint32
}

// inside are the IPv4 prefixes by length, the shortest first: they cover most.
func (f Filter) inside() []networks {
	var byLength [33][]uint32
	for _, prefix := range f.Inside {
		addr, bits := prefix.Addr(), prefix.Bits()
		if addr.Is4In6() && bits >= 96 {
			addr, bits = addr.Unmap(), bits-96
		}
		if !addr.Is4() || bits < 0 {
			continue
		}
		byLength[bits] = append(byLength[bits], number(addr)&mask(bits))
	}
	var groups []networks
	for bits, values := range byLength {
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		groups = append(groups, networks{mask: mask(bits), networks: slices.Compact(values)})
	}
	return groups
}

func number(addr netip.Addr) uint32 {
	raw := addr.As4()
	return binary.BigEndian.Uint32(raw[:])
}

func mask(bits int) uint32 { return ^uint32(0) << (32 - bits) }
