// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"unsafe"

	"github.com/vsnat/vsnat/conntrack"
)

// What is kept of FTP control connections, beside their entries: a row for each
// that its server has spoken on.

// maxFTPControls bounds the rows, some 850 bytes each. Their memory is claimed
// with the first service that has the helper, and used as they are.
const maxFTPControls = 32768

// ftpLongest is how much of a line is kept that came in several segments.
const ftpLongest = 96

// ftpStream is one direction of a control connection.
type ftpStream struct {
	next  uint32  // number of the first byte that is not read yet, as its sender counts
	held  uint8   // bytes of line
	look  ftpLook // at the line that goes on at next
	line  [ftpLongest]byte
	edits seqEdits
}

// ftpLook says what the line of a stream is worth, and what is kept of it.
type ftpLook uint8

const (
	ftpUnjudged ftpLook = iota // its beginning
	ftpNumbers                 // a 227; an endpoint is to come: the byte before what was swallowed, and that
	ftpExtended                // a 229; the same
	ftpSkip                    // nothing more
)

// ftpPhase is what a control connection is about to do.
type ftpPhase struct {
	reply    [3]byte // code of the reply of several lines that is being read; zero: none
	asked    [2]bool // PASV, EPSV: a passive reply is due
	opaque   bool    // encrypted from now on
	expected ftpExpected
}

// ftpExpected is the data connection that a control connection expects.
type ftpExpected struct {
	port    uint16 // of the client if active, else of the virtual address; 0: none is expected
	passive bool
}

// ftpControl is one row.
type ftpControl struct {
	slot    uint32    // of the entry
	chain   uint32    // in the chain of its bucket, or in the free list; 0 ends
	first   [2]uint32 // numbers of the first byte that was to be read, by direction
	phase   ftpPhase
	streams [2]ftpStream // by direction
}

// acked is what has been acknowledged of the stream that goes dir, as its sender counts.
func (k *ftpControl) acked(c *conntrack.Conn, dir conntrack.Direction) uint32 {
	if w := &c.Window[dir.Other()]; w.Flags&conntrack.WindowAcked != 0 {
		return w.Ack
	}
	return k.first[dir]
}

// ftpTable finds the row of an entry by its slot.
type ftpTable struct {
	rows    []ftpControl // row 0 is none; nil: no service has asked for the helper
	heads   []uint32
	free    uint32
	fresh   uint32 // rows from here on were never used
	waiting int    // entries that wait for a client, from whatever port
}

// claim makes room, once.
func (t *ftpTable) claim(maxConns int) {
	if t.rows != nil {
		return
	}
	n := min(maxConns, maxFTPControls)
	t.rows, t.heads, t.fresh = make([]ftpControl, n+1), make([]uint32, tableSize(n)/2), 1
}

func (t *ftpTable) bytes() int64 {
	return int64(len(t.rows))*int64(unsafe.Sizeof(ftpControl{})) + 4*int64(len(t.heads))
}

// bucket needs no hash: slots are numbered from 0 on.
func (t *ftpTable) bucket(slot uint32) *uint32 { return &t.heads[slot&uint32(len(t.heads)-1)] }

// find returns the row of a slot, or nil.
func (t *ftpTable) find(slot uint32) *ftpControl {
	if t.rows == nil {
		return nil
	}
	for i := *t.bucket(slot); i != 0; i = t.rows[i].chain {
		if t.rows[i].slot == slot {
			return &t.rows[i]
		}
	}
	return nil
}

// take makes a row for the slot of an entry, which has none; nil if all are taken.
func (t *ftpTable) take(slot uint32, c *conntrack.Conn) *ftpControl {
	i := t.free
	switch {
	case t.rows == nil:
		return nil
	case i != 0:
		t.free = t.rows[i].chain
	case int(t.fresh) < len(t.rows):
		i = t.fresh
		t.fresh++
	default:
		return nil
	}
	head := t.bucket(slot)
	k := &t.rows[i]
	*k = ftpControl{slot: slot, chain: *head}
	*head = i
	for dir := range k.streams {
		k.first[dir], _ = c.NextSeq(conntrack.Direction(dir))
		k.first[dir] = k.acked(c, conntrack.Direction(dir))
	}
	// What the client has said too early was not read.
	k.streams[conntrack.Inbound].next, _ = c.NextSeq(conntrack.Inbound)
	k.streams[conntrack.Outbound].next = k.first[conntrack.Outbound]
	return k
}

// release forgets the row of a slot, if there is one.
func (t *ftpTable) release(slot uint32) {
	if t.rows == nil {
		return
	}
	at := t.bucket(slot)
	for *at != 0 && t.rows[*at].slot != slot {
		at = &t.rows[*at].chain
	}
	if i := *at; i != 0 {
		*at = t.rows[i].chain
		t.rows[i].chain = t.free
		t.free = i
	}
}

// pass takes note that the first n bytes of data have been read.
func (s *ftpStream) pass(data []byte, n int) {
	s.next += uint32(n)
	if data[n-1] == '\n' {
		s.held, s.look = 0, ftpUnjudged
	}
}

// replace has text, or what was there if it is nil, stand for the first to bytes of
// line, of which the first has the number at. If bytes of it were swallowed, line has
// one more at least. It returns how many bytes of line have been dealt with so. There
// is room for the edit.
func (s *ftpStream) replace(at uint32, line []byte, to int, text []byte) int {
	if text == nil {
		text = line[:to]
	}
	swallowed := s.edits.swallowed()
	if swallowed == 0 {
		if string(text) != string(line[:to]) {
			s.edits.add(at, to, text)
		}
		return to
	}
	end := max(to, swallowed+1)
	s.edits.settle(end, text, line[to:end])
	return end
}

// letGo has what was swallowed go as it was, with the byte behind it.
func (s *ftpStream) letGo(behind []byte) {
	n := s.edits.swallowed()
	s.edits.settle(n+1, s.line[int(s.held)-n:s.held], behind[:1])
}

// untilEnd is how much of data belongs to the line that it goes on with, and whether
// that ends there.
func untilEnd(data []byte) (n int, ended bool) {
	if n = bytes.IndexByte(data, '\n') + 1; n > 0 {
		return n, true
	}
	return len(data), false
}
