// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// The FTP helper, on services that ask for it (ip_vs_ftp.c). In the order in which
// a segment of a control connection meets the functions below:
//
//	helpFTP       the row of the connection; nothing without one
//	  readFTP     each new line, in its order, from either side
//	    command   PASV and EPSV announce a passive reply; PORT and EPRT an active
//	              data connection
//	    reply     227 and 229 have their endpoint replaced, and a data connection
//	              is expected there
//	  renumber    edits, sequence numbers, acknowledgements
//
// A data connection is expected by an entry made ahead: see ftpexpect.go.
//
// A line is looked for where a line begins, so that what a client has a server
// say in the middle of one is not taken for a reply. To know where that is, each
// byte is read once and in its order: a segment that comes before its turn is
// dropped, and TCP sends it again. So is one that ends within the endpoint of a
// passive reply: it comes again with the rest, and a private address never leaves.

// helps reports whether a new connection of a service is to be helped: one to the
// service's own port, or to that of FTP if the service has all.
func (v *serviceEntry) helps(c *conntrack.Conn) bool {
	port := v.key.Port
	if port == 0 {
		port = portFTP
	}
	return v.helper == HelperFTP && c.Proto == ProtoTCP && c.Virtual.Port == port
}

// helpFTP takes a segment of a control connection through the helper, which may
// rewrite it and move it. It reports false, with the verdict, if the segment goes
// no further.
func (f *Forwarder) helpFTP(p *Packet, h *parsed, c *conntrack.Conn, dir conntrack.Direction, w *way) (Verdict, bool) {
	slot := f.table.Slot(c)
	if h.flags&flagSYN != 0 && (c.State != conntrack.Established || dir == conntrack.Outbound && begunAnew(h, c)) {
		f.ftp.release(slot) // other numbers begin
	}
	k := f.ftp.find(slot)
	if k == nil {
		// The server speaks first (RFC 959 section 5.4.1). Until it does, who
		// only says to be a client costs nothing.
		if dir == conntrack.Inbound || h.payload == 0 || !established(c) {
			return Verdict{}, true
		}
		if k = f.ftp.take(slot, c); k == nil {
			return drop(ReasonHelperFull), false
		}
	}
	if h.payload > 0 && h.flags&flagSYN == 0 && !k.phase.opaque {
		if h.isFragment() {
			return drop(ReasonHelper), false
		}
		if r := f.readFTP(p, h, c, k, dir); r != ReasonNone {
			return drop(r), false
		}
	}
	return f.renumber(p, h, k, dir, w)
}

func established(c *conntrack.Conn) bool {
	return c.State == conntrack.Established && c.Flags&conntrack.Replied != 0
}

// readFTP reads the lines of a segment that were not read yet. If it returns a
// reason to drop the segment, nothing of it counts as read.
func (f *Forwarder) readFTP(p *Packet, h *parsed, c *conntrack.Conn, k *ftpControl, dir conntrack.Direction) Reason {
	s := &k.streams[dir]
	known := int32(s.next - h.seq) // bytes that came before
	if known < 0 {
		return ReasonHelper
	}
	if int(known) >= h.payload {
		return ReasonNone
	}
	phase, stream := k.phase, *s
	data := p.Data[h.l4+h.dataOffset+int(known):]
	for len(data) > 0 && !k.phase.opaque {
		line, n, ended := s.join(data)
		r := ReasonNone
		switch {
		case dir == conntrack.Outbound:
			r = f.ftpReply(c, k, line, n, ended)
		case ended:
			r = f.ftpCommand(c, k, line, n)
		case c.Flags&conntrack.FullNAT != 0 && namesFTPEndpoint(line):
			r = ReasonHelper // it will have to be replaced, as a whole
		}
		if r != ReasonNone {
			if k.phase.expected != phase.expected {
				f.forgetExpected(c, k)
				phase.expected = ftpExpected{} // it has given way
			}
			k.phase, *s = phase, stream
			return r
		}
		s.keep(line, n, ended)
		data = data[n:]
	}
	return ReasonNone
}

// ftpCommand follows a line of the client, of which the last n bytes are new.
func (f *Forwarder) ftpCommand(c *conntrack.Conn, k *ftpControl, line []byte, n int) Reason {
	s := &k.streams[conntrack.Inbound]
	if len(line) != int(s.held)+n {
		return ReasonNone // too long for any of ours, and cut
	}
	command, e := readFTPCommand(line)
	switch command {
	case ftpPassive:
		k.phase.asked[0] = true
	case ftpExtendedPassive:
		k.phase.asked[1] = true
	case ftpPort:
		k.phase.asked = [2]bool{}
		return f.expectActive(c, k, &e, line)
	}
	return ReasonNone
}

// ftpReply follows a line of the server, or what there is of it; the last n bytes
// are new.
func (f *Forwarder) ftpReply(c *conntrack.Conn, k *ftpControl, line []byte, n int, ended bool) Reason {
	s := &k.streams[conntrack.Outbound]
	if s.look == ftpUnjudged && len(line) >= 4 {
		s.look = k.phase.judge(line)
	}
	if s.look != ftpSeek {
		return ReasonNone
	}
	e, found := readFTPReply(line)
	switch {
	case found == ftpWhole && e.from >= int(s.held):
		s.look = ftpSkip
		return f.passiveReply(c, k, &e, line)
	case found == ftpWhole, found == ftpCut && !ended:
		return ReasonHelper
	case len(line) != int(s.held)+n, !ended && len(line) > ftpLongest:
		return ReasonHelper // it could be in what is not kept
	}
	return ReasonNone
}

// judge says what a line of the server is worth, by its beginning. A reply of
// several lines begins with its code and a hyphen, and ends with the line that
// begins with its code and a space; what is between is text (RFC 959 section 4.2).
func (f *ftpPhase) judge(line []byte) ftpLook {
	code, mark := [3]byte(line), line[3]
	if f.reply != [3]byte{} {
		if code != f.reply || mark != ' ' {
			return ftpSkip
		}
	} else if !isDigit(code[0]) || !isDigit(code[1]) || !isDigit(code[2]) || mark != ' ' && mark != '-' {
		return ftpSkip
	}
	f.reply = [3]byte{}
	if mark == '-' {
		f.reply = code
	}
	switch string(code[:]) {
	case "227", "229":
		return ftpSeek
	case "234": // TLS begins (RFC 4217 section 4)
		f.opaque = mark == ' '
	}
	return ftpSkip
}

// passiveReply takes a reply that says where the server listens. It is believed
// if it was asked for and names one of the two addresses that the server has. The
// address of an inside host is hidden in any case; that of a third one is its
// own business, and nothing is expected there (RFC 2577 section 3).
func (f *Forwarder) passiveReply(c *conntrack.Conn, k *ftpControl, e *ftpEndpoint, line []byte) Reason {
	asked := &k.phase.asked[0]
	if e.delimiter != 0 {
		asked = &k.phase.asked[1]
	}
	own := !e.named || e.addr == c.Dest.Addr || e.addr == c.Virtual.Addr
	port := e.port
	if own && *asked && port >= firstFTPPort && established(c) {
		virtual, r := f.expectPassive(c, k, port)
		if r != ReasonNone {
			return r
		}
		if virtual != 0 {
			port = virtual
		}
	}
	*asked = false
	if !own && !f.snap.isInside(&e.addr) && f.snap.inner.find(&e.addr) < 0 {
		return ReasonNone
	}
	addr := &c.Virtual.Addr
	if e.delimiter != 0 {
		addr = nil // the client takes the one it is connected to
	}
	var buffer [ftpMaxText]byte
	return k.edit(conntrack.Outbound, c, e, line, e.appendText(buffer[:0], addr, port))
}

// edit replaces the text of an endpoint in a line that goes dir.
func (k *ftpControl) edit(dir conntrack.Direction, c *conntrack.Conn, e *ftpEndpoint, line, text []byte) Reason {
	if string(line[e.from:e.to]) == string(text) {
		return ReasonNone
	}
	s := &k.streams[dir]
	at := s.next + uint32(e.from-int(s.held))
	if !s.edits.add(at, e.to-e.from, text, c.Window[dir.Other()].Ack) {
		return ReasonHelper
	}
	return ReasonNone
}

// renumber makes the edits that a segment needs, and brings its numbers to the
// counting of its receiver. Its own number and length are left in h as its sender
// counts them, and its acknowledgement becomes what the sender of that stream
// counts: so the windows of an entry hold the numbers of the senders.
func (f *Forwarder) renumber(p *Packet, h *parsed, k *ftpControl, dir conntrack.Direction, w *way) (Verdict, bool) {
	from, to := &k.streams[dir].edits, &k.streams[dir.Other()].edits
	if from.none() && to.none() {
		return Verdict{}, true
	}
	var d delta
	if h.payload > 0 && from.n > 0 {
		room, whole, any := from.touches(h.seq, h.seq+uint32(h.payload))
		switch {
		case !whole, any && h.isFragment():
			return drop(ReasonHelper), false
		case room > 0:
			if v, ok := f.makeRoom(p, h, room, w); !ok {
				return v, false
			}
		}
		if any {
			f.rewritePayload(p, h, from, &d)
		}
	}
	t := tcpHeader(p.Data[h.l4:])
	t.replaceSeq(from.toReceiver(h.seq), &d)
	if h.flags&flagACK != 0 && !to.none() {
		h.ack = to.toSender(h.ack)
		t.replaceAck(h.ack, &d)
		t.replaceSACK(to, &d)
	}
	if h.partial {
		t.applyPartial(d)
	} else {
		t.apply(d)
	}
	return Verdict{}, true
}

// makeRoom moves a packet that becomes longer to where there is room, since it
// must not be written behind its end where it is: into the outbox.
func (f *Forwarder) makeRoom(p *Packet, h *parsed, room int, w *way) (Verdict, bool) {
	n := len(p.Data) + room
	if n > ipv4MaxLen {
		return drop(ReasonHelper), false
	}
	if p.Offload.GSOType == GSONone && n > int(w.mtu) {
		if !h.dontFragment {
			return drop(ReasonTooBig), false
		}
		return f.unreachable(p, h, fragNeeded(int(w.mtu)-room), ReasonTooBig), false
	}
	b := f.outbox.room(n)
	if b == nil {
		return drop(ReasonOutboxFull), false
	}
	f.moved = p.Data
	p.Data = b[:copy(b, p.Data)]
	return Verdict{}, true
}

// sendMoved has a packet that makeRoom moved leave from the outbox, if it leaves.
func (f *Forwarder) sendMoved(p *Packet, v Verdict) Verdict {
	if v.Action == Forward {
		f.outbox.put(len(p.Data), *p, v)
		v = Verdict{Action: Hold}
	}
	p.Data = f.moved
	return v
}

// rewritePayload makes the edits of a stream in a segment of it. A checksum that
// was wrong stays so: what changes is what the old bytes and the new ones add to
// it.
func (f *Forwarder) rewritePayload(p *Packet, h *parsed, s *seqEdits, d *delta) {
	payload := h.l4 + h.dataOffset
	if !h.partial {
		d.replacePort(fold(sum(p.Data[h.l4:], 0)), 0)
	}
	was := len(p.Data)
	n := payload + s.apply(p.Data[payload:cap(p.Data)], h.payload, h.seq)
	p.Data = p.Data[:n]
	if !h.partial {
		d.replacePort(0, fold(sum(p.Data[h.l4:], 0)))
	}
	d.replaceLength(was-h.l4, n-h.l4)
	ipHeader(p.Data).replaceLength(n)
}

// countAnew brings a segment that we made in the name of sender, with numbers as it
// counts them, to the counting of its receiver.
func (f *Forwarder) countAnew(p *Packet, h *parsed, c *conntrack.Conn, sender conntrack.Direction) {
	k := f.control(c)
	if k == nil {
		return
	}
	var d delta
	t := tcpHeader(p.Data[h.l4:])
	t.replaceSeq(k.streams[sender].edits.toReceiver(h.seq), &d)
	t.apply(d)
}

// forSender turns a number that sender's segment had when it left us into what it
// was before.
func (f *Forwarder) forSender(c *conntrack.Conn, sender conntrack.Direction, seq uint32) uint32 {
	if k := f.control(c); k != nil {
		return k.streams[sender].edits.toSender(seq)
	}
	return seq
}

// unnumber brings a quoted segment, which sender has sent, back to the numbers that
// it had before renumber.
func (f *Forwarder) unnumber(data []byte, q *quoted, c *conntrack.Conn, sender conntrack.Direction, d *delta) {
	k := f.control(c)
	if k == nil || q.kind != kindTCP {
		return
	}
	t := tcpHeader(data[q.l4:])
	t.replaceSeq(k.streams[sender].edits.toSender(q.seq), d)
	if q.l4+12 <= q.end {
		t.replaceAck(k.streams[sender.Other()].edits.toReceiver(t.ack()), d)
	}
}

// control returns the row of a control connection, or nil.
func (f *Forwarder) control(c *conntrack.Conn) *ftpControl {
	if c.Flags&conntrack.Helped == 0 {
		return nil
	}
	return f.ftp.find(f.table.Slot(c))
}
