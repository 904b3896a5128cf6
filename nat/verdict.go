// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Action is what is to be done with a packet.
type Action uint8

const (
	// Pass leaves the packet to the host: it is none of ours. The host's
	// stack has its own copy already.
	Pass Action = iota
	// Forward sends Packet.Data, rewritten in place, on its way.
	Forward
	// Drop discards it; Verdict.Reason says why.
	Drop
	// Hold means that the packet was consumed: kept until the rest of its
	// datagram comes, or answered from the outbox.
	Hold
	// Elsewhere means that another Forwarder has the packet's connection, and
	// Verdict.Shard says which: it is to be handed over as it came.
	Elsewhere
)

func (a Action) String() string {
	switch a {
	case Forward:
		return "forward"
	case Drop:
		return "drop"
	case Hold:
		return "hold"
	case Elsewhere:
		return "elsewhere"
	}
	return "pass"
}

// A Verdict is the outcome of one packet: a plain value.
type Verdict struct {
	Action Action
	// Reason is set with Drop.
	Reason Reason
	// Shard is the number of the Forwarder to hand the packet over to, with
	// Elsewhere, and Hops what Packet.Hops is then.
	Shard, Hops uint8
	// Port is the index of the port to leave by, with Forward.
	Port uint16
	// To is the link address to send to if it is known (replies to a client
	// go to the neighbour that its packets come from). Zero: resolve NextHop.
	To conntrack.LinkAddr
	// NextHop is the on-link address to resolve on Port.
	NextHop conntrack.Addr
}

// Generated is a packet that the Forwarder made itself, or held and let go.
type Generated struct {
	Packet  Packet
	Verdict Verdict // Action is Forward, or Elsewhere for what was held
	// Memory is Packet.Data with Headroom bytes in front, for a link header.
	Memory []byte
}

// Headroom is the room for a link header in front of a generated packet, in
// bytes.
const Headroom = 16

func drop(r Reason) Verdict { return Verdict{Action: Drop, Reason: r} }
