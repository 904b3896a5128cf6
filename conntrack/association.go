// SPDX-License-Identifier: Apache-2.0

package conntrack

import "time"

// The states of an SCTP association as IPVS has them, behind those that were
// there before; [None] is where it begins too. They are the server's, guessed
// from the chunks that pass (comment in ip_vs_proto_sctp.c): INIT1 to
// COOKIE_REPLIED lead to an association that the client opens, COOKIE_WAIT to
// COOKIE_ECHOED to one that the server opens.
const (
	SCTPInit1            = ICMP + 1 + iota // the client's first INIT
	SCTPInit                               // it was repeated
	SCTPCookieSent                         // INIT ACK of the server
	SCTPCookieReplied                      // COOKIE ECHO of the client
	SCTPCookieWait                         // INIT of the server
	SCTPCookie                             // INIT ACK of the client
	SCTPCookieEchoed                       // COOKIE ECHO of the server
	SCTPEstablished                        // COOKIE ACK
	SCTPShutdownSent                       // SHUTDOWN of the server
	SCTPShutdownReceived                   // SHUTDOWN of the client
	SCTPShutdownAckSent                    // SHUTDOWN ACK of the server
	SCTPRejected                           // ABORT in answer to INIT
	SCTPClosed

	numSCTPStates = int(SCTPClosed-SCTPInit1) + 2
)

// Chunk is what an SCTP packet means to the state machine: the type of its
// first chunk, as far as there is a difference.
type Chunk uint8

const (
	ChunkData Chunk = iota // and whatever has no name here: SACK, HEARTBEAT, …
	ChunkInit
	ChunkInitAck
	ChunkCookieEcho
	ChunkCookieAck
	ChunkShutdown
	ChunkShutdownAck
	ChunkShutdownComplete
	ChunkError
	ChunkAbort

	numChunks = int(ChunkAbort) + 1
)

// chunkTypes are the numbers of RFC 9260 section 3.2.
var chunkTypes = [256]Chunk{
	1:  ChunkInit,
	2:  ChunkInitAck,
	6:  ChunkAbort,
	7:  ChunkShutdown,
	8:  ChunkShutdownAck,
	9:  ChunkError,
	10: ChunkCookieEcho,
	11: ChunkCookieAck,
	14: ChunkShutdownComplete,
}

// ChunkOf sorts a chunk type.
func ChunkOf(chunkType uint8) Chunk { return chunkTypes[chunkType] }

// Two-letter names keep a row of the tables below on one line; a stands for
// association.
const (
	aNO = None
	aI1 = SCTPInit1
	aIN = SCTPInit
	aCS = SCTPCookieSent
	aCR = SCTPCookieReplied
	aCW = SCTPCookieWait
	aCO = SCTPCookie
	aCE = SCTPCookieEchoed
	aES = SCTPEstablished
	aSS = SCTPShutdownSent
	aSR = SCTPShutdownReceived
	aSA = SCTPShutdownAckSent
	aRJ = SCTPRejected
	aCL = SCTPClosed
)

// associations says what follows a state, one row for each: the next state by
// chunk (sctp_states in ip_vs_proto_sctp.c, there one row for each chunk).
//
// The packet that opens an entry decides much (row NO), since IPVS can be told
// to take up an association in its middle. INIT ACK, COOKIE ECHO and COOKIE ACK
// of the server are believed in nearly every state before ESTABLISHED, those of
// the client hardly: whatever the client says, the server's answer shows
// whether it was good.
var associations = [3][numSCTPStates][numChunks]State{
	Inbound: {
		/*     data INIT I_AK ECHO C_AK SHUT S_AK COMP ERR  ABRT */
		/*NO*/ {aES, aI1, aCW, aCR, aES, aSR, aCL, aCL, aCL, aCL},
		/*I1*/ {aI1, aIN, aCW, aIN, aI1, aI1, aIN, aCL, aI1, aCL},
		/*IN*/ {aIN, aIN, aCW, aIN, aIN, aIN, aIN, aCL, aIN, aCL},
		/*CS*/ {aCS, aCS, aCS, aCR, aCS, aCS, aCS, aCS, aCS, aCL},
		/*CR*/ {aCR, aCR, aCR, aCR, aCR, aCR, aCR, aCR, aCR, aCL},
		/*CW*/ {aCW, aCW, aCO, aCW, aCW, aCW, aCW, aCW, aCW, aRJ},
		/*CO*/ {aCO, aCO, aCO, aCO, aCO, aCO, aCO, aCO, aCO, aCL},
		/*CE*/ {aCE, aCE, aCE, aCE, aES, aCE, aCE, aCE, aCL, aCL},
		/*ES*/ {aES, aES, aES, aES, aES, aSR, aES, aES, aES, aCL},
		/*SS*/ {aSS, aSS, aSS, aSS, aSS, aSS, aCL, aSS, aSS, aCL},
		/*SR*/ {aSR, aSR, aSR, aSR, aSR, aSR, aSR, aSR, aSR, aCL},
		/*SA*/ {aSA, aSA, aSA, aSA, aSA, aSA, aCL, aCL, aSA, aCL},
		/*RJ*/ {aRJ, aIN, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aCL},
		/*CL*/ {aCL, aIN, aCL, aCL, aCL, aCL, aCL, aCL, aCL, aCL},
	},
	Outbound: {
		/*     data INIT I_AK ECHO C_AK SHUT S_AK COMP ERR  ABRT */
		/*NO*/ {aES, aCW, aCS, aCE, aES, aSS, aSA, aCL, aCL, aCL},
		/*I1*/ {aI1, aCW, aCS, aCE, aES, aSS, aSA, aI1, aCL, aRJ},
		/*IN*/ {aIN, aCW, aCS, aCE, aES, aSS, aSA, aIN, aCL, aCL},
		/*CS*/ {aCS, aCW, aCS, aCE, aES, aSS, aSA, aCS, aCL, aCL},
		/*CR*/ {aCR, aCW, aCR, aCE, aES, aSS, aSA, aCR, aCL, aCL},
		/*CW*/ {aCW, aCW, aCW, aCE, aES, aSS, aCW, aCW, aCW, aCL},
		/*CO*/ {aCO, aCW, aCO, aCE, aES, aSS, aCO, aCO, aCO, aCL},
		/*CE*/ {aCE, aCW, aCE, aCE, aES, aSS, aCE, aCE, aCE, aCL},
		/*ES*/ {aES, aES, aES, aES, aES, aSS, aES, aES, aES, aCL},
		/*SS*/ {aSS, aCW, aSS, aSS, aSS, aSS, aSA, aSS, aSS, aCL},
		/*SR*/ {aSR, aCW, aSR, aSR, aSR, aSR, aSA, aSR, aSR, aCL},
		/*SA*/ {aSA, aCW, aSA, aSA, aSA, aSA, aSA, aSA, aSA, aCL},
		/*RJ*/ {aRJ, aCW, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aCL},
		/*CL*/ {aCL, aCW, aCL, aCL, aCL, aCL, aCL, aCL, aCL, aCL},
	},
	InboundOnly: {
		/*     data INIT I_AK ECHO C_AK SHUT S_AK COMP ERR  ABRT */
		/*NO*/ {aES, aI1, aCE, aES, aES, aSR, aCL, aCL, aCL, aCL},
		/*I1*/ {aI1, aIN, aCE, aES, aI1, aI1, aIN, aCL, aI1, aCL},
		/*IN*/ {aIN, aIN, aCE, aES, aIN, aIN, aIN, aCL, aIN, aCL},
		/*CS*/ {aCS, aIN, aCE, aES, aES, aCS, aCS, aCL, aCS, aCL},
		/*CR*/ {aCR, aIN, aCE, aES, aES, aCR, aCR, aCL, aCR, aCL},
		/*CW*/ {aES, aIN, aCE, aES, aCW, aCW, aCW, aCW, aCW, aRJ},
		/*CO*/ {aCO, aCO, aCO, aCO, aES, aCO, aCO, aCO, aCO, aCL},
		/*CE*/ {aCE, aCE, aCE, aCE, aES, aCE, aCE, aCE, aCE, aCL},
		/*ES*/ {aES, aES, aES, aES, aES, aSR, aCL, aES, aES, aCL},
		/*SS*/ {aSS, aSS, aSS, aSS, aSS, aSS, aCL, aSS, aSS, aCL},
		/*SR*/ {aSR, aSR, aSR, aSR, aSR, aSR, aSR, aCL, aSR, aCL},
		/*SA*/ {aSA, aSA, aSA, aSA, aSA, aSA, aCL, aCL, aSA, aCL},
		/*RJ*/ {aRJ, aIN, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aRJ, aCL},
		/*CL*/ {aCL, aIN, aCL, aCL, aCL, aCL, aCL, aCL, aCL, aCL},
	},
}

// NextChunk is the state of an association after a packet whose first chunk is
// e. The direction is that of [State.Next]. States of other protocols stay what
// they are.
func (s State) NextChunk(d Direction, e Chunk) State {
	row := 0
	switch {
	case s >= SCTPInit1 && s <= SCTPClosed:
		row = int(s-SCTPInit1) + 1
	case s != None:
		return s
	}
	if d > InboundOnly || int(e) >= numChunks {
		return s
	}

	return associations[d][row][e]
}

// sctpTimeouts are those of IPVS (sctp_timeouts): 61 s are the longest
// retransmission time-out (RFC 9260 section 16) and one.
func sctpTimeouts(t *Timeouts) {
	for s := SCTPInit1; s <= SCTPClosed; s++ {
		t[s] = 61 * time.Second
	}
	t[SCTPInit1], t[SCTPRejected] = 4*time.Second, 4*time.Second
	t[SCTPEstablished] = 15 * time.Minute
}

// Verification tags.
//
// Each end of an association chooses a tag that all packets to it must carry; a
// packet with another one is thrown away (RFC 9260 section 8.5). The ends
// exchange them with INIT and INIT ACK. So a blind ABORT ends nothing at the
// ends, and must not end the entry here (compare RFC 5961).
//
// The tags in force are those of an INIT ACK that was answered with a COOKIE
// ECHO: nobody who does not see the association can bring that about. What was
// not seen to be agreed is not judged. The tag of what a side sends is in its
// [Window]: End in force, Ack proposed.

// FollowChunk takes note of the tags that a packet brings: tag is that of its
// common header, initiate the one that an INIT ACK proposes.
func (c *Conn) FollowChunk(sender Direction, e Chunk, tag, initiate uint32) {
	s, r := &c.Window[sender&1], &c.Window[sender.Other()&1]
	switch {
	case e == ChunkInitAck:
		s.Ack, r.Ack = tag, initiate
		s.Flags |= WindowAcked
		r.Flags |= WindowAcked
	case e == ChunkCookieEcho && s.Flags&r.Flags&WindowAcked != 0 && tag == s.Ack:
		s.End, r.End = s.Ack, r.Ack
		s.Flags |= WindowSeen
		r.Flags |= WindowSeen
	}
}

// Tag is the tag that a packet made in sender's name must carry for its receiver to
// believe it, above all an ABORT. False if it was not seen to be agreed.
func (c *Conn) Tag(sender Direction) (uint32, bool) {
	w := &c.Window[sender&1]

	return w.End, w.Flags&WindowSeen != 0
}

// HasTag reports whether the receiver takes a packet with this tag for one of
// sender's, as far as is known. reflected is the T bit of ABORT and SHUTDOWN
// COMPLETE: the sender has no association, and gives the tag back that it was
// sent (RFC 9260 section 8.5.1).
func (c *Conn) HasTag(sender Direction, tag uint32, reflected bool) bool {
	if reflected {
		sender = sender.Other()
	}
	w := &c.Window[sender&1]

	return w.Flags&WindowSeen == 0 || w.End == tag
}
