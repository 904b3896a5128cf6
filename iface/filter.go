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

// Filter says which frames the kernel copies for us: ARP, neighbour discovery and
// questions about multicast groups (on a port with link addresses), packets to an
// address in Ours or Networks, ICMP to one in Errors, and packets from a source in
// Inside. All else stays the host's alone and costs nothing. It is a coarse sieve that
// looks at little more than addresses: the forwarder judges each packet itself. IPv4
// addresses count in both their 4-byte and 16-byte forms. The zero Filter admits what
// neighbours say only.
type Filter struct {
	Ours     []netip.Addr
	Networks []netip.Prefix
	Errors   []netip.Addr // the host's, which it sends from in our name
	Inside   []netip.Prefix
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
	// BPF_MAXINSNS of 4096. Longer lists fall back to all of their family.
	maxFilter = 1500
)

// filterFamily is where the addresses of a family are, from the first byte of
// the frame.
type filterFamily struct {
	protocol            uint32
	source, destination uint32
	bits                int // of an address
	icmp                uint32
	discovery           bool
}

func filterFamilies(layer Layer) (v4, v6 filterFamily) {
	start := uint32(0)
	if layer == Ethernet {
		start = ethernetHeader
	}
	return filterFamily{protocol: start + 9, source: start + 12, destination: start + 16, bits: 32, icmp: unix.IPPROTO_ICMP},
		filterFamily{
			protocol: start + ipv6NextHeader, source: start + 8, destination: start + 24, bits: 128, icmp: unix.IPPROTO_ICMPV6,
			discovery: layer == Ethernet,
		}
}

// Assemble translates the filter to classic BPF for ports of a layer. Lists too
// long for a program (about 1,350 IPv4 addresses, or 240 IPv6 addresses of one
// network of 64 bits) admit all packets of their family, which is slower, not wrong.
func (f Filter) Assemble(layer Layer) ([]bpf.RawInstruction, error) {
	v4, v6 := filterFamilies(layer)
	four, six := f.section(v4), f.section(v6)
	for len(four)+len(six) > maxFilter {
		if len(four) > len(six) {
			four = acceptAll()
		} else {
			six = acceptAll()
		}
	}
	return assemble(layer, four, six)
}

// assembleWide admits what a Filter could admit at all.
func assembleWide(layer Layer) ([]bpf.RawInstruction, error) {
	return assemble(layer, acceptAll(), acceptAll())
}

func acceptAll() []bpf.Instruction {
	return []bpf.Instruction{bpf.RetConstant{Val: acceptLength}}
}

// assemble puts the question for the protocol in front of the sections of the two
// families.
func assemble(layer Layer, four, six []bpf.Instruction) ([]bpf.RawInstruction, error) {
	var program []bpf.Instruction
	is4, is6 := uint32(4<<4), uint32(6<<4)
	if layer == Network {
		program = append(program,
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0})
	} else {
		is4, is6 = unix.ETH_P_IP, unix.ETH_P_IPV6
		program = append(program,
			bpf.LoadAbsolute{Off: 12, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_ARP, SkipTrue: 1},
			bpf.RetConstant{Val: acceptLength})
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: is4, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(four))})
	program = append(program, four...)
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: is6, SkipTrue: 1},
		bpf.RetConstant{Val: 0})
	program = append(program, six...)
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return raw, nil
}

// section is in the order of the questions: neighbour discovery, to one of ours, ICMP
// to one of the host's, to a network, from inside, about multicast groups. Any match
// ends it; a load beyond the frame's end rejects the frame, and the first load makes
// sure that the addresses are there.
func (f Filter) section(family filterFamily) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: family.destination + uint32(family.bits/8) - 4, Size: 4}}
	if family.discovery {
		program = append(program,
			bpf.LoadAbsolute{Off: ethernetHeader + ipv6NextHeader, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 4},
			bpf.LoadAbsolute{Off: ethernetHeader + ipv6Header, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: ndFirst, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: ndLast, SkipTrue: 1},
			bpf.RetConstant{Val: acceptLength})
	}
	if hosts := hosts(f.Ours, family.bits); len(hosts) > 0 {
		program = append(program, match(hosts, family.destination, family.bits)...)
	}
	if hosts := hosts(f.Errors, family.bits); len(hosts) > 0 {
		program = append(program, family.errorsTo(hosts)...)
	}
	for _, side := range []struct {
		list []netip.Prefix
		at   uint32
	}{{f.Networks, family.destination}, {f.Inside, family.source}} {
		for bits, networks := range byLength(side.list, family.bits) {
			if bits == 0 && len(networks) > 0 {
				return append(program, acceptAll()...)
			}
			if len(networks) > 0 {
				program = append(program, match(networks, side.at, bits)...)
			}
		}
	}
	if family.discovery {
		program = append(program, // behind a hop-by-hop header of 8 bytes
			bpf.LoadAbsolute{Off: ethernetHeader + ipv6NextHeader, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_HOPOPTS, SkipTrue: 5},
			bpf.LoadAbsolute{Off: ethernetHeader + ipv6Header, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6 << 8, SkipTrue: 3},
			bpf.LoadAbsolute{Off: mldAt, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: mldQuery, SkipTrue: 1},
			bpf.RetConstant{Val: acceptLength})
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// errorsTo accepts ICMP to one of the addresses.
func (family filterFamily) errorsTo(hosts [][]uint32) []bpf.Instruction {
	to := match(hosts, family.destination, family.bits)
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: family.protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: family.icmp, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(to))},
	}, to...)
}

// match accepts when the first bits of the address at an offset are those of a
// key, and falls through behind itself otherwise. The keys are sorted, each once,
// and zero behind these bits. They are looked at word by word: those that share
// a word share the question for it.
func match(keys [][]uint32, at uint32, bits int) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: at, Size: 4}}
	if bits <= 32 {
		if bits < 32 {
			program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask(bits)})
		}
		var values []uint32
		for _, key := range keys {
			values = append(values, key[0])
		}
		return appendMatch(program, values)
	}

	var groups [][]bpf.Instruction
	end := 0 // of all groups
	for len(keys) > 0 {
		word := keys[0][0]
		var rest [][]uint32
		for len(keys) > 0 && keys[0][0] == word {
			rest = append(rest, keys[0][1:])
			keys = keys[1:]
		}
		body := match(rest, at+4, bits-32)
		group := []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: word, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(body) + 1)},
		}
		group = append(group, body...)
		groups = append(groups, group)
		end += len(group) + 1
	}
	for _, group := range groups {
		end -= len(group) + 1
		program = append(program, group...)
		program = append(program, bpf.Jump{Skip: uint32(end)}) // no other key has this word
	}
	return program
}

// appendMatch accepts when the accumulator is one of values, which are sorted and
// without repetition, and falls through behind the match otherwise.
func appendMatch(program []bpf.Instruction, values []uint32) []bpf.Instruction {
	if len(values) == 1 {
		return append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: values[0], SkipTrue: 1},
			bpf.RetConstant{Val: acceptLength})
	}
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

// hosts are the addresses of a family as words, sorted, each once.
func hosts(list []netip.Addr, bits int) [][]uint32 {
	var keys [][]uint32
	for _, addr := range list {
		if addr = addr.Unmap(); addr.BitLen() == bits {
			keys = append(keys, words(addr))
		}
	}
	return unique(keys)
}

// byLength are the prefixes of a family by length, the shortest first: they cover
// most.
func byLength(prefixes []netip.Prefix, bits int) [][][]uint32 {
	lengths := make([][][]uint32, bits+1)
	for _, prefix := range prefixes {
		prefix = plainPrefix(prefix)
		if prefix.IsValid() && prefix.Addr().BitLen() == bits {
			lengths[prefix.Bits()] = append(lengths[prefix.Bits()], words(prefix.Addr()))
		}
	}
	for i := range lengths {
		lengths[i] = unique(lengths[i])
	}
	return lengths
}

func words(addr netip.Addr) []uint32 {
	var list []uint32
	for raw := addr.AsSlice(); len(raw) > 0; raw = raw[4:] {
		list = append(list, binary.BigEndian.Uint32(raw))
	}
	return list
}

func unique(keys [][]uint32) [][]uint32 {
	slices.SortFunc(keys, slices.Compare)
	return slices.CompactFunc(keys, slices.Equal)
}

func mask(bits int) uint32 { return ^uint32(0) << (32 - bits) }
