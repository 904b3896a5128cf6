// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package confine

import (
	"maps"
	"slices"

	"golang.org/x/net/bpf"
)

// A filter sees a call as struct seccomp_data: number, architecture, address, and six
// arguments of 64 bits.
var (
	number    = bpf.LoadAbsolute{Off: 0, Size: 4}
	processor = bpf.LoadAbsolute{Off: 4, Size: 4}
)

// A span is all numbers from one on, up to the next span, with one verdict.
type span struct {
	from    uint32
	verdict verdict
}

// filter is the program of a policy: what is of another architecture is not there, all
// else is found by its number.
func (p *Policy) filter() []bpf.Instruction {
	return append([]bpf.Instruction{
		processor,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architecture, SkipTrue: 1},
		missing,
		number,
	}, search(p.spans())...)
}

// spans cover all numbers.
func (p *Policy) spans() []span {
	list := []span{{0, allow}}
	for _, n := range slices.Sorted(maps.Keys(p.verdicts)) {
		if list[len(list)-1].from == n {
			list = list[:len(list)-1] // nothing between this one and the one before
		}
		list = append(list, span{n, p.verdicts[n]}, span{n + 1, allow})
	}
	// What is newer than this program is not there.
	return append(list, span{newest + 1, absent})
}

// search finds the span of the number that is loaded, by halves: that of a jump is not
// longer than its eight bits can say.
func search(list []span) []bpf.Instruction {
	if len(list) == 1 {
		return list[0].verdict
	}
	half := len(list) / 2
	below, above := search(list[:half]), search(list[half:])
	return append(append([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: list[half].from, SkipTrue: uint8(len(below))},
	}, below...), above...)
}
