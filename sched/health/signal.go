// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/netip"
)

// A Signal is what the packets of clients say about a server, beside what checks find
// out. A bad one counts as N failures of each check of the server, and has the check
// made at once; a good one changes nothing, since a check may ask for more. Of a server
// without a check nothing is made of it.
type Signal struct {
	// Server is where the server serves, and Proto the number of its protocol
	// (6 TCP, 17 UDP, 132 SCTP). A signal concerns the server in all services.
	Server netip.AddrPort
	Proto  uint8
	Kind   SignalKind
	N      int    // how often since the last signal of the kind, at least 1
	Detail string // for people, one line: "SYN without answer, 3 in 1s"
}

// A SignalKind says what was seen.
type SignalKind uint8

// What may be seen.
const (
	// Answered is the good one: a SYN-ACK or an answer to a datagram came.
	Answered SignalKind = iota
	// Silent is a SYN or datagrams that went to the server and no answer came.
	Silent
	// Refused is a RST or port unreachable in answer to the first packet.
	Refused
)

func (k SignalKind) String() string {
	switch k {
	case Answered:
		return "answered"
	case Silent:
		return "silent"
	}
	return "refused"
}
