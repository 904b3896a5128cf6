// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	connSize = unsafe.Sizeof(Conn{})
	linkSize = unsafe.Sizeof(link(0))
	maxConns = 1 << 30
)

// NewTable reserves the memory of a table: 152 bytes for each connection and 7.75 for
// its share of the buckets, a quarter of which is used with SNAT only. It fails if
// MaxConns is out of range or the system refuses that much memory.
func NewTable(config Config) (*Table, error) {
	n := config.MaxConns
	if n < 1 || n > maxConns {
		return nil, fmt.Errorf("conntrack: %d connections asked for, possible are 1 to %d (hint: set max-conns)", n, maxConns)
	}

	buckets, seconds := max(1, n*3/2), max(1, n*7/16)
	slabSize, headsSize := n*int(connSize), buckets*int(linkSize)
	size := slabSize + headsSize + seconds*int(linkSize)
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("conntrack: reserving %d MiB for %d connections: %w (hint: lower max-conns or raise the memory limit)", size>>20, n, err)
	}
	// A random look-up in a large table costs a walk through the page tables
	// as well; large pages spare it. Only a wish: without them all works the same.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)

	return &Table{
		keys:    newKeys(config.Seed),
		memory:  memory,
		slab:    unsafe.Slice((*Conn)(unsafe.Pointer(&memory[0])), n),
		heads:   unsafe.Slice((*link)(unsafe.Pointer(&memory[slabSize])), buckets),
		seconds: unsafe.Slice((*link)(unsafe.Pointer(&memory[slabSize+headsSize])), seconds),
		removed: config.Removed,
	}, nil
}

// Close gives the memory back. Connections still in the table are not
// reported. Every *Conn of the table is invalid from here on; so is the table.
func (t *Table) Close() error {
	if t.memory == nil {
		return nil
	}
	memory := t.memory
	t.memory, t.slab, t.heads, t.seconds = nil, nil, nil, nil
	t.length, t.paired, t.taken, t.touched, t.free = 0, 0, 0, 0, 0
	t.classes = [NumClasses]queue{}
	t.states = [NumStates]int{}
	t.slots = [wheelSlots]link{}

	return unix.Munmap(memory)
}

// Len is the number of connections.
func (t *Table) Len() int { return t.length }

// Cap is the number of slots: MaxConns.
func (t *Table) Cap() int { return len(t.slab) }

// Free is the number of slots that are not in use.
func (t *Table) Free() int { return len(t.slab) - t.taken }

// Bytes is all the memory the table may come to use.
func (t *Table) Bytes() int64 { return int64(len(t.memory)) + int64(unsafe.Sizeof(*t)) }

// Extent is the end of the slots that were ever used: [Table.At] finds nothing
// at or after it. It never shrinks.
func (t *Table) Extent() int { return t.touched }

// At is the connection in slot i, or nil if there is none; i from 0 to
// [Table.Cap]-1. It is for listings: slots do not move while a connection
// lives, so a listing in pages shows each connection that outlives it once.
func (t *Table) At(i int) *Conn {
	if uint(i) >= uint(t.touched) {
		return nil
	}
	c := &t.slab[i]
	if c.Proto == 0 || c.Flags&alias != 0 {
		return nil
	}

	return c
}

// Slot is the number of c's slot, below [Table.Cap]: for what the caller keeps
// beside a connection, until it is told that the connection has ended.
func (t *Table) Slot(c *Conn) uint32 { return uint32(t.link(c)) - 1 }

// conn is the slot that l, which is not 0, links to.
func (t *Table) conn(l link) *Conn { return &t.slab[l-1] }

// link is the link to c, which lies in the slab.
func (t *Table) link(c *Conn) link {
	offset := uintptr(unsafe.Pointer(c)) - uintptr(unsafe.Pointer(unsafe.SliceData(t.slab)))

	return link(offset/connSize) + 1
}

// take hands out a free slot; there must be one. The one given back last comes
// first: it is the likeliest to be in the cache, and memory never used stays so.
func (t *Table) take() *Conn {
	t.taken++
	if t.free != 0 {
		c := t.conn(t.free)
		t.free = c.next

		return c
	}
	t.touched++

	return &t.slab[t.touched-1]
}

// give takes a slot back. Protocol 0 marks it free.
func (t *Table) give(c *Conn) {
	*c = Conn{next: t.free}
	t.free = t.link(c)
	t.taken--
}
