// SPDX-License-Identifier: Apache-2.0

package nat

import "encoding/binary"

// What was replaced in a stream of TCP, and what that does to the numbers of the
// rest of it.
//
// A stream that we change has two countings: its sender's, and its receiver's.
// An edit stands at a number of the sender's. Everything behind it is counted by
// the receiver with the difference in length added, and what the receiver
// acknowledges is counted by the sender with it taken off.
//
// What is put in rides on the last of the bytes that it replaces; those before it are
// swallowed, and carry nothing. So every segment can be judged, however it is cut,
// the first time and when it comes again: one that ends within an edit carries what
// is before it, one that begins within carries all that was put in. A receiver that
// has all before an edit has what was swallowed, too: what it acknowledges there is
// acknowledged up to the last byte, so that a sender who waits for that goes on.
//
// An edit may be open: what its bytes become is not known yet, as they may be the
// beginning of something. All of them are swallowed, and acknowledged.

// maxEdits is how many edits of a stream are remembered. Of older ones only their
// difference counts, and where the last of them ended: nobody sends again what was
// acknowledged, and if something of it is late, its receiver gets nothing new by it.
const maxEdits = 4

// maxEditText is the longest text of an edit: that of an endpoint as long as it can be,
// what may stand behind it, and one byte more.
const maxEditText = 64

// seqEdit is one replacement.
type seqEdit struct {
	at   uint32 // of the first byte replaced, as its sender counts
	old  uint8  // bytes replaced
	size uint8  // of text; 0: it is open
	text [maxEditText]byte
}

func (e *seqEdit) end() uint32 { return e.at + uint32(e.old) }

func (e *seqEdit) longer() int { return int(e.size) - int(e.old) }

// seqEdits are those of one stream, in its order; only the last may be open. The zero
// value changes nothing.
type seqEdits struct {
	before uint32 // what forgotten edits added, modulo 2^32
	floor  uint32 // end of the last forgotten one, if there is one
	n      uint8
	forgot bool
	list   [maxEdits]seqEdit
}

func (s *seqEdits) none() bool { return s.n == 0 && !s.forgot }

// seqNear is how far behind a number may be at most, to be compared with others for
// certain.
const seqNear = 1 << 30

// come has the numbers that are remembered keep near to what the receiver has
// acknowledged, as the sender counts: they are compared modulo 2^32.
func (s *seqEdits) come(acked uint32) {
	for s.n > 0 && int32(acked-s.list[0].end()) > seqNear {
		s.forget()
	}
	if s.n == 0 && s.forgot && int32(acked-s.floor) > seqNear {
		s.floor = acked
	}
}

// forget drops the first edit, whose text has been acknowledged.
func (s *seqEdits) forget() {
	first := &s.list[0]
	s.before += uint32(first.longer())
	s.floor, s.forgot = first.end(), true
	copy(s.list[:], s.list[1:])
	s.n--
}

// spare reports whether there is room for one more edit. acked is what the receiver
// has acknowledged, as the sender counts: what is behind that may not be forgotten.
func (s *seqEdits) spare(acked uint32) bool {
	if s.n < maxEdits {
		return true
	}
	if int32(acked-s.list[0].end()) < 0 {
		return false
	}
	s.forget()
	return true
}

// add notes an edit behind all others, for which there is room.
func (s *seqEdits) add(at uint32, old int, text []byte) {
	e := &s.list[s.n]
	*e = seqEdit{at: at, old: uint8(old), size: uint8(len(text))}
	copy(e.text[:], text)
	s.n++
}

// swallowed is the length of the open edit, 0 if there is none.
func (s *seqEdits) swallowed() int {
	if s.n == 0 || s.list[s.n-1].size != 0 {
		return 0
	}
	return int(s.list[s.n-1].old)
}

// swallow has n bytes more belong to the open edit, which is made at a number, for
// which there is room, if there is none.
func (s *seqEdits) swallow(at uint32, n int) {
	if s.swallowed() == 0 {
		s.add(at, 0, nil)
	}
	s.list[s.n-1].old += uint8(n)
}

// settle ends the open edit, old bytes behind its beginning: one at least of them has
// not been swallowed yet. They become text, and what is behind it.
func (s *seqEdits) settle(old int, text, behind []byte) {
	e := &s.list[s.n-1]
	n := copy(e.text[:], text)
	n += copy(e.text[n:], behind)
	e.old, e.size = uint8(old), uint8(n)
}

// toReceiver turns a number of the sender's into the receiver's. One inside an
// edit becomes that of its beginning.
func (s *seqEdits) toReceiver(seq uint32) uint32 {
	add := s.before
	if s.forgot && int32(seq-s.floor) < 0 {
		return s.floor + add
	}
	for i := range s.list[:s.n] {
		e := &s.list[i]
		if int32(seq-e.end()) < 0 {
			if int32(seq-e.at) > 0 {
				seq = e.at
			}
			break
		}
		add += uint32(e.longer())
	}
	return seq + add
}

// toSender turns a number of the receiver's into the sender's. One inside what was
// put in, or at its beginning, becomes that of the byte that it rides on.
func (s *seqEdits) toSender(seq uint32) uint32 {
	add := s.before
	if s.forgot && int32(seq-s.floor-add) < 0 {
		return s.floor
	}
	for i := range s.list[:s.n] {
		e := &s.list[i]
		at := e.at + add
		if int32(seq-at) < 0 {
			break
		}
		if int32(seq-at-uint32(e.size)) < 0 {
			return e.end() - 1
		}
		add += uint32(e.longer())
	}
	return seq - add
}

// meet says what an edit does to a segment of n bytes from seq on: data[from:to] of it
// becomes text. None of it is touched if from is not below to.
func (e *seqEdit) meet(seq uint32, n int) (from, to int, text []byte) {
	at := int(int32(e.at - seq))
	from, to = max(at, 0), at+int(e.old)
	if to > n {
		return from, n, nil
	}
	return from, to, e.text[:e.size]
}

// touches reports whether a segment of n bytes from seq on is changed, how long it
// becomes, and how much room behind it apply needs.
func (s *seqEdits) touches(seq uint32, n int) (any bool, length, room int) {
	length = n
	for i := range s.list[:s.n] {
		from, to, text := s.list[i].meet(seq, n)
		if from >= to {
			continue
		}
		any = true
		length += len(text) - (to - from)
		room += max(0, len(text)-(to-from))
	}
	if late := s.late(seq, n); late > 0 {
		any = true
		length -= late
	}
	return any, length, room
}

// late is how many bytes of a segment are from before the last edit that was forgotten.
func (s *seqEdits) late(seq uint32, n int) int {
	if !s.forgot {
		return 0
	}
	return min(n, max(0, int(int32(s.floor-seq))))
}

// fit returns how many bytes of a segment of n bytes from seq on may go, so that it
// becomes no longer than most.
func (s *seqEdits) fit(seq uint32, n, most int) int {
	for n > 0 {
		_, length, _ := s.touches(seq, n)
		if length <= most {
			break
		}
		n -= min(n, length-most)
	}
	return n
}

// apply makes the edits in a segment whose first byte is seq: data is its n bytes
// of payload with room behind them for what touches said. It returns the length
// that the payload has then.
func (s *seqEdits) apply(data []byte, n int, seq uint32) int {
	length := n
	for i := int(s.n) - 1; i >= 0; i-- { // from behind, so that places stay
		from, to, text := s.list[i].meet(seq, n)
		if from >= to {
			continue
		}
		tail := data[to:length]
		length += len(text) - (to - from)
		copy(data[from+len(text):length], tail)
		copy(data[from:], text)
	}
	if late := s.late(seq, n); late > 0 {
		length = copy(data, data[late:length])
	}
	return length
}

// replaceSeq, replaceAck and replaceSACK put numbers into a header and note what
// that does to its checksum.

func (h tcpHeader) replaceSeq(v uint32, d *delta) {
	d.replaceWords(h.seq(), v)
	h.setSeq(v)
}

func (h tcpHeader) replaceAck(v uint32, d *delta) {
	d.replaceWords(h.ack(), v)
	h.setAck(v)
}

// replaceSACK brings the blocks of selective acknowledgements (RFC 2018 section
// 3) to the sender's counting. Malformed options stay as they are.
func (h tcpHeader) replaceSACK(s *seqEdits, d *delta) {
	const (
		end         = 0
		noOperation = 1
		sack        = 5
	)
	o := h.options()
	old := fold(sum(o, 0))
	for rest := o; len(rest) > 0 && rest[0] != end; {
		if rest[0] == noOperation {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			break
		}
		option := rest[:rest[1]]
		if rest = rest[rest[1]:]; option[0] != sack {
			continue
		}
		for edge := option[2:]; len(edge) >= 4; edge = edge[4:] {
			binary.BigEndian.PutUint32(edge, s.toSender(binary.BigEndian.Uint32(edge)))
		}
	}
	d.replacePort(old, fold(sum(o, 0)))
}
