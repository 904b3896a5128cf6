// SPDX-License-Identifier: Apache-2.0

package nat

import "encoding/binary"

// What is known of an FTP control connection, as a record: what it is about to do, then
// for each direction the place in the stream, the line that has begun, and the edits. A
// connection whose stream was edited is of no use without.

func (k *ftpControl) append(b []byte) []byte {
	p := &k.phase
	b = append(b, p.reply[:]...)
	b = append(b, bit(p.asked[0], 0)|bit(p.asked[1], 1)|bit(p.opaque, 2)|bit(p.expected.passive, 3))
	b = binary.BigEndian.AppendUint16(b, p.expected.port)
	b = binary.BigEndian.AppendUint32(b, k.first[0])
	b = binary.BigEndian.AppendUint32(b, k.first[1])
	for i := range k.streams {
		s := &k.streams[i]
		b = binary.BigEndian.AppendUint32(b, s.next)
		b = append(b, byte(s.look), s.held)
		b = append(b, s.line[:s.held]...)
		b = binary.BigEndian.AppendUint32(b, s.edits.before)
		b = binary.BigEndian.AppendUint32(b, s.edits.floor)
		b = append(b, s.edits.n, bit(s.edits.forgot, 0))
		for j := range s.edits.list[:s.edits.n] {
			e := &s.edits.list[j]
			b = binary.BigEndian.AppendUint32(b, e.at)
			b = append(b, e.old, e.size)
			b = append(b, e.text[:e.size]...)
		}
	}
	return b
}

func bit(is bool, n int) byte {
	if is {
		return 1 << n
	}
	return 0
}

// parse reads what append wrote. It reports false if that is not what is there; k is
// of no use then.
func (k *ftpControl) parse(b []byte) bool {
	whole := true
	take := func(n int) []byte {
		if whole = whole && len(b) >= n; !whole {
			return make([]byte, n)
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	p := &k.phase
	copy(p.reply[:], take(3))
	flags := take(1)[0]
	p.asked[0], p.asked[1], p.opaque, p.expected.passive = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
	p.expected.port = binary.BigEndian.Uint16(take(2))
	k.first[0], k.first[1] = binary.BigEndian.Uint32(take(4)), binary.BigEndian.Uint32(take(4))
	for i := range k.streams {
		s := &k.streams[i]
		s.next = binary.BigEndian.Uint32(take(4))
		head := take(2)
		s.look, s.held = ftpLook(head[0]), head[1]
		if s.look > ftpSkip || int(s.held) > len(s.line) {
			return false
		}
		copy(s.line[:], take(int(s.held)))
		s.edits.before = binary.BigEndian.Uint32(take(4))
		s.edits.floor = binary.BigEndian.Uint32(take(4))
		known := take(2)
		if s.edits.n, s.edits.forgot = known[0], known[1]&1 != 0; s.edits.n > maxEdits {
			return false
		}
		for j := range s.edits.list[:s.edits.n] {
			e := &s.edits.list[j]
			e.at = binary.BigEndian.Uint32(take(4))
			sizes := take(2)
			e.old, e.size = sizes[0], sizes[1]
			if int(e.size) > len(e.text) {
				return false
			}
			copy(e.text[:], take(int(e.size)))
			if e.size == 0 && (j != int(s.edits.n)-1 || e.old == 0 || int(e.old) > int(s.held)) {
				return false // only the last may be open, and what it has swallowed is in the line
			}
		}
	}
	return whole
}
