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
//	  renumber    edits, sequence numbers, acknowledgements; see ftpnumber.go
//
// A data connection is expected by an entry made ahead: see ftpexpect.go.
//
// A line is looked for where a line begins, so that what a client has a server
// say in the middle of one is not taken for a reply. To know where that is, each
// byte is read once and in its order: a segment that comes before its turn is
// dropped, and TCP sends it again. Whatever was read before, and comes again, is
// translated again, however it is cut.
//
// TCP may send the same segments for ever, so none may be refused for how it is cut.
// What may be the beginning of an endpoint that is to be replaced is swallowed, and
// goes with the byte that tells what it is (seqedit.go): a private address never leaves.
// What can't be read yet, since too many edits wait to be acknowledged or the
// connection table is full, is cut off: only the rest of the segment comes again.

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
	k := f.ftp.find(slot)
	if k != nil && h.flags&flagSYN != 0 {
		switch late := h.seq+1 == k.first[dir]; {
		case late && c.State != conntrack.Established:
			return drop(ReasonWindow), false // the closing goes on
		case !late && (c.State != conntrack.Established || dir == conntrack.Outbound && begunAnew(h, c)):
			f.ftp.release(slot) // other numbers begin
			k = nil
		}
	}
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
	k.streams[dir].edits.come(k.acked(c, dir))
	if (h.payload > 0 || h.flags&flagFIN != 0) && h.flags&flagSYN == 0 && !k.phase.opaque {
		if h.isFragment() && h.payload > 0 {
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

// readFTP reads what was not read yet of a segment. Where it has to stop it cuts the
// segment off; if nothing is left it returns the reason.
func (f *Forwarder) readFTP(p *Packet, h *parsed, c *conntrack.Conn, k *ftpControl, dir conntrack.Direction) Reason {
	s := &k.streams[dir]
	known := int(int32(s.next - h.seq)) // bytes that came before
	if known < 0 {
		if int32(k.acked(c, dir)-s.next) <= 0 {
			return ReasonHelperWait
		}
		// Its receiver has what is missing, so that it won't come: it has passed us
		// by. Nobody knows any more where a line begins.
		k.phase.opaque = true
		return ReasonNone
	}
	data := p.Data[h.l4+h.dataOffset:]
	for read := known; read < h.payload && !k.phase.opaque; {
		var n int
		var r Reason
		if dir == conntrack.Inbound {
			n, r = f.ftpCommand(c, k, data[read:])
		} else {
			n, r = f.ftpReply(c, k, data[read:])
		}
		if n > 0 {
			s.pass(data[read:], n)
			read += n
		}
		if r == ReasonNone {
			continue
		}
		if read == 0 {
			return r
		}
		h.payload = read
		break
	}
	return ReasonNone
}

// ftpCommand reads what data goes on with of a line of the client, or a part of that,
// and returns how much.
func (f *Forwarder) ftpCommand(c *conntrack.Conn, k *ftpControl, data []byte) (int, Reason) {
	s := &k.streams[conntrack.Inbound]
	n, ended := untilEnd(data)
	line := data[:n]
	switch {
	case s.look == ftpSkip:
		return n, ReasonNone
	case int(s.held)+n > len(s.line) && (s.held > 0 || !ended):
		return s.noCommand(line), ReasonNone // too long for any of ours
	case s.held > 0 || !ended:
		copy(s.line[s.held:], line)
		line = s.line[:int(s.held)+n]
	}
	hidden := c.Flags&conntrack.FullNAT != 0 // the server must not see what the client names
	if !ended {
		if at := mayNameEndpoint(line); hidden && at >= 0 {
			if s.edits.swallowed() == 0 && !s.edits.spare(k.acked(c, conntrack.Inbound)) {
				return 0, ReasonHelperWait
			}
			fresh := min(n, len(line)-at)
			s.edits.swallow(s.next+uint32(n-fresh), fresh)
		} else if s.edits.swallowed() > 0 {
			return s.noCommand(data), ReasonNone
		}
		s.held += uint8(n)
		return n, ReasonNone
	}
	command, e := readFTPCommand(line)
	switch command {
	case ftpPassive:
		k.phase.asked[0] = true
	case ftpExtendedPassive:
		k.phase.asked[1] = true
	case ftpPort:
		if hidden && s.edits.swallowed() == 0 && !s.edits.spare(k.acked(c, conntrack.Inbound)) {
			return 0, ReasonHelperWait
		}
		k.phase.asked = [2]bool{}
		var buffer [ftpMaxText]byte
		text, r := f.expectActive(c, k, &e, buffer[:0])
		if r != ReasonNone {
			return 0, r
		}
		s.replace(s.next+uint32(e.from)-uint32(s.held), line[e.from:], e.to-e.from, text)
		return n, ReasonNone
	}
	if s.edits.swallowed() > 0 {
		return s.noCommand(data), ReasonNone
	}
	return n, ReasonNone
}

// noCommand has the line that data goes on with go as it is, and returns how much of
// it has been read.
func (s *ftpStream) noCommand(data []byte) int {
	s.look = ftpSkip
	if s.edits.swallowed() == 0 {
		return len(data)
	}
	s.letGo(data)
	return 1
}

// ftpReply reads what data goes on with of a line of the server, or a part of that, and
// returns how much.
func (f *Forwarder) ftpReply(c *conntrack.Conn, k *ftpControl, data []byte) (int, Reason) {
	s := &k.streams[conntrack.Outbound]
	n, _ := untilEnd(data)
	switch {
	case s.look == ftpSkip:
	case s.look == ftpUnjudged:
		n = copy(s.line[s.held:4], data[:n])
		if s.held += uint8(n); s.held == 4 {
			s.look = k.phase.judge(s.line[:4])
			s.line[0], s.held = s.line[3], 1
		}
	case s.edits.swallowed() > 0:
		return f.ftpEndpointGoesOn(c, k, data[:n])
	default:
		return f.ftpSeek(c, k, data[:n])
	}
	return n, ReasonNone
}

// ftpSeek looks for an endpoint in text, with which a line of a 227 or 229 goes on.
func (f *Forwarder) ftpSeek(c *conntrack.Conn, k *ftpControl, text []byte) (int, Reason) {
	s := &k.streams[conntrack.Outbound]
	e, found := seekFTPReply(s.look == ftpExtended, s.line[0], text)
	before := len(text)
	if found != ftpAbsent {
		before = e.from
	}
	if before > 0 {
		s.line[0] = text[before-1]
	}
	switch {
	case found == ftpAbsent:
		return before, ReasonNone
	case !s.edits.spare(k.acked(c, conntrack.Outbound)):
		return before, ReasonHelperWait
	case found == ftpCut:
		s.edits.swallow(s.next+uint32(before), len(text)-before)
		s.held = 1 + uint8(copy(s.line[1:], text[before:]))
		return len(text), ReasonNone
	}
	n, r := f.passiveReply(c, k, &e, s.next+uint32(before), text[before:])
	return before + n, r
}

// ftpEndpointGoesOn reads data behind the part of an endpoint that was swallowed.
func (f *Forwarder) ftpEndpointGoesOn(c *conntrack.Conn, k *ftpControl, data []byte) (int, Reason) {
	s := &k.streams[conntrack.Outbound]
	swallowed := s.edits.swallowed()
	text := s.line[1 : int(s.held)+copy(s.line[s.held:], data)]
	e, found := readFTPReply(s.look == ftpExtended, text, 0)
	switch found {
	case ftpAbsent:
		s.letGo(data)
		s.line[0], s.held = data[0], 1
		return 1, ReasonNone
	case ftpCut:
		s.edits.swallow(0, len(data))
		s.held += uint8(len(data))
		return len(data), ReasonNone
	}
	n, r := f.passiveReply(c, k, &e, 0, text)
	return max(0, n-swallowed), r
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
	case "227":
		return ftpNumbers
	case "229":
		return ftpExtended
	case "234": // TLS begins (RFC 4217 section 4)
		f.opaque = mark == ' '
	}
	return ftpSkip
}

// passiveReply takes a reply that says where the server listens: e, with which text
// begins at the number at. It is believed if it was asked for and names one of the two
// addresses that the server has. The address of an inside host is hidden in any case;
// that of a third one is its own business, and nothing is expected there (RFC 2577
// section 3). How many bytes of text have been dealt with so is returned; none if there
// is a reason.
func (f *Forwarder) passiveReply(c *conntrack.Conn, k *ftpControl, e *ftpEndpoint, at uint32, text []byte) (int, Reason) {
	asked := &k.phase.asked[0]
	if e.delimiter != 0 {
		asked = &k.phase.asked[1]
	}
	own := !e.named || e.addr == c.Dest.Addr || e.addr == c.Virtual.Addr
	port := e.port
	if own && *asked && port >= firstFTPPort && established(c) {
		virtual, r := f.expectPassive(c, k, port)
		if r != ReasonNone {
			return 0, r
		}
		if virtual != 0 {
			port = virtual
		}
	}
	*asked = false
	s := &k.streams[conntrack.Outbound]
	s.look = ftpSkip
	if !own && !f.snap.isInside(&e.addr) && f.snap.inner.find(&e.addr) < 0 {
		return s.replace(at, text, e.to-e.from, nil), ReasonNone
	}
	addr := &c.Virtual.Addr
	if e.delimiter != 0 {
		addr = nil // the client takes the one it is connected to
	}
	var buffer [ftpMaxText]byte
	return s.replace(at, text, e.to-e.from, e.appendText(buffer[:0], addr, port)), ReasonNone
}
