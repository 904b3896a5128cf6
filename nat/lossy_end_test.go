// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// An end of TCP as kernels have it, for links that lose; see ftp_loss_test.go.

// lossySegment is one on its way, with numbers as they are in it.
type lossySegment struct {
	seq, ack uint32
	win      int
	flags    string // of S, F, A
	sack     [][2]uint32
	data     []byte
}

// lossyPiece is a part of a stream that is sent as one segment.
type lossyPiece struct {
	from, to     int // in the stream; a FIN is one more
	sent, sacked bool
	lost         bool // to be sent again
}

// lossyWrite is what an application writes once it has read so many lines.
type lossyWrite struct {
	lines int
	text  string
}

// lossyEnd is one end.
type lossyEnd struct {
	name, addr, peer string // as it sees them
	r                *rand.Rand
	out              *[]lossySegment // link to the Forwarder

	isn, peerISN    uint32
	open            bool
	stream          []byte // what was written
	closed          bool   // nothing more will be
	una, nxt        int
	pieces          []lossyPiece
	window, room    int // what the peer offers, and what we do
	cwnd, dupAcks   int
	mss             int
	nagle           bool
	writes          []lossyWrite
	received, ideal []byte
	beyond          map[int]byte // read ahead of its turn
	finished        bool         // the peer's FIN was read
	finAt           int          // where it is, -1: not known
	delayed         bool         // an acknowledgement is due
	lines           int
}

func (e *lossyEnd) emit(flags string, seq uint32, data []byte) {
	s := lossySegment{seq: seq, flags: flags, win: e.room, data: data}
	if strings.Contains(flags, "A") {
		s.ack = e.next()
		s.sack = e.blocks()
		e.delayed = false
	}
	*e.out = append(*e.out, s)
}

// next is the number that it waits for.
func (e *lossyEnd) next() uint32 {
	n := e.peerISN + 1 + uint32(len(e.received))
	if e.finished {
		n++
	}
	return n
}

// blocks are those of its selective acknowledgement.
func (e *lossyEnd) blocks() (list [][2]uint32) {
	at := make([]int, 0, len(e.beyond))
	for i := range e.beyond {
		at = append(at, i)
	}
	slices.Sort(at)
	for _, i := range at {
		n := e.peerISN + 1 + uint32(i)
		if k := len(list) - 1; k >= 0 && list[k][1] == n {
			list[k][1]++
		} else if len(list) < 3 {
			list = append(list, [2]uint32{n, n + 1})
		}
	}
	return list
}

// run has the application write what it is to write by now, and the TCP send what it
// may.
func (e *lossyEnd) run() {
	if !e.open {
		return
	}
	for len(e.writes) > 0 && e.writes[0].lines <= e.lines {
		text := e.writes[0].text
		e.writes = e.writes[1:]
		for text != "" {
			k := len(e.pieces) - 1
			if k < 0 || e.pieces[k].sent || !e.nagle || e.pieces[k].to-e.pieces[k].from >= e.mss {
				e.pieces = append(e.pieces, lossyPiece{from: len(e.stream), to: len(e.stream)})
				k++
			}
			n := min(len(text), e.mss-(e.pieces[k].to-e.pieces[k].from))
			e.stream = append(e.stream, text[:n]...)
			e.pieces[k].to += n
			text = text[n:]
		}
	}
	if len(e.writes) == 0 && !e.closed {
		e.closed = true
		e.pieces = append(e.pieces, lossyPiece{from: len(e.stream), to: len(e.stream) + 1})
	}
	flying := 0
	for i := 0; i < len(e.pieces); i++ {
		p := &e.pieces[i]
		switch {
		case flying >= e.cwnd:
			return
		case p.sent && !p.lost:
			if !p.sacked {
				flying++
			}
			continue
		case !p.sent && p.to > e.una+e.window:
			if room := e.una + e.window - p.from; flying == 0 && room > 0 {
				e.split(i, room)
				i--
				continue
			}
			return
		case !p.sent && e.nagle && flying > 0 && p.to-p.from < e.mss && !e.closed:
			return
		}
		p.sent, p.lost = true, false
		e.sendPiece(p)
		flying++
	}
}

func (e *lossyEnd) split(i, n int) {
	p := e.pieces[i]
	if n <= 0 || n >= p.to-p.from {
		return
	}
	e.pieces = slices.Insert(e.pieces, i, p)
	e.pieces[i].to = p.from + n
	e.pieces[i+1].from = p.from + n
}

func (e *lossyEnd) sendPiece(p *lossyPiece) {
	flags := "A"
	end := p.to
	if end > len(e.stream) {
		flags, end = "FA", len(e.stream)
	}
	e.nxt = max(e.nxt, p.to)
	e.emit(flags, e.isn+1+uint32(p.from), e.stream[p.from:end])
}

// timeout sends the first segment again that was not acknowledged, as it was or cut
// anew; what else is out counts as lost.
func (e *lossyEnd) timeout(client bool) {
	switch {
	case !e.open && client:
		e.emit("S", e.isn, nil)
	case !e.open && e.peerISN != 0:
		e.emit("SA", e.isn, nil)
	case e.una < e.nxt:
		e.cwnd = 1
		for i := range e.pieces {
			e.pieces[i].lost = e.pieces[i].sent && !e.pieces[i].sacked
		}
		e.recut()
		e.run()
	case len(e.pieces) > 0 && e.window == 0:
		e.emit("A", e.isn+uint32(e.una), nil) // a probe of the window
	default:
		e.run()
	}
}

// recut joins or splits segments that were sent.
func (e *lossyEnd) recut() {
	switch e.r.IntN(4) {
	case 0:
		if len(e.pieces) > 1 && e.pieces[1].sent && !e.pieces[1].sacked && e.pieces[1].to-e.pieces[0].from <= e.mss {
			e.pieces[0].to = e.pieces[1].to
			e.pieces = slices.Delete(e.pieces, 1, 2)
		}
	case 1:
		if n := e.pieces[0].to - e.pieces[0].from; n > 1 {
			e.split(0, 1+e.r.IntN(n-1))
		}
	}
}

// probe sends the last segment again (RFC 8985 section 7).
func (e *lossyEnd) probe() {
	for _, p := range slices.Backward(e.pieces) {
		if p.sent && !p.sacked {
			e.sendPiece(&p)
			return
		}
	}
}

// take reads a segment.
func (e *lossyEnd) take(t *testing.T, s *lossySegment) {
	if strings.Contains(s.flags, "S") {
		if e.open {
			e.emit("A", e.isn+1+uint32(e.nxt), nil)
			return
		}
		e.peerISN = s.seq
		if s.flags == "S" {
			e.emit("SA", e.isn, nil)
			return
		}
	}
	if e.peerISN == 0 {
		return
	}
	if !e.open {
		if s.ack != e.isn+1 {
			return
		}
		e.open, e.window = true, s.win
		if strings.Contains(s.flags, "S") {
			e.emit("A", e.isn+1, nil)
			return
		}
	}
	e.takeAck(t, s)
	at := int(int32(s.seq - e.peerISN - 1))
	fin := strings.Contains(s.flags, "F")
	if len(s.data) == 0 && !fin {
		if at < len(e.received) {
			e.emit("A", e.isn+1+uint32(e.nxt), nil) // a keep-alive
		}
		return
	}
	end := at + len(s.data)
	if at < 0 || end > len(e.ideal) || !bytes.Equal(s.data, e.ideal[at:end]) || fin && end != len(e.ideal) {
		t.Fatalf("%s gets %.60q, FIN %t, at %d of %d; there is %.60q", e.name, s.data, fin, at, len(e.ideal), e.ideal[max(0, min(at, len(e.ideal))):])
	}
	before := len(e.received)
	for i, b := range s.data {
		if at+i >= before && at+i < before+e.room {
			e.beyond[at+i] = b
		}
	}
	if fin {
		e.finAt = end
	}
	for {
		b, ok := e.beyond[len(e.received)]
		if !ok {
			break
		}
		delete(e.beyond, len(e.received))
		e.received = append(e.received, b)
		if b == '\n' {
			e.lines++
		}
	}
	if e.finAt == len(e.received) {
		e.finished = true
	}
	inOrder := at == before && len(e.beyond) == 0
	if !inOrder || e.delayed || e.r.IntN(2) == 0 {
		e.emit("A", e.isn+1+uint32(e.nxt), nil)
	} else {
		e.delayed = true
	}
}

func (e *lossyEnd) takeAck(t *testing.T, s *lossySegment) {
	acked := int(int32(s.ack - e.isn - 1))
	if acked < 0 || acked > e.nxt {
		t.Fatalf("%s: %d is acknowledged, %d were sent", e.name, acked, e.nxt)
	}
	if acked >= e.una {
		e.window = s.win
	}
	switch {
	case acked > e.una:
		e.una, e.dupAcks = acked, 0
		e.cwnd++
		for len(e.pieces) > 0 && e.pieces[0].to <= acked {
			e.pieces = e.pieces[1:]
		}
		if len(e.pieces) > 0 {
			e.pieces[0].from = max(e.pieces[0].from, acked)
			if e.pieces[0].sacked && e.pieces[0].sent {
				e.pieces[0].sacked, e.pieces[0].lost = false, true // the receiver has reneged
			}
		}
	case acked == e.una && len(s.data) == 0 && e.una < e.nxt:
		if e.dupAcks++; e.dupAcks == 3 {
			for i := range e.pieces[:1] {
				e.pieces[i].lost = e.pieces[i].sent && !e.pieces[i].sacked
			}
		}
	}
	for _, b := range s.sack {
		from, to := int(int32(b[0]-e.isn-1)), int(int32(b[1]-e.isn-1))
		if to > e.nxt {
			t.Fatalf("%s: up to %d is acknowledged selectively, %d were sent", e.name, to, e.nxt)
		}
		for i := 0; i < len(e.pieces); i++ {
			p := &e.pieces[i]
			switch {
			case !p.sent || from <= e.una || to <= p.from || p.to <= from:
			case from > p.from:
				e.split(i, from-p.from)
			case to < p.to:
				e.split(i, to-p.from)
				i--
			default:
				p.sacked, p.lost = true, false
			}
		}
	}
}

// done reports whether an end has read and sent all.
func (e *lossyEnd) done() bool { return e.finished && e.closed && len(e.pieces) == 0 }
