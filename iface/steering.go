// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Steering says which of several queues of one link gets a packet: all that concerns an
// outside address comes by one. That is the source of what goes to an address in Ours,
// else the destination; of an ICMP error, that of the packets which it is about. Addresses
// that are equal under the masks are one.
//
// It is a help: fragments with ports, ICMP errors behind options of IPv6 and the like may
// come by another queue, and who reads has to look. Package nat has the same function.
type Steering struct {
	Mask4 uint32 // of an IPv4 address
	Mask6 uint64 // of the first half of an IPv6 address
}

const (
	// steerOdd is 2^32 divided by the golden ratio: what addresses are multiplied with.
	steerOdd = 0x9e3779b1
	// maxSteering is the longest program: the kernel takes 4,096 instructions.
	maxSteering = 4000
)

// Where a program keeps the addresses that decide: where the packet goes, and where it
// comes from; of an ICMP error, where answers to the quoted one do.
const (
	steerTo   = 0 // four words
	steerFrom = 4 // of which the first two count in IPv6
)

// Assemble translates the steering to classic BPF for PACKET_FANOUT_CBPF, which sees a
// packet from its IP header on. The kernel takes the remainder of its answer by the number
// of queues. All of a family whose addresses of ours are too many comes by the first
// queue, as does what is not IP.
func (s Steering) Assemble(ours []netip.Addr) ([]bpf.RawInstruction, error) {
	four, six := s.section4(hosts(ours, 32)), s.section6(hosts(ours, 128))
	for len(four)+len(six) > maxSteering {
		if len(four) > len(six) {
			four = firstQueue()
		} else {
			six = firstQueue()
		}
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4 << 4, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(four))},
	}
	program = append(program, four...)
	program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6 << 4, SkipTrue: 1}, bpf.RetConstant{Val: 0})
	return bpf.Assemble(append(program, six...))
}

func firstQueue() []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: 0}} }

// section4 reads the addresses, again if there is a quotation, and compares.
func (s Steering) section4(ours [][]uint32) []bpf.Instruction {
	const rest = 10 // behind the question whether it is a fragment, if this is no error
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 16, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerTo},
		bpf.LoadAbsolute{Off: 12, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerFrom},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMP, SkipTrue: rest + 2},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: rest}, // a fragment
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 3, SkipTrue: 3}, // unreachable
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: 2}, // source quench
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 11, SkipTrue: 1},
		bpf.Jump{Skip: 4},
		bpf.LoadIndirect{Off: 8 + 12, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerTo},
		bpf.LoadIndirect{Off: 8 + 16, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerFrom},
		bpf.LoadScratch{Dst: bpf.RegA, N: steerTo},
	}
	bySource := s.answer4(steerFrom)
	var values []uint32
	for _, key := range ours {
		values = append(values, key[0])
	}
	var compare []bpf.Instruction
	for block := range slices.Chunk(values, blockSize) {
		n := len(block)
		compare = append(compare, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: block[n-1], SkipTrue: uint8(n + 1 + len(bySource))})
		for i, value := range block {
			compare = append(compare, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(n - i)})
		}
		compare = append(compare, bpf.Jump{Skip: uint32(len(bySource))})
		compare = append(compare, bySource...)
	}
	return slices.Concat(program, compare, s.answer4(steerTo))
}

// answer4 is what an IPv4 address in scratch comes to.
func (s Steering) answer4(at int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegA, N: at},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: s.Mask4},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: steerOdd},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
		bpf.RetA{},
	}
}

// section6 is section4 for IPv6.
func (s Steering) section6(ours [][]uint32) []bpf.Instruction {
	load := func(to, from uint32) (list []bpf.Instruction) {
		for i := range uint32(4) {
			list = append(list, bpf.LoadAbsolute{Off: to + 4*i, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerTo + int(i)})
		}
		for i := range uint32(2) {
			list = append(list, bpf.LoadAbsolute{Off: from + 4*i, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: steerFrom + int(i)})
		}
		return list
	}
	const quote = ipv6Header + 8
	again := load(quote+8, quote+24)
	program := load(24, 8)
	program = append(program,
		bpf.LoadAbsolute{Off: ipv6NextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: uint8(3 + len(again))},
		bpf.LoadAbsolute{Off: ipv6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: uint8(1 + len(again))},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 4, SkipTrue: uint8(len(again))}, // errors are 1 to 4
	)
	program = append(program, again...)
	bySource := s.answer6(steerFrom)
	for _, key := range ours {
		const words = 4
		rest := 2*(words-1) + 1 + len(bySource) // behind the first comparison
		for i, word := range key {
			program = append(program, bpf.LoadScratch{Dst: bpf.RegA, N: steerTo + i},
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word, SkipTrue: uint8(rest - 1 - 2*i)})
		}
		program = append(program, bySource...)
	}
	return append(program, s.answer6(steerTo)...)
}

func (s Steering) answer6(at int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegA, N: at},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(s.Mask6 >> 32)},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: steerOdd},
		bpf.TAX{},
		bpf.LoadScratch{Dst: bpf.RegA, N: at + 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(s.Mask6)},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: steerOdd},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
		bpf.RetA{},
	}
}
