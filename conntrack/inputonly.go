// SPDX-License-Identifier: Apache-2.0

package conntrack

// Connections of which we see one side: direct routing and tunnels. The server has
// the virtual address itself and answers the client past us.
//
// No packet is looked for under such a connection's inside endpoint, so that one
// server can have any number of them with one client endpoint and different
// virtual addresses: nothing that they answer needs to be told apart here. Their
// packets are InboundOnly to the state machines.

// inWindowAlone judges a sequence number where the receiver has not been heard. Of
// an InputOnly connection it never will be; there the end of what the sender sent
// has to do: all that the server gets passes us, also what comes again, so that the
// sender's number is never far from it. The server, which knows its window, judges
// once more: what is Outside here may still go on.
func (c *Conn) inWindowAlone(s *Window, seq uint32) WindowVerdict {
	switch {
	case c.Flags&InputOnly == 0 || s.Flags&WindowSeen == 0:
		return Unknown
	case distance(seq, s.End) <= minReach:
		return Inside
	}

	return Outside
}
