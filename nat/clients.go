// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/vsnat/vsnat/conntrack"
)

// The limit of connections that one client may have to services, if
// Settings.ClientLimit is set. Clients are counted by their address, in IPv6 by the
// network of 64 bits that a host has for itself. Those that were open when the limit
// was set first do not count, nor do templates and one-packet entries.
//
// Without a limit there is no memory for it, and a new connection costs one
// comparison. With the first limit the memory is claimed for good: a row for each
// connection of the table, of 24 bytes and 4 to 8 for its bucket, since each may be
// another client's.

type clientRow struct {
	addr  conntrack.Addr
	count uint32
	next  uint32 // in the chain of its bucket, or in the free list; 0 ends
}

// clientCounts counts connections by client.
type clientCounts struct {
	limit   uint32 // 0: none
	maxRows int
	seed    uint64
	rows    []clientRow // row 0 is none
	heads   []uint32
	free    uint32 // rows given back
	fresh   uint32 // rows from here on were never used
}

// setLimit changes the limit, and claims memory for the first one.
func (k *clientCounts) setLimit(n int) {
	k.limit = uint32(min(max(n, 0), 1<<31))
	if k.limit == 0 || k.rows != nil {
		return
	}
	k.rows, k.fresh = make([]clientRow, k.maxRows+1), 1
	k.heads = make([]uint32, 1<<bits.Len(uint(k.maxRows)))
}

func (k *clientCounts) bytes() int64 {
	return int64(len(k.rows))*int64(unsafe.Sizeof(clientRow{})) + 4*int64(len(k.heads))
}

// clientOf is the address that stands for a client.
func clientOf(a conntrack.Addr) conntrack.Addr {
	if !a.Is4() {
		clear(a[8:])
	}
	return a
}

// head is the chain of a client. The hash is keyed, so that nobody can fill one.
func (k *clientCounts) head(a *conntrack.Addr) *uint32 {
	hi, lo := bits.Mul64(k.seed^binary.LittleEndian.Uint64(a[8:]), 0x9e3779b97f4a7c15^binary.LittleEndian.Uint64(a[:8]))
	hi, lo = bits.Mul64(hi^lo^k.seed, 0xd6e8feb86659fd93)
	return &k.heads[(hi^lo)&uint64(len(k.heads)-1)]
}

func (k *clientCounts) find(a *conntrack.Addr) *clientRow {
	for i := *k.head(a); i != 0; i = k.rows[i].next {
		if k.rows[i].addr == *a {
			return &k.rows[i]
		}
	}
	return nil
}

// full reports whether a client may have no more connections.
func (k *clientCounts) full(client *conntrack.Addr) bool {
	if k.limit == 0 {
		return false
	}
	a := clientOf(*client)
	row := k.find(&a)
	return row != nil && row.count >= k.limit
}

// add counts a connection, and marks it so that it will be counted off.
func (k *clientCounts) add(c *conntrack.Conn) {
	if k.limit == 0 {
		return
	}
	a := clientOf(c.Client.Addr)
	row := k.find(&a)
	if row == nil {
		i := k.free
		switch {
		case i != 0:
			k.free = k.rows[i].next
		case int(k.fresh) < len(k.rows):
			i = k.fresh
			k.fresh++
		default:
			return // more clients than connections: there are none
		}
		head := k.head(&a)
		row = &k.rows[i]
		*row = clientRow{addr: a, next: *head}
		*head = i
	}
	row.count++
	c.Flags |= conntrack.Counted
}

// drop counts a connection off that was counted.
func (k *clientCounts) drop(c *conntrack.Conn) {
	if c.Flags&conntrack.Counted == 0 {
		return
	}
	a := clientOf(c.Client.Addr)
	at := k.head(&a)
	for k.rows[*at].addr != a {
		at = &k.rows[*at].next
	}
	i := *at
	row := &k.rows[i]
	if row.count--; row.count > 0 {
		return
	}
	*at = row.next
	*row = clientRow{next: k.free}
	k.free = i
}
