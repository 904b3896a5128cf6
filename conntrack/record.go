// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A Record is a connection written down, for another table: that of the process that
// comes after this one. What stands for something else in a Conn stands here for what
// writer and reader agree on:
//
//	Server      NoSlot, or a number of the server
//	HopPort     NoPort, or a number of the port, as InsidePort is
//	Rule        not 0: there is a mapping
//	Deadline    nothing; Left says when it ends
//
// Its form can grow: a reader takes what it knows, and leaves what follows.
type Record struct {
	Conn
	Class  Class
	Left   time.Duration // until it ends, in whole milliseconds
	Number uint32        // by which its children name it; 0: it has none
	Parent uint32        // Number of its parent, which is written before it; 0: none
}

// Record is c written down at the time now, but for the numbers of a family.
func (c *Conn) Record(now Time) Record {
	r := Record{Conn: *c, Class: c.Class(), Left: time.Duration(max(c.Deadline-now, 0))}
	r.place, r.next, r.wheel, r.second, r.class, r.Deadline = 0, 0, links{}, 0, links{}, 0
	if r.Flags&FullNAT == 0 {
		r.Local = Endpoint{}
	}

	return r
}

// Retired says whether c is a template that is found no more.
func (c *Conn) Retired() bool { return c.Flags&retired != 0 }

// Restore puts a connection back into the table, with its class and the time it has
// left. It fails as [Table.InsertChild] does, but nothing makes room for it.
func (t *Table) Restore(r *Record, parent *Conn, now Time) (*Conn, Insertion) {
	need, life := 1, r.Left
	if r.Flags&FullNAT != 0 {
		need = 2
	}
	if r.Flags&Template != 0 {
		life = r.life()
	}
	if t.Free() < need {
		return nil, Full
	}
	c, outcome := t.InsertChild(&r.Conn, parent, now, life)
	if outcome == Inserted {
		t.SetClass(c, r.Class)
		t.SetDeadline(c, now.Add(r.Left))
	}

	return c, outcome
}

// What a record has beside its head.
const (
	wideClient = 1 << iota // of 16 bytes, not 4
	wideVirtual
	wideDest
	wideLocal
	hasLocal
	hasWindows
	hasFamily
)

// recordFlags are the flags of a record, in the order of its bits.
var recordFlags = [...]Flags{SNAT, FullNAT, Replied, InputOnly, Tunnel, Template, OnePacket, Helped, Counted}

const (
	recordMapped = 1 << 15 // there is a mapping
	// recordHead is what every record has: shape, protocol, state, class, flags, packets
	// heard, time left, server, hop and both ports.
	recordHead = 1 + 1 + 1 + 1 + 2 + 1 + 4 + 4 + 6 + 2 + 2
	// recordAssured is written for Assured, behind which no state has room.
	recordAssured = 0xff
)

// Append adds the record to b: 49 to 143 bytes, in network order.
func (r *Record) Append(b []byte) []byte {
	shape := byte(0)
	note := func(is bool, bit byte) {
		if is {
			shape |= bit
		}
	}
	note(!r.Client.Addr.Is4(), wideClient)
	note(!r.Virtual.Addr.Is4(), wideVirtual)
	note(!r.Dest.Addr.Is4(), wideDest)
	note(r.Flags&FullNAT != 0, hasLocal)
	note(r.Flags&FullNAT != 0 && !r.Local.Addr.Is4(), wideLocal)
	note(r.Window != [2]Window{}, hasWindows)
	note(r.Number|r.Parent != 0, hasFamily)

	state, flags := uint8(r.State), uint16(0)
	if r.State == Assured {
		state = recordAssured
	}
	for i, f := range recordFlags {
		if r.Flags&f != 0 {
			flags |= 1 << i
		}
	}
	if r.Rule != 0 {
		flags |= recordMapped
	}

	b = append(b, shape, r.Proto, state, byte(r.Class))
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, byte(r.Heard()))
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(r.Left.Milliseconds(), 0), 1<<32-1)))
	b = binary.BigEndian.AppendUint32(b, r.Server)
	b = append(b, r.Hop[:]...)
	b = binary.BigEndian.AppendUint16(b, r.HopPort)
	b = binary.BigEndian.AppendUint16(b, r.InsidePort)
	b = appendEndpoint(b, &r.Client, shape&wideClient != 0)
	b = appendEndpoint(b, &r.Virtual, shape&wideVirtual != 0)
	b = appendEndpoint(b, &r.Dest, shape&wideDest != 0)
	if shape&hasLocal != 0 {
		b = appendEndpoint(b, &r.Local, shape&wideLocal != 0)
	}
	if shape&hasWindows != 0 {
		for _, w := range r.Window {
			b = binary.BigEndian.AppendUint32(b, w.End)
			b = binary.BigEndian.AppendUint32(b, w.Ack)
			b = binary.BigEndian.AppendUint16(b, w.Win)
			b = append(b, w.Scale, byte(w.Flags))
		}
	}
	if shape&hasFamily != 0 {
		b = binary.BigEndian.AppendUint32(b, r.Number)
		b = binary.BigEndian.AppendUint32(b, r.Parent)
	}

	return b
}

func appendEndpoint(b []byte, e *Endpoint, wide bool) []byte {
	if wide {
		b = append(b, e.Addr[:]...)
	} else {
		b = append(b, e.Addr[12:]...)
	}

	return binary.BigEndian.AppendUint16(b, e.Port)
}

var errShort = errors.New("the record is cut")

// Parse reads a record. With an error, which says what cannot be true of a connection,
// r is not to be used.
func (r *Record) Parse(b []byte) error {
	if len(b) < recordHead {
		return errShort
	}
	*r = Record{}
	shape, flags := b[0], binary.BigEndian.Uint16(b[4:])
	r.Proto, r.State, r.Class = b[1], State(b[2]), Class(b[3])
	if b[2] == recordAssured {
		r.State = Assured
	}
	for i, f := range recordFlags {
		if flags&(1<<i) != 0 {
			r.Flags |= f
		}
	}
	if flags&recordMapped != 0 {
		r.Rule = 1
	}
	r.Flags |= heardOne * Flags(min(int(b[6]), MaxHeard))
	r.Left = time.Duration(binary.BigEndian.Uint32(b[7:])) * time.Millisecond
	r.Server = binary.BigEndian.Uint32(b[11:])
	r.Hop = LinkAddr(b[15:21])
	r.HopPort, r.InsidePort = binary.BigEndian.Uint16(b[21:]), binary.BigEndian.Uint16(b[23:])

	rest := reader(b[recordHead:])
	r.Client = rest.endpoint(shape&wideClient != 0)
	r.Virtual = rest.endpoint(shape&wideVirtual != 0)
	r.Dest = rest.endpoint(shape&wideDest != 0)
	if shape&hasLocal != 0 {
		r.Local = rest.endpoint(shape&wideLocal != 0)
	}
	if shape&hasWindows != 0 {
		for i := range r.Window {
			w := rest.take(12)
			r.Window[i] = Window{
				End: binary.BigEndian.Uint32(w), Ack: binary.BigEndian.Uint32(w[4:]), Win: binary.BigEndian.Uint16(w[8:]),
				Scale: w[10], Flags: WindowFlags(w[11]),
			}
		}
	}
	if shape&hasFamily != 0 {
		w := rest.take(8)
		r.Number, r.Parent = binary.BigEndian.Uint32(w), binary.BigEndian.Uint32(w[4:])
	}
	if rest == nil {
		return errShort
	}
	if shape&hasLocal != 0 != (r.Flags&FullNAT != 0) {
		return errors.New("a local endpoint is of full NAT, and of that alone")
	}

	return r.check()
}

// reader is what is left of a record; nil if it was too short.
type reader []byte

func (r *reader) take(n int) []byte {
	if *r == nil || len(*r) < n {
		*r = nil

		return make([]byte, n)
	}
	b := (*r)[:n]
	*r = (*r)[n:]

	return b
}

func (r *reader) endpoint(wide bool) (e Endpoint) {
	if wide {
		e.Addr = Addr(r.take(16))
	} else {
		e.Addr = AddrFrom4([4]byte(r.take(4)))
	}
	e.Port = binary.BigEndian.Uint16(r.take(2))

	return e
}

// check tells what cannot be true of a connection. Which servers and addresses there
// are is the caller's to know.
func (r *Record) check() error {
	has := func(f Flags) bool { return r.Flags&f != 0 }
	four := r.Client.Addr.Is4()
	switch {
	case int(r.State) >= NumStates || !r.State.of(r.Proto, has(Template)):
		return fmt.Errorf("state %d is none of protocol %d", r.State, r.Proto)
	case int(r.Class) >= NumClasses:
		return fmt.Errorf("there is no class %d", r.Class)
	case has(Template) && (r.Class == ClassHeld || has(SNAT|FullNAT|InputOnly|OnePacket|Helped|Counted) || r.Rule != 0):
		return errors.New("a template is no connection")
	case !has(Template) && r.Class == ClassTemplate:
		return errors.New("a connection is no template")
	case has(SNAT) && has(FullNAT|InputOnly|OnePacket|Helped):
		return errors.New("a connection of SNAT is of no service")
	case has(InputOnly) && has(FullNAT) || has(Tunnel) && !has(InputOnly):
		return errors.New("what answers past us is not translated, what is wrapped answers past us")
	case has(OnePacket) && r.Proto != protoUDP, has(Helped) && r.Proto != protoTCP:
		return errors.New("protocol and kind contradict each other")
	case (r.Server == NoSlot) != has(SNAT|OnePacket):
		return errors.New("server and kind contradict each other")
	case r.Proto != ProtoMark && r.Virtual.Addr.Is4() != four, has(FullNAT) && r.Local.Addr.Is4() != r.Dest.Addr.Is4():
		return errors.New("both ends of a packet are of one family")
	case has(FullNAT) && r.Client == r.Dest && r.Virtual == r.Local:
		return errors.New("both ways in are the same")
	case r.HalfKnown() && (r.Proto != protoTCP || r.State != Listen):
		return errors.New("only what is expected has a client without a port")
	}

	return nil
}

// of says whether connections of a protocol, or templates, have the state.
func (s State) of(proto uint8, template bool) bool {
	switch {
	case template:
		return (s == None || s == Assured) && (proto == protoTCP || proto == protoUDP || proto == protoSCTP || proto == ProtoMark)
	case proto == protoTCP:
		return int(s) < numTCPStates
	case proto == protoUDP:
		return s == UDP
	case proto == protoSCTP:
		return s == None || s >= SCTPInit1 && s <= SCTPClosed
	case proto == 1, proto == 58:
		return s == ICMP
	}

	return false
}
