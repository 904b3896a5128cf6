// SPDX-License-Identifier: Apache-2.0

package conntrack

import "encoding/binary"

// A look-up in a large table waits for memory twice, one wait after the other: for the
// head of the bucket and for the connection. Of a batch of packets all the heads can
// be waited for together, and then all the connections. That is all that is done
// here: what was brought near is looked up in the usual way.
//
// There is no instruction in Go that asks for memory without waiting. A load whose
// value nobody needs yet does the same, as long as the loads do not depend on each
// other: the processor goes on to the next.

// A look-up in a large table waits for memory several times, one wait after the other:
// for the head of the bucket, for the connection, for the next one if it is another's.
// Of a batch of packets all the heads can be waited for together, and then all the
// connections. That is all that is done here: what was brought near is looked up in the
// usual way.
//
// There is no instruction in Go that asks for memory without waiting. A load whose
// value nobody needs yet does the same, as long as the loads do not depend on each
// other: the processor goes on to the next. It has room for a few hundred instructions
// that wait, so what stands between two loads decides how many are under way at once:
// the hashes are made before, in Ahead, and the loops of Fetch are no longer than they
// have to be.

// MaxAhead is how many connections are brought near at once. Their lines of the cache
// have to stay in its first level until they are used.
const MaxAhead = 64

type ahead struct {
	count int
	list  [MaxAhead]awaited
	sum   uint32 // of what was loaded, so that it is
}

// An awaited connection is in the chain that begins with link.
type awaited struct {
	bucket *link
	link   link
	client uint64 // its outside endpoint in brief
}

// Ahead says that the connection of an outside endpoint will soon be looked up. It is
// brought near with the next Fetch. Above MaxAhead nothing happens.
func (t *Table) Ahead(e *Endpoint, proto uint8) {
	a := &t.ahead
	if a.count == MaxAhead {
		return
	}
	at := &a.list[a.count]
	at.bucket, at.client = t.bucket(e, proto), e.brief()
	a.count++
}

// Fetch brings near what Ahead was told of.
func (t *Table) Fetch() {
	a := &t.ahead
	list := a.list[:a.count]
	a.count = 0
	for i := range list {
		list[i].link = *list[i].bucket
	}
	sum, left := uint32(0), 0
	for i := range list {
		if at := &list[i]; at.link != 0 {
			sum += t.conn(at.link).touch()
			list[left] = *at
			left++
		}
	}
	for left > 0 { // of those that were touched, go on with whose is another's
		list, left = list[:left], 0
		for i := range list {
			c, client := t.conn(list[i].link), list[i].client
			list[left].link, list[left].client = c.next, client
			if c.Client.brief() != client && c.next != 0 {
				left++
			}
		}
		for i := range list[:left] {
			sum += t.conn(list[i].link).touch()
		}
	}
	a.sum = sum
}

// touch loads something of each line of the cache that a packet needs of c. A
// connection lies across three, sometimes two: how, differs.
func (c *Conn) touch() uint32 {
	return uint32(c.Client.Addr[0]) + uint32(uint8(c.Deadline)) + uint32(c.InsidePort)
}

// brief is enough of e to tell it from the others in a bucket.
func (e *Endpoint) brief() uint64 { return binary.LittleEndian.Uint64(e.Addr[8:]) + uint64(e.Port) }
