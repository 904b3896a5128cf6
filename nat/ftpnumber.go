// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// The numbers of a control connection whose streams were edited: in its own segments,
// in those that we make in its name, and where it is quoted.

// renumber makes the edits that a segment needs, and brings its numbers to the
// counting of its receiver. Its own number and length are left in h as its sender
// counts them, and its acknowledgement becomes what the sender of that stream
// counts: so the windows of an entry hold the numbers of the senders.
//
// What readFTP has cut off goes no further. A segment of which nothing is left, as all
// of it was swallowed, asks its receiver to say what it has, one number back, as a
// keep-alive does (RFC 9293 section 3.8.4): the answer acknowledges it.
func (f *Forwarder) renumber(p *Packet, h *parsed, k *ftpControl, dir conntrack.Direction, w *way) (Verdict, bool) {
	from, to := &k.streams[dir].edits, &k.streams[dir.Other()].edits
	cut := h.l4+h.dataOffset+h.payload < len(p.Data)
	if from.none() && to.none() && !cut {
		return Verdict{}, true
	}
	var d delta
	seq := from.toReceiver(h.seq)
	if touched, _, _ := from.touches(h.seq, h.payload); touched || cut {
		if h.isFragment() {
			return drop(ReasonHelper), false
		}
		if v, ok := f.rewritePayload(p, h, from, w, &d); !ok {
			return v, false
		}
		if len(p.Data) == h.l4+h.dataOffset && h.flags&(flagFIN|flagRST) == 0 {
			seq--
		}
	}
	t := tcpHeader(p.Data[h.l4:])
	t.replaceSeq(seq, &d)
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

// rewritePayload makes the edits of a stream in a segment of it, and cuts off what does
// not fit the way out any more: TCP sends that again. A checksum that was wrong stays
// so: what changes is what the old bytes and the new ones add to it.
func (f *Forwarder) rewritePayload(p *Packet, h *parsed, s *seqEdits, w *way, d *delta) (Verdict, bool) {
	payload, was := h.l4+h.dataOffset, len(p.Data)
	most := ipv4MaxLen
	if p.Offload.GSOType == GSONone && f.split == 0 {
		most = int(w.mtu)
	}
	n := s.fit(h.seq, h.payload, most-payload)
	if n == 0 {
		return drop(ReasonTooBig), false
	}
	_, _, room := s.touches(h.seq, n)
	if !h.partial {
		d.replacePort(fold(sum(p.Data[h.l4:], 0)), 0)
	}
	if room > 0 {
		if v, ok := f.makeRoom(p, payload+n, room); !ok {
			return v, false
		}
	}
	if payload+n < was {
		h.flags &^= flagFIN // comes behind what was cut off
		tcpHeader(p.Data[h.l4:]).setFlags(h.flags)
	}
	h.payload = n
	n = payload + s.apply(p.Data[payload:cap(p.Data)], n, h.seq)
	p.Data = p.Data[:n]
	if !h.partial {
		d.replacePort(0, fold(sum(p.Data[h.l4:], 0)))
	}
	d.replaceLength(was-h.l4, n-h.l4)
	ipHeader(p.Data).replaceLength(n)
	if n-payload <= int(p.Offload.GSOSize) {
		p.Offload.GSOType, p.Offload.GSOSize = GSONone, 0
	}
	return Verdict{}, true
}

// makeRoom moves the first n bytes of a packet that becomes longer to where there is
// room, since it must not be written behind its end where it is: into the outbox.
func (f *Forwarder) makeRoom(p *Packet, n, room int) (Verdict, bool) {
	b := f.outbox.room(n + room)
	if b == nil {
		return drop(ReasonOutboxFull), false
	}
	f.moved = p.Data
	p.Data = b[:copy(b, p.Data[:n])]
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
