// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"unsafe"

	"github.com/vsnat/vsnat/conntrack"
)

// What is kept of FTP control connections, beside their entries: a row for each
// that its server has spoken on.

// maxFTPControls bounds the rows, some 700 bytes each. Their memory is claimed
// with the first service that has the helper, and used as they are.
const maxFTPControls = 32768

// ftpLongest is how much of a line is kept that came in several segments.
const ftpLongest = 96

// ftpStream is one direction of a control connection.
type ftpStream struct {
	next  uint32  // number of the first byte that is not read yet, as its sender counts
	held  uint8   // bytes of line: the beginning of the line that goes on at next
	look  ftpLook // at that line
	line  [ftpLongest]byte
	edits seqEdits
}

// ftpLook says what a line of the server is worth.
type ftpLook uint8

const (
	ftpUnjudged ftpLook = iota
	ftpSeek             // a 227 or 229: an endpoint is to come
	ftpSkip             // nothing more
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
	slot    uint32 // of the entry
	chain   uint32 // in the chain of its bucket, or in the free list; 0 ends
	phase   ftpPhase
	streams [2]ftpStream // by direction
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
		k.streams[dir].next, _ = c.NextSeq(conntrack.Direction(dir))
	}
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

// join returns the line that data goes on with, as far as it is there: n bytes of
// data belong to it, and held bytes came before. Of a line that came in several
// segments no more than ftpLongest bytes are returned.
func (s *ftpStream) join(data []byte) (line []byte, n int, ended bool) {
	n = bytes.IndexByte(data, '\n') + 1
	if ended = n > 0; !ended {
		n = len(data)
	}
	if s.held == 0 {
		return data[:n], n, ended
	}
	k := copy(s.line[s.held:], data[:n])
	return s.line[:int(s.held)+k], n, ended
}

// keep takes note of what join returned.
func (s *ftpStream) keep(line []byte, n int, ended bool) {
	s.next += uint32(n)
	if ended {
		s.held, s.look = 0, ftpUnjudged
		return
	}
	s.held = uint8(copy(s.line[:], line))
}
