// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Data connections of FTP that are expected: entries made ahead, in LISTEN, under
// the entry of their control connection and with its server.
//
//	active    client:port ↔ VIP:service port - 1 ↔ server:its port - 1
//	passive   client:0    ↔ VIP:port             ↔ server:port
//
// The port that a client will come from to a passive one is not known before it
// does; it then gets an entry of its own in place of the one that waited. The port
// of the virtual address is the server's if it may be handed out and nobody has
// it, as if the server had a mapping of SNAT.
//
// A control connection expects one data connection at a time: a new command
// replaces what the one before has led to and nobody has come for, as it does at
// the server. Time is that of LISTEN.

// firstFTPPort is the first port that a data connection may have at the end that
// does not have the one of the service (RFC 2577 section 3).
const firstFTPPort = 1024

// expectActive has the server of c be let through to the client: e is what the
// client said. It is not believed for others, nor about services of its own host. What
// the server has to be told instead is appended to text; nil is returned if it is to
// be told what the client said.
func (f *Forwarder) expectActive(c *conntrack.Conn, k *ftpControl, e *ftpEndpoint, text []byte) ([]byte, Reason) {
	f.forgetExpected(c, k)
	if e.addr != c.Client.Addr || e.port < firstFTPPort || c.Virtual.Port == 1 || c.Dest.Port == 1 || !established(c) {
		return nil, ReasonNone
	}
	f.expected(c)
	d := &f.spec
	d.Client.Port = e.port
	d.Virtual.Port--
	d.Dest.Port--
	if c.Flags&conntrack.FullNAT != 0 {
		// The server must see the client where it sees its control connection.
		if f.hideClient(d, true) != ReasonNone {
			return nil, ReasonNone
		}
	}
	made, r := f.expect(c)
	if !made {
		return nil, r
	}
	k.phase.expected = ftpExpected{port: e.port}
	if c.Flags&conntrack.FullNAT == 0 {
		return nil, ReasonNone
	}
	return e.appendText(text, &d.Local.Addr, d.Local.Port), ReasonNone
}

// expectPassive has the client of c be let through to a port of the server. It
// returns the port of the virtual address that stands for it, 0 if there is none.
func (f *Forwarder) expectPassive(c *conntrack.Conn, k *ftpControl, port uint16) (uint16, Reason) {
	f.forgetExpected(c, k)
	f.expected(c)
	d := &f.spec
	d.Client.Port, d.Virtual.Port, d.Dest.Port = 0, port, port
	if own := f.snap.own.find(&d.Virtual.Addr); own >= 0 && f.pools[own] >= 0 {
		lo, hi := classOf(port)
		if d.Rule, d.Virtual.Port = f.mapPort(own, &d.Dest, d.Proto, lo, hi, anyPort); d.Rule == 0 {
			return 0, ReasonNone
		}
	}
	made, r := f.expect(c)
	if !made {
		return 0, r
	}
	k.phase.expected = ftpExpected{port: d.Virtual.Port, passive: true}
	return d.Virtual.Port, ReasonNone
}

// expected begins the entry of a data connection of c: what is the same for both.
func (f *Forwarder) expected(c *conntrack.Conn) {
	f.spec = conntrack.Conn{
		Client: c.Client, Virtual: c.Virtual, Dest: c.Dest, Proto: c.Proto, State: conntrack.Listen,
		Server: c.Server, Hop: c.Hop, HopPort: c.HopPort, InsidePort: c.InsidePort,
	}
}

// expect puts the entry that was begun into the table, under its control
// connection c. What is over, or waits for the same, gives way.
func (f *Forwarder) expect(c *conntrack.Conn) (made bool, r Reason) {
	life := f.snap.settings.Timeouts[conntrack.Listen]
	d, outcome := f.table.InsertChild(&f.spec, c, f.now, life)
	if d != nil && (outcome == conntrack.Exists || outcome == conntrack.Clash) &&
		(over(d.State) || d.State == conntrack.Listen && (outcome == conntrack.Clash || d.Dest == f.spec.Dest)) {
		f.table.Remove(d, conntrack.Deleted)
		d, outcome = f.table.InsertChild(&f.spec, c, f.now, life)
	}
	if outcome != conntrack.Inserted {
		f.giveBack(&f.spec)
		if outcome == conntrack.Full {
			return false, ReasonTableFull
		}
		return false, ReasonNone
	}
	f.table.SetClass(d, conntrack.ClassOneWay)
	f.snap.server[d.Server].server.ConnOpened()
	if d.HalfKnown() {
		f.ftp.waiting++
	}
	return true, ReasonNone
}

// forgetExpected ends what the last command on c has led to, if nobody has come.
func (f *Forwarder) forgetExpected(c *conntrack.Conn, k *ftpControl) {
	e := k.phase.expected
	if e.port == 0 {
		return
	}
	t := conntrack.Tuple{Src: c.Client, Dst: c.Virtual, Proto: c.Proto}
	if e.passive {
		t.Src.Port, t.Dst.Port = 0, e.port
	} else {
		t.Src.Port, t.Dst.Port = e.port, c.Virtual.Port-1
	}
	k.phase.expected = ftpExpected{}
	if d, _ := f.table.Lookup(&t, conntrack.DstOurs); d != nil && d.State == conntrack.Listen && f.table.Parent(d) == c {
		f.table.Remove(d, conntrack.Deleted)
	}
}

// awaited returns the entry that waits for the client of a SYN, or nil.
func (f *Forwarder) awaited(h *parsed) *conntrack.Conn {
	if f.ftp.waiting == 0 || !h.opens() || h.flags&flagACK != 0 {
		return nil
	}
	t := h.tuple
	t.Src.Port = 0
	c, _ := f.table.Lookup(&t, conntrack.DstOurs)
	return c
}

// meet makes the entry of a passive data connection whose client has come, in place
// of the one that waited for it, and sends its first packet. No scheduler is asked,
// and it is not counted as one more connection of its service.
func (f *Forwarder) meet(p *Packet, h *parsed, waiting *conntrack.Conn) Verdict {
	s := &f.snap.server[waiting.Server]
	if s.gone {
		return drop(ReasonServerGone)
	}
	if h.ttl <= 1 {
		return f.timeExceeded(p, h)
	}
	way, v, ok := f.prepare(p, h, waiting.Server, waiting.Dest)
	if !ok {
		return v
	}
	c, outcome := f.table.InsertChild(&f.spec, f.table.Parent(waiting), f.now, lifeOf)
	if outcome != conntrack.Inserted {
		f.giveBack(&f.spec)
		if outcome == conntrack.Full {
			return drop(ReasonTableFull)
		}
		return drop(ReasonClash)
	}
	if waiting = f.awaited(h); waiting != nil { // it may have made room
		f.table.Remove(waiting, conntrack.Deleted)
	}
	s.server.ConnOpened()
	f.begin(h, c, conntrack.Inbound)
	f.count(c, conntrack.Inbound, len(p.Data))
	return f.send(p, h, c, conntrack.Inbound, &way)
}

// forgetFTP is told of each entry that leaves the table.
func (f *Forwarder) forgetFTP(c *conntrack.Conn) {
	if c.HalfKnown() {
		f.ftp.waiting--
	}
	if c.Flags&conntrack.Helped != 0 {
		f.ftp.release(f.table.Slot(c))
	}
}
