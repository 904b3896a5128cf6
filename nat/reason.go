// SPDX-License-Identifier: Apache-2.0

package nat

// A Reason says why a packet was dropped. Every drop has one, and a counter.
type Reason uint8

const (
	ReasonNone Reason = iota

	// What is wrong with the IP header.
	ReasonShort       // cut inside a header
	ReasonVersion     // neither IPv4 nor IPv6
	ReasonIPHeader    // header length or total length lies
	ReasonIPChecksum  // header checksum wrong
	ReasonIPOptions   // source route, malformed options or extension headers
	ReasonSource      // a source that no host may have
	ReasonDestination // a destination that is not forwarded to
	ReasonTTL         // time to live ran out
	ReasonSpoofed     // came in by a port its source is not behind
	ReasonLand        // source is the virtual address itself
	ReasonTruncated   // larger than the buffer or the capture

	// What is wrong with a fragment.
	ReasonFragment          // impossible offset or length
	ReasonFragmentTiny      // headers split over fragments
	ReasonFragmentOverlap   // overlaps another fragment of its datagram
	ReasonFragmentLimit     // too many fragments waiting
	ReasonFragmentTimeout   // its datagram never became whole
	ReasonFragmentLate      // its datagram was refused
	ReasonFragmentDuplicate // came already

	// What is wrong with the transport header.
	ReasonTCPHeader
	ReasonTCPFlags
	ReasonUDPHeader
	ReasonSCTPHeader
	ReasonSCTPTag // a verification tag where none may be, or none where one must
	ReasonICMPHeader
	ReasonICMPChecksum
	ReasonICMPQuote  // quoted packet unusable
	ReasonICMPType   // an ICMP type that is not translated
	ReasonICMPNoConn // quotes no connection of ours
	ReasonPortZero   // source or destination port is zero
	ReasonProtocol   // a protocol that is not translated

	// What the connection table says.
	ReasonNoConn      // not the first packet of a connection, and no entry
	ReasonNoService   // to an address that is ours alone, but to no service
	ReasonNoServer    // no server available
	ReasonServerGone  // the entry's server was removed
	ReasonTableFull   // connection table full
	ReasonClash       // replies could not be told apart
	ReasonWindow      // RST, FIN or an old SYN, outside the window
	ReasonUnsolicited // from outside to a mapped port, from a stranger
	ReasonNoPort      // no SNAT port left
	ReasonNoLocal     // no local port left for full NAT
	ReasonStray       // from a real server, without an entry
	ReasonHelper      // its helper can't read it: a part of a datagram
	ReasonHelperWait  // its helper has to see something else first; it comes again
	ReasonHelperFull  // more control connections than helpers remember
	ReasonClientLimit // its client has as many connections as it may
	ReasonDropPacket  // one of the first packets that DropPacket drops
	ReasonWrongShard  // handed over, and not to where it belongs
	ReasonHandOver    // too many packets wait to be handed over

	// What the way out says.
	ReasonNoRoute
	ReasonTooBig      // needs fragmentation and must not be
	ReasonNeighbour   // next hop did not answer
	ReasonQueueFull   // too many packets wait for that next hop
	ReasonSend        // the port refused it
	ReasonOutboxFull  // no room for an answer of our own
	ReasonRateLimit   // answer suppressed by the rate limit
	ReasonLinkAddress // frame is for another host

	// NumReasons is how many reasons there are.
	NumReasons
)

var reasonNames = [NumReasons]string{
	ReasonNone:              "none",
	ReasonShort:             "short",
	ReasonVersion:           "ip-version",
	ReasonIPHeader:          "ip-header",
	ReasonIPChecksum:        "ip-checksum",
	ReasonIPOptions:         "ip-options",
	ReasonSource:            "bad-source",
	ReasonDestination:       "bad-destination",
	ReasonTTL:               "ttl",
	ReasonSpoofed:           "spoofed-source",
	ReasonLand:              "land",
	ReasonTruncated:         "truncated",
	ReasonFragment:          "fragment",
	ReasonFragmentTiny:      "fragment-tiny",
	ReasonFragmentOverlap:   "fragment-overlap",
	ReasonFragmentLimit:     "fragment-limit",
	ReasonFragmentTimeout:   "fragment-timeout",
	ReasonFragmentLate:      "fragment-refused",
	ReasonFragmentDuplicate: "fragment-duplicate",
	ReasonTCPHeader:         "tcp-header",
	ReasonTCPFlags:          "tcp-flags",
	ReasonUDPHeader:         "udp-header",
	ReasonSCTPHeader:        "sctp-header",
	ReasonSCTPTag:           "sctp-tag",
	ReasonICMPHeader:        "icmp-header",
	ReasonICMPChecksum:      "icmp-checksum",
	ReasonICMPQuote:         "icmp-quote",
	ReasonICMPType:          "icmp-type",
	ReasonICMPNoConn:        "icmp-no-conn",
	ReasonPortZero:          "port-zero",
	ReasonProtocol:          "protocol",
	ReasonNoConn:            "no-conn",
	ReasonNoService:         "no-service",
	ReasonNoServer:          "no-server",
	ReasonServerGone:        "server-gone",
	ReasonTableFull:         "table-full",
	ReasonClash:             "reply-clash",
	ReasonWindow:            "out-of-window",
	ReasonUnsolicited:       "unsolicited",
	ReasonNoPort:            "no-snat-port",
	ReasonNoLocal:           "no-local-port",
	ReasonStray:             "stray-server-packet",
	ReasonHelper:            "helper",
	ReasonHelperWait:        "helper-wait",
	ReasonHelperFull:        "helper-full",
	ReasonClientLimit:       "client-limit",
	ReasonDropPacket:        "drop-packet",
	ReasonWrongShard:        "wrong-shard",
	ReasonHandOver:          "hand-over-full",
	ReasonNoRoute:           "no-route",
	ReasonTooBig:            "too-big",
	ReasonNeighbour:         "neighbour-silent",
	ReasonQueueFull:         "neighbour-queue-full",
	ReasonSend:              "send-failed",
	ReasonOutboxFull:        "outbox-full",
	ReasonRateLimit:         "icmp-rate-limit",
	ReasonLinkAddress:       "other-host",
}

// String returns the reason as metrics, logs and packet scripts name it.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "unknown"
}
