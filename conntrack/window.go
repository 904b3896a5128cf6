// SPDX-License-Identifier: Apache-2.0

package conntrack

// Window is what has been seen of one sender of a TCP connection.
type Window struct {
	End   uint32 // highest sequence number sent, plus one
	Ack   uint32 // highest acknowledgement sent: the sender's RCV.NXT when it sent it
	Win   uint16 // window field of that segment, unscaled
	Scale uint8  // shift offered in the SYN (RFC 7323), 0 to 14
	Flags WindowFlags
}

// WindowFlags say which fields of a [Window] mean anything.
type WindowFlags uint8

const (
	// WindowSeen: End is valid.
	WindowSeen WindowFlags = 1 << iota
	// WindowAcked: Ack and Win are valid.
	WindowAcked
	// WindowSYN: the sender's SYN was seen, so whether it scales is known.
	WindowSYN
	// WindowScaled: its SYN offered to scale.
	WindowScaled
	// WindowRaw: Win is from a SYN, which is never scaled (RFC 7323
	// section 2.2).
	WindowRaw
)

const (
	// maxScale is the largest shift (RFC 7323 section 2.3); a larger one
	// offered is used as this.
	maxScale = 14
	// minReach is the least distance at which a number is still believed to
	// belong to this connection. A window may be 0 and is probed then, and
	// a receiver may have taken back what it offered: twice the largest
	// unscaled window covers both.
	minReach = 128 << 10
)

// Follow takes note of a segment without SYN. seq and ack are the header's, in
// host byte order, win its window field, flags its flags byte, payload the
// number of bytes after the TCP header (of all segments, when it is a
// super-packet). It never refuses a segment; one that lies too far off to be
// of this connection only leaves no trace, so that a blind guess can't move
// the window to where the next guess falls inside.
func (c *Conn) Follow(sender Direction, seq, ack uint32, win uint16, flags uint8, payload int) {
	if flags&(flagRST|flagSYN) != 0 {
		return
	}
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]

	end := seq + uint32(payload)
	if flags&flagFIN != 0 {
		end++
	}

	first := s.Flags&WindowSeen == 0
	switch {
	case first:
		s.End = end
		s.Flags |= WindowSeen
	case r.Flags&WindowAcked != 0 && distance(end, r.Ack) > minReach && distance(end, r.Ack) > 2*c.offered(sender.Other()):
		return
	case c.Flags&InputOnly != 0 && distance(end, s.End) > minReach:
		return
	case after(end, s.End):
		s.End = end
	}

	if flags&flagACK == 0 {
		return
	}
	if !first {
		if s.Flags&WindowAcked != 0 && after(s.Ack, ack) {
			return // reordered: a later one was seen
		}
		if r.Flags&WindowSeen != 0 {
			if distance(ack, r.End) > minReach && distance(ack, r.End) > 2*c.offered(sender) {
				return
			}
			if after(ack, r.End) {
				r.End = ack // what was acknowledged was sent, though it passed us by
			}
		}
	}
	s.Ack, s.Win = ack, win
	s.Flags = s.Flags&^WindowRaw | WindowAcked
}

// Reach is what somebody who forwards segments of sender past the caller has to know to
// follow them by the rules of [Conn.Follow]: how far sender has come, and by which shift
// its windows count. False if too little was seen to tell.
func (c *Conn) Reach(sender Direction) (w Window, known bool) {
	w = c.Window[sender&1]
	const seen = WindowSeen | WindowAcked
	if w.Flags&(seen|WindowRaw) != seen {
		return w, false
	}
	both := w.Flags & c.Window[sender.Other()&1].Flags
	switch {
	case both&WindowSYN == 0:
		w.Scale = maxScale
	case both&WindowScaled == 0:
		w.Scale = 0
	}
	return w, true
}

// Advance takes over how far sender has come by segments that somebody else has
// followed by the rules of [Conn.Follow]: End, Ack and Win of w.
func (c *Conn) Advance(sender Direction, w Window) {
	s := &c.Window[sender&1]
	if after(w.End, s.End) {
		s.End = w.End
	}
	if !after(s.Ack, w.Ack) {
		s.Ack, s.Win = w.Ack, w.Win
	}
}

// FollowSYN takes note of a segment with SYN, with or without ACK; scale is
// the shift of its window scale option, -1 if it has none. The other
// parameters are those of [Conn.Follow].
//
// A SYN starts the sender's numbers afresh, and one without ACK those of its
// peer too, unless the peer has sent no more than a SYN either (simultaneous
// open, RFC 9293 section 3.5). One that is sent again and passes behind its answer
// starts nothing. In ESTABLISHED a SYN is ignored, as both ends do (RFC 5961 section
// 4), or a forged one would blind us.
func (c *Conn) FollowSYN(sender Direction, seq, ack uint32, win uint16, flags uint8, payload int, scale int) {
	if flags&flagRST != 0 || c.State == Established {
		return
	}
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]
	if next := seq + 1 + uint32(payload); flags&flagACK == 0 && s.Flags&WindowRaw != 0 && s.End == next &&
		r.Flags&WindowAcked != 0 && r.Ack == next {
		return
	}

	*s = Window{
		End:   seq + 1 + uint32(payload),
		Win:   win,
		Flags: WindowSeen | WindowSYN | WindowRaw,
	}
	if scale >= 0 {
		s.Scale = uint8(min(scale, maxScale))
		s.Flags |= WindowScaled
	}
	if flags&flagFIN != 0 {
		s.End++
	}
	if flags&flagACK != 0 {
		s.Ack = ack
		s.Flags |= WindowAcked
		return
	}
	if r.Flags&WindowAcked != 0 || r.Flags&WindowRaw == 0 {
		*r = Window{}
	}
}

// WindowVerdict is where a sequence number lies, seen from the receiver.
type WindowVerdict uint8

const (
	// Unknown: too little was seen to judge.
	Unknown WindowVerdict = iota
	// Exact: it is the number that the receiver waits for.
	Exact
	// Inside: in the receiver's window, but not exact. The receiver answers
	// a RST there with a challenge ACK and goes on (RFC 5961 section 3.2).
	Inside
	// Outside: the receiver drops it.
	Outside
)

// String is the verdict in one lower-case word.
func (v WindowVerdict) String() string {
	return [...]string{"unknown", "exact", "inside", "outside"}[v&3]
}

// InWindow judges the sequence number of a RST (or FIN) of sender.
//
// The receiver waits for a number between its last acknowledgement and the end
// of what sender has sent: we see segments before it has them and its
// acknowledgements after it wrote them. Both ends of that range count as
// exact. The first is what a closed socket takes from the segment it refuses,
// the second what a socket that gives up sends. What lies between is inside.
func (c *Conn) InWindow(sender Direction, seq uint32) WindowVerdict {
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]

	if s.Flags&WindowSeen != 0 && seq == s.End {
		return Exact
	}
	if r.Flags&WindowAcked == 0 {
		return c.inWindowAlone(s, seq)
	}
	if seq == r.Ack {
		return Exact
	}

	edge := r.Ack + c.offered(sender.Other())
	if s.Flags&WindowSeen != 0 && after(s.End, edge) {
		edge = s.End
	}
	if after(seq, r.Ack) && after(edge, seq) {
		return Inside
	}

	return Outside
}

// NextSeq is the sequence number that a segment made in sender's name must
// carry for its receiver to believe it, above all a RST (RFC 5961 section
// 3.2). False if nothing was seen to tell it from.
func (c *Conn) NextSeq(sender Direction) (uint32, bool) {
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]

	switch {
	case s.Flags&WindowSeen != 0:
		return s.End, true
	case r.Flags&WindowAcked != 0:
		return r.Ack, true
	}

	return 0, false
}

// NextAck is the acknowledgement number that goes with [Conn.NextSeq] in a segment
// made in sender's name: what sender has acknowledged, or if it has acknowledged
// nothing, all that the receiver has sent. A receiver that waits for the answer to
// its SYN believes no RST without it (RFC 9293 section 3.10.7.3).
func (c *Conn) NextAck(sender Direction) (uint32, bool) {
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]

	switch {
	case s.Flags&WindowAcked != 0:
		return s.Ack, true
	case r.Flags&WindowSeen != 0:
		return r.End, true
	}

	return 0, false
}

// offered is the window that receiver offered last, in bytes. A scale holds
// only if both SYNs offered one (RFC 7323 section 2.2). If a SYN was not seen
// the largest scale is assumed: then a true RST at worst passes as Inside,
// where a small scale would have it thrown away.
func (c *Conn) offered(receiver Direction) uint32 {
	r, s := &c.Window[receiver&1], &c.Window[receiver.Other()&1]

	switch both := r.Flags & s.Flags; {
	case r.Flags&WindowRaw != 0:
		return uint32(r.Win)
	case both&WindowSYN == 0:
		return uint32(r.Win) << maxScale
	case both&WindowScaled == 0:
		return uint32(r.Win)
	}

	return uint32(r.Win) << (r.Scale & 15)
}

// after says whether a comes after b in sequence space, which wraps (RFC 9293
// section 3.4).
func after(a, b uint32) bool { return int32(a-b) > 0 }

// distance is how far a and b lie apart, the short way round.
func distance(a, b uint32) uint32 { return min(a-b, b-a) }
