// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Two TCPs talk FTP through a Forwarder over links that lose, double, reorder and keep
// back segments. They do as kernels do: what was written goes in the same segments when
// it comes again, or in others that join or split them; what was acknowledged
// selectively does not come again; a small write waits for an acknowledgement (Nagle);
// acknowledgements wait, too. When the links have become good, every quiet moment and
// the timers that end it have to bring the talk on, until both ends have read all, and
// closed; and each has to read what an ideal helper would have it read.

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

// lossyTalk is what both say: commands, as many at once as depth, and replies, in
// pieces.
func lossyTalk(r *rand.Rand, client string) (commands, replies []lossyWrite) {
	pieces := func(list []lossyWrite, lines int, text string) []lossyWrite {
		for text != "" {
			n := len(text)
			if r.IntN(3) == 0 {
				n = 1 + r.IntN(n)
			}
			list = append(list, lossyWrite{lines, text[:n]})
			text = text[n:]
		}
		return list
	}
	replies = pieces(nil, 0, "220-welcome\r\n220 ready\r\n")
	read := []int{2} // lines of the server by the end of each reply
	depth := 1 + r.IntN(12)
	asked := 4 + r.IntN(16)
	for i := range asked {
		port := 1024 + r.IntN(60000)
		command, reply := "NOOP\r\n", "200 ok\r\n"
		switch r.IntN(9) {
		case 0, 1, 2:
			command, reply = "PASV\r\n", fmt.Sprintf("227 Entering Passive Mode (10,0,0,2,%d,%d).\r\n", port>>8, port&255)
		case 3:
			command, reply = "EPSV\r\n", fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)\r\n", port)
		case 4:
			command, reply = "EPSV 1\r\n", fmt.Sprintf("229 here (|1|10.0.0.2|%d|)\n", port)
		case 5:
			command = fmt.Sprintf("PORT %s,%d,%d\r\n", strings.ReplaceAll(client, ".", ","), port>>8, port&255)
		case 6:
			command = fmt.Sprintf("EPRT |1|%s|%d|\r\n", client, port)
		case 7:
			command, reply = "STAT\r\n", fmt.Sprintf("213-%s\r\n 227 (10,0,0,2,%d,1)\r\n213 end\r\n", strings.Repeat("x", r.IntN(700)), port>>8)
		}
		if i == asked-1 {
			command, reply = "QUIT\r\n", "221 bye\r\n"
		}
		commands = pieces(commands, read[max(0, i-depth+1)], command)
		replies = pieces(replies, i+1, reply)
		read = append(read, read[len(read)-1]+strings.Count(reply, "\n"))
	}
	return commands, replies
}

func all(list []lossyWrite) (text []byte) {
	for _, w := range list {
		text = append(text, w.text...)
	}
	return text
}

func TestFTPLoss(t *testing.T) {
	seeds := uint64(120)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		client := "192.168.88.21"
		if seed%3 == 2 {
			client = "10.0.0.7" // hairpin: what it says is edited too
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runFTPLoss(t, rand.New(rand.NewPCG(seed, 2121)), client)
		})
	}
}

func runFTPLoss(t *testing.T, r *rand.Rand, client string) {
	s := newFTPSession(t, "ftp", client+":30110")
	defer s.f.Close()
	var up, down [2][]lossySegment // to the Forwarder, and from it; 0: of the client
	mtu := 200 + r.IntN(1300)
	s.step("mtu", fmt.Sprintf("0 %d", mtu))
	s.step("mtu", fmt.Sprintf("1 %d", mtu))
	end := func(i int, name, addr, peer string) *lossyEnd {
		return &lossyEnd{
			name: name, addr: addr, peer: peer, r: r, out: &up[i], isn: r.Uint32(), mss: min(40+r.IntN(1400), mtu-60),
			nagle: r.IntN(2) == 0, cwnd: 10, room: 64 + r.IntN(2000), finAt: -1, beyond: map[int]byte{},
		}
	}
	c := end(0, "client", client+":30111", "192.168.88.23:21")
	d := end(1, "server", ftpRecordedServer, strings.Replace(s.seen, ":30110", ":30111", 1))
	c.writes, d.writes = lossyTalk(r, client)
	d.ideal, c.ideal = all(c.writes), all(d.writes)
	if client[:3] == "10." {
		d.ideal = modelPort.ReplaceAll(d.ideal, []byte("${1}192,168,88,23${2}"))
		d.ideal = modelEPRT.ReplaceAll(d.ideal, []byte("${1}192.168.88.23${2}"))
	}
	c.ideal = modelReply.ReplaceAll(c.ideal, []byte("${1}192,168,88,23${2}"))
	c.ideal = modelEPSV.ReplaceAll(c.ideal, []byte("${1}||${2}"))
	ends := [2]*lossyEnd{c, d}

	// forward takes the segment of end i through the Forwarder.
	forward := func(i int, seg *lossySegment) {
		if seg.flags == "S" && d.closed {
			return // in TIME_WAIT it would begin a new connection
		}
		e := ends[i]
		text := fmt.Sprintf("tcp %s > %s %s seq=%d ack=%d win=%d sum=%s", e.addr, e.peer, seg.flags, seg.seq, seg.ack, seg.win, []string{"ok", "partial"}[r.IntN(2)])
		if r.IntN(2) == 0 {
			text += " df"
		}
		for k, b := range seg.sack {
			text += fmt.Sprintf("%s%d-%d", []string{" sack=", ","}[min(k, 1)], b[0], b[1])
		}
		if len(seg.data) > 0 {
			text += fmt.Sprintf(" %q", seg.data)
		}
		out := s.passes(text)
		if testing.Verbose() {
			t.Logf("%s\n   -> %s", text, out)
		}
		if out == "" {
			return
		}
		head, f, _ := splitFields(out)
		if f["sum"] == "bad" || f["ipsum"] == "bad" || len(s.left.Data) > mtu {
			t.Fatalf("%s\nleaves as %s", text, out)
		}
		left := lossySegment{seq: uint32(f.num("seq", 0)), ack: uint32(f.num("ack", 0)), win: f.num("win", 0), flags: head[4], data: bytes.Clone(s.payload())}
		for _, b := range strings.Split(f["sack"], ",") {
			var from, to uint32
			if _, err := fmt.Sscanf(b, "%d-%d", &from, &to); err == nil {
				left.sack = append(left.sack, [2]uint32{from, to})
			}
		}
		down[1-i] = append(down[1-i], left)
	}
	deliver := func(link, k int, keep bool) {
		list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]
		if len(*list) == 0 {
			return
		}
		seg := (*list)[k%len(*list)]
		if !keep {
			*list = slices.Delete(*list, k%len(*list), k%len(*list)+1)
		}
		if link < 2 {
			forward(link, &seg)
		} else {
			ends[link-2].take(t, &seg)
		}
	}

	c.emit("S", c.isn, nil)
	var late [4][]lossySegment
	for range 100 + r.IntN(1500) { // the links are bad
		link := r.IntN(4)
		list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]
		switch n := r.IntN(40); {
		case n < 3 && len(*list) > 0: // lost
			*list = slices.Delete(*list, 0, 1)
		case n < 5 && len(*list) > 0:
			late[link] = append(late[link], (*list)[0])
		case n < 6 && len(late[link]) > 0:
			*list = append(*list, late[link][r.IntN(len(late[link]))])
		case n < 8:
			deliver(link, 0, true) // twice
		case n < 12:
			deliver(link, r.IntN(8), false) // out of order
		case n == 12:
			ends[link&1].timeout(link&1 == 0)
		case n == 13:
			ends[link&1].probe()
		case n == 14:
			if e := ends[link&1]; e.mss > 80 {
				e.mss -= r.IntN(e.mss / 2) // the path has become narrower
			}
		default:
			deliver(link, 0, false)
		}
		c.run()
		d.run()
	}
	for still := 0; !c.done() || !d.done(); {
		before := [...]int{c.una, d.una, len(c.received), len(d.received), c.lines, d.lines}
		for moved := true; moved; {
			moved = false
			for link := range 4 {
				for list := [4]*[]lossySegment{&up[0], &up[1], &down[0], &down[1]}[link]; len(*list) > 0; moved = true {
					deliver(link, 0, false)
				}
			}
			c.run()
			d.run()
			moved = moved || len(up[0])+len(up[1]) > 0
		}
		for i, e := range ends {
			if e.delayed {
				e.emit("A", e.isn+1+uint32(e.nxt), nil)
			}
			e.timeout(i == 0)
		}
		if after := [...]int{c.una, d.una, len(c.received), len(d.received), c.lines, d.lines}; after != before {
			still = 0
			continue
		}
		if still++; still > 4 {
			t.Fatalf("nothing moves any more: %s\nclient %+v\nserver %+v", s.helperDrops(), c, d)
		}
	}
	if !bytes.Equal(c.received, c.ideal) || !bytes.Equal(d.received, d.ideal) {
		t.Fatalf("client %q\nserver %q", c.received, d.received)
	}
}

func (s *ftpSession) helperDrops() string {
	d := s.f.Stats().Drops
	return fmt.Sprintf("helper %d, helper-wait %d", d[ReasonHelper], d[ReasonHelperWait])
}
