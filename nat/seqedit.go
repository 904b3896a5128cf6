// SPDX-License-Identifier: Apache-2.0

package nat

import "encoding/binary"

// What was replaced in a stream of TCP, and what that does to the numbers of the
// rest of it.
//
// A stream that we change has two countings: its sender's, and its receiver's.
// An edit stands at a number of the sender's. Everything behind it is counted by
// the receiver with the difference in length added, and what the receiver
// acknowledges is counted by the sender with it taken off. A segment sent again
// is changed again the same way, however it is cut now, as long as it holds each
// edit whole or not at all.

// maxEdits is how many edits of a stream are remembered. Of older ones only their
// difference counts: nobody sends again what was acknowledged.
const maxEdits = 4

// seqEdit is one replacement.
type seqEdit struct {
	at   uint32 // of the first byte replaced, as its sender counts
	old  uint8  // bytes replaced
	size uint8  // of text
	text [ftpMaxText]byte
}

func (e *seqEdit) end() uint32 { return e.at + uint32(e.old) }

func (e *seqEdit) longer() int { return int(e.size) - int(e.old) }

// seqEdits are those of one stream, in its order. The zero value changes nothing.
type seqEdits struct {
	before uint32 // what forgotten edits added, modulo 2^32
	n      uint8
	list   [maxEdits]seqEdit
}

func (s *seqEdits) none() bool { return s.n == 0 && s.before == 0 }

// add notes an edit behind all others. acked is what the receiver has
// acknowledged, as the sender counts: what is behind that may not be forgotten,
// and add reports false if that would have to be.
func (s *seqEdits) add(at uint32, old int, text []byte, acked uint32) bool {
	if s.n == maxEdits {
		if first := &s.list[0]; int32(acked-first.end()) < 0 {
			return false
		}
		s.before += uint32(s.list[0].longer())
		copy(s.list[:], s.list[1:])
		s.n--
	}
	e := &s.list[s.n]
	*e = seqEdit{at: at, old: uint8(old), size: uint8(len(text))}
	copy(e.text[:], text)
	s.n++
	return true
}

// toReceiver turns a number of the sender's into the receiver's. One inside an
// edit becomes that of its beginning.
func (s *seqEdits) toReceiver(seq uint32) uint32 {
	add := s.before
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

// toSender turns a number of the receiver's into the sender's. One inside what
// was put in becomes that of its beginning.
func (s *seqEdits) toSender(seq uint32) uint32 {
	add := s.before
	for i := range s.list[:s.n] {
		e := &s.list[i]
		at := e.at + add
		if int32(seq-at-uint32(e.size)) < 0 {
			if int32(seq-at) > 0 {
				seq = at
			}
			break
		}
		add += uint32(e.longer())
	}
	return seq - add
}

// touches says how much room the edits of a segment from seq to end need behind
// it, at most; whether there are any; and whether they can be made: none begins
// before it or ends behind it.
func (s *seqEdits) touches(seq, end uint32) (room int, whole, any bool) {
	for i := range s.list[:s.n] {
		e := &s.list[i]
		if int32(e.end()-seq) <= 0 || int32(end-e.at) <= 0 {
			continue
		}
		if int32(e.at-seq) < 0 || int32(end-e.end()) < 0 {
			return 0, false, true
		}
		room += max(0, e.longer())
		any = true
	}
	return room, true, any
}

// apply makes the edits in a segment whose first byte is seq: data is its n bytes
// of payload with room behind them for what touches said. It returns the length
// that the payload has then.
func (s *seqEdits) apply(data []byte, n int, seq uint32) int {
	end := seq + uint32(n)
	for i := int(s.n) - 1; i >= 0; i-- { // from behind, so that places stay
		e := &s.list[i]
		if int32(e.at-seq) < 0 || int32(end-e.end()) < 0 {
			continue
		}
		at := int(e.at - seq)
		tail := data[at+int(e.old) : n]
		n += e.longer()
		copy(data[at+int(e.size):n], tail)
		copy(data[at:], e.text[:e.size])
	}
	return n
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
