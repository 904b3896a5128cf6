// SPDX-License-Identifier: Apache-2.0

package conntrack

import "fmt"

// Flags of a connection.
type Flags uint16

const (
	// SNAT: opened from the inside by a rule for outgoing traffic.
	SNAT Flags = 1 << iota
	// FullNAT: Local is used, the source is rewritten too.
	FullNAT
	// Replied: a packet has been seen from the end that did not open it.
	Replied
	// InputOnly: only packets of Client pass us, as they are; Dest has Virtual
	// itself and answers past us. See inputonly.go.
	InputOnly
	// Tunnel: InputOnly, and packets reach Dest wrapped in others.
	Tunnel
	// Template: no connection, but the server that a client is sent to; see
	// template.go.
	Template
	// OnePacket: of a service that schedules each datagram anew. It is found by
	// what leaves, so that answers are translated, never by what arrives.
	// Virtual is not part of its key then and may be changed.
	OnePacket
	// Helped: a control connection, whose payload the caller reads and changes.
	Helped
	// Shortcut: somebody else forwards its packets, and the caller is told now and
	// then how far they have come; see [Conn.Advance].
	Shortcut

	// Counted: the caller counts it for its client.
	Counted Flags = 1 << 9
	// heard is a number of four bits: packets of the client, see Heard.
	heardOne Flags = 1 << 10
	heard          = 15 * heardOne
	// retired marks a template that is not found any more.
	retired Flags = 1 << 14
	// alias marks a slot that holds no connection but the second way to
	// find a FullNAT one; see doc.go.
	alias Flags = 1 << 15
)

const (
	// NoSlot is the value of Server in a connection that has none.
	NoSlot = ^uint32(0)
	// NoPort is the value of HopPort and InsidePort when it is not known.
	NoPort = ^uint16(0)
)

// Conn is one connection. Whoever opened it, the geometry is the same: Client
// is the outside endpoint, Virtual our address, Dest the inside endpoint.
//
//	DNAT       c→v becomes c→d    d→c becomes v→c
//	SNAT       d→c becomes v→c    c→v becomes c→d
//	FullNAT    c→v becomes l→d    d→l becomes v→c
//	InputOnly  c→v goes to d      d answers v→c past us
//
// A *Conn from a [Table] points into its slab. The endpoints, Proto and the
// flags SNAT, FullNAT, InputOnly, Template and OnePacket are its key and must not be changed there; Deadline is set
// through [Table.SetDeadline]; all else is the caller's. It is valid until the
// connection is removed, which any Insert or Sweep may do: never keep it past
// the packet.
//
// The order of the fields is that of use: what a lookup compares is the first
// 64 bytes, what every packet writes the next 64.
type Conn struct {
	Client  Endpoint
	Virtual Endpoint
	Dest    Endpoint
	Proto   uint8 // IP protocol number, not 0
	State   State
	Flags   Flags
	place   place
	next    link // in the bucket's chain, or in the free list

	Deadline Time
	Window   [2]Window // by the direction of the segments' sender; TCP, the tags of SCTP, and see life
	Server   uint32    // slot of the server, or NoSlot
	second   link      // in the second chain, SNAT only; of all others the parent
	Rule     uint32    // slot of the SNAT mapping, or 0

	wheel      links
	Hop        LinkAddr // last hop on the client's side: where packets to it go; zero unknown
	HopPort    uint16   // port of the director that Hop is behind, or NoPort
	InsidePort uint16   // port of the director that Dest is behind, or NoPort

	Local Endpoint // FullNAT only: the source that Dest sees
	class links    // with children, which keep it out of the lists, next is their number
}

// String is "ESTABLISHED tcp c:192.0.2.7:40000 v:10.0.0.1:80 d:10.0.0.2:80",
// the notation of IPVS's debug messages, for tests and traces.
func (c *Conn) String() string {
	s := fmt.Sprintf("%s %s c:%s v:%s d:%s", c.State, protoName(c.Proto), c.Client, c.Virtual, c.Dest)
	if c.Flags&FullNAT != 0 {
		s += fmt.Sprintf(" l:%s", c.Local)
	}

	return s
}

// HalfKnown says whether c waits for a connection of Client, from whatever port it
// will come. It has port 0, which no packet has: [Table.Lookup] finds it by a tuple
// with that.
func (c *Conn) HalfKnown() bool {
	return c.Client.Port == 0 && c.Flags&(SNAT|Template|alias) == 0
}

// MaxHeard is where [Conn.Heard] stops counting.
const MaxHeard = int(heard / heardOne)

// Hear counts a packet of Client.
func (c *Conn) Hear() {
	if c.Flags&heard != heard {
		c.Flags += heardOne
	}
}

// Heard is how many packets of Client were counted, up to MaxHeard: enough to
// tell a connection that is used from one that hardly is.
func (c *Conn) Heard() int { return int(c.Flags & heard / heardOne) }

// link is the number of a slot plus one; 0 is none. So memory that the kernel
// hands over zeroed is already a valid empty table.
type link uint32

// links are a connection's neighbours in a doubly linked list.
type links struct{ next, prev link }

// place packs where a connection stands in the wheel (low bits), its class, and
// whether it has children (the highest bit), so that a Conn ends at 152 bytes.
type place uint16

const (
	slotMask  place = wheelSlots - 1
	parentBit place = 1 << 15
	classMask place = parentBit - wheelSlots
)

func (p place) slot() uint16            { return uint16(p & slotMask) }
func (p place) class() Class            { return Class(p & classMask >> wheelBits) }
func (p place) withSlot(s uint16) place { return p&^slotMask | place(s) }
func (p place) withClass(k Class) place { return p&^classMask | place(k)<<wheelBits }

// listed says whether what stands so is in the list of its class.
func (p place) listed() bool { return p&parentBit == 0 && p.class() != ClassHeld }
