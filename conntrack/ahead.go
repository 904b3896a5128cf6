// SPDX-License-Identifier: Apache-2.0

package conntrack

// A look-up in a large table waits for memory twice, one wait after the other: for the
// head of the bucket and for the connection. Of a batch of packets all the heads can
// be waited for together, and then all the connections. That is all that is done
// here: what was brought near is looked up in the usual way.
//
// There is no instruction in Go that asks for memory without waiting. A load whose
// value nobody needs yet does the same, as long as the loads do not depend on each
// other: the processor goes on to the next.

// MaxAhead is how many connections are brought near at once. Their lines of the cache
// have to stay in its first level until they are used.
const MaxAhead = 64

type ahead struct {
	count int
	list  [MaxAhead]struct {
		head link
		port uint16
	}
	sum uint32 // of what was loaded, so that it is
}

// Ahead says that the connection of an outside endpoint will soon be looked up. It is
// brought near with the next Fetch. Above MaxAhead nothing happens.
func (t *Table) Ahead(e *Endpoint, proto uint8) {
	a := &t.ahead
	if a.count == MaxAhead {
		return
	}
	at := &a.list[a.count]
	at.head, at.port = *t.bucket(e, proto), e.Port
	a.count++
}

// Fetch brings near what Ahead was told of.
func (t *Table) Fetch() {
	a := &t.ahead
	list := a.list[:a.count]
	a.count = 0
	sum := uint32(0)
	for i := range list {
		if l := list[i].head; l != 0 {
			c := t.conn(l)
			sum += uint32(c.Client.Port) + c.Server + uint32(c.InsidePort)
		}
	}
	for i := range list {
		if l := list[i].head; l != 0 {
			if c := t.conn(l); c.Client.Port != list[i].port && c.next != 0 {
				c = t.conn(c.next)
				sum += uint32(c.Client.Port) + c.Server + uint32(c.InsidePort)
			}
		}
	}
	a.sum = sum
}
