// SPDX-License-Identifier: Apache-2.0

package conntrack

import "time"

// State is the state of a connection: one of the eleven TCP states of IPVS, the
// only state a UDP or an ICMP connection has, one of those of an SCTP
// association, see association.go, or that of a template.
type State uint8

// The order is that of the kernel (enum in include/net/ip_vs.h, the column
// order of tcp_states in ip_vs_proto_tcp.c).
const (
	None State = iota
	Established
	SynSent
	SynRecv
	FinWait
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	SynAck
	UDP
	ICMP

	// NumStates is the number of states.
	NumStates = int(Assured) + 1

	numTCPStates = int(SynAck) + 1
)

// SetState moves c to a state. Whoever writes c.State of a connection in the table
// has the table miscount.
func (t *Table) SetState(c *Conn, s State) {
	t.states[c.State]--
	t.states[s]++
	c.State = s
}

// States is the number of connections in each state.
func (t *Table) States() [NumStates]int { return t.states }

// Event is what a TCP segment's flags mean to the state machine.
type Event uint8

const (
	SYN Event = iota
	FIN
	ACK
	RST
	// NoFlags is a segment with none of the four; it closes.
	NoFlags

	numEvents = int(RST) + 1
)

// Flag bits of the TCP header's 14th byte (RFC 9293 section 3.1).
const (
	flagFIN = 1 << 0
	flagSYN = 1 << 1
	flagRST = 1 << 2
	flagACK = 1 << 4
)

// EventOf classifies the TCP flags byte. A segment with several flags is the
// first of RST, SYN, FIN, ACK (tcp_state_idx in ip_vs_proto_tcp.c): a SYN+ACK
// is a SYN, a FIN+ACK a FIN.
func EventOf(tcpFlags uint8) Event {
	switch {
	case tcpFlags&flagRST != 0:
		return RST
	case tcpFlags&flagSYN != 0:
		return SYN
	case tcpFlags&flagFIN != 0:
		return FIN
	case tcpFlags&flagACK != 0:
		return ACK
	}

	return NoFlags
}

// Two-letter names keep a row of the table below on one line.
const (
	sNO = None
	sES = Established
	sSS = SynSent
	sSR = SynRecv
	sFW = FinWait
	sTW = TimeWait
	sCL = Close
	sCW = CloseWait
	sLA = LastAck
	sLI = Listen
	sSA = SynAck
)

// A TCPTable is one of the two tables of IPVS that say which state follows.
type TCPTable uint8

const (
	// UsualTCP believes the client: its ACK after the SYN makes ESTABLISHED.
	UsualTCP TCPTable = iota
	// SecureTCP waits for the server (IPVS's setting secure_tcp): an entry is
	// ESTABLISHED when the server has sent an ACK after its SYN+ACK, which it
	// does for those only that it hears.
	SecureTCP
)

// transitions are the two tables (tcp_states and tcp_states_dos in
// ip_vs_proto_tcp.c): the next state by direction, event and present state. The
// rows of InboundOnly are for connections of which the client's side is all that
// is seen: its FIN counts for both.
//
// Two cells look like mistakes and are not. A RST from the initiator leaves
// SYN_RECV as it is: anyone can send one with a forged source, and the entry
// is still needed when the true client's ACK comes. A SYN from the initiator
// in ESTABLISHED changes nothing: the server answers an old or forged one with
// a challenge ACK (RFC 5961 section 4) and goes on.
var transitions = [2][3][numEvents][numTCPStates]State{
	UsualTCP: {
		Inbound: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
			FIN: {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW},
			ACK: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
			RST: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR},
		},
		Outbound: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
			FIN: {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
			ACK: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
			RST: {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
		},
		InboundOnly: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
			FIN: {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
			ACK: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
			RST: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		},
	},
	SecureTCP: {
		Inbound: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSA},
			FIN: {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sSA},
			ACK: {sES, sES, sSS, sSR, sFW, sTW, sCL, sCW, sCL, sLI, sSA},
			RST: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		},
		Outbound: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSS, sES, sSS, sSA, sSS, sSS, sSS, sSS, sSS, sLI, sSA},
			FIN: {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
			ACK: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
			RST: {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
		},
		InboundOnly: {
			/*         NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			SYN: {sSA, sES, sES, sSR, sSA, sSA, sSA, sSA, sSA, sSA, sSA},
			FIN: {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
			ACK: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
			RST: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		},
	},
}

// Next is the state after a segment with event e. The direction is as seen
// from the initiator: its segments are Inbound, its peer's Outbound. For a
// connection opened from the inside the caller therefore passes the opposite
// of the packet's [Direction]. States of other protocols stay what they are.
func (t TCPTable) Next(s State, d Direction, e Event) State {
	if int(s) >= numTCPStates {
		return s
	}
	if int(e) >= numEvents {
		return Close
	}

	return transitions[t&1][min(d, InboundOnly)][e][s]
}

// Next is [TCPTable.Next] of the usual table.
func (s State) Next(d Direction, e Event) State { return UsualTCP.Next(s, d, e) }

// active is the flag that IPVS keeps per state (tcp_state_active_table).
var active = [NumStates]bool{
	Established: true,
	SynSent:     true,
	SynRecv:     true,
	SynAck:      true,

	SCTPEstablished: true,
}

// Active says whether a connection in this state counts as active for its
// server (ActiveConn of ipvsadm); all others, every UDP flow among them, count
// as inactive.
func (s State) Active() bool { return int(s) < NumStates && active[s] }

var stateNames = [NumStates]string{
	None:        "NONE",
	Established: "ESTABLISHED",
	SynSent:     "SYN_SENT",
	SynRecv:     "SYN_RECV",
	FinWait:     "FIN_WAIT",
	TimeWait:    "TIME_WAIT",
	Close:       "CLOSE",
	CloseWait:   "CLOSE_WAIT",
	LastAck:     "LAST_ACK",
	Listen:      "LISTEN",
	SynAck:      "SYNACK",
	UDP:         "UDP",
	ICMP:        "ICMP",

	SCTPInit1:            "INIT1",
	SCTPInit:             "INIT",
	SCTPCookieSent:       "C-SENT",
	SCTPCookieReplied:    "C-REPLIED",
	SCTPCookieWait:       "C-WAIT",
	SCTPCookie:           "COOKIE",
	SCTPCookieEchoed:     "C-ECHOED",
	SCTPEstablished:      "ESTABLISHED",
	SCTPShutdownSent:     "S-SENT",
	SCTPShutdownReceived: "S-RECEIVED",
	SCTPShutdownAckSent:  "S-ACK-SENT",
	SCTPRejected:         "REJECTED",
	SCTPClosed:           "CLOSED",
	Assured:              "ASSURED",
}

// String is the name ipvsadm -Lnc shows.
func (s State) String() string {
	if int(s) >= NumStates {
		return "ERR!"
	}

	return stateNames[s]
}

// Timeouts is how long a connection lives after its last packet, by state.
type Timeouts [NumStates]time.Duration

// WithIdle is t with another life for what is established: TCP connections, UDP
// flows, SCTP associations.
func (t Timeouts) WithIdle(d time.Duration) Timeouts {
	t[Established], t[UDP], t[SCTPEstablished] = d, d, d

	return t
}

// DefaultTimeouts are those of IPVS (tcp_timeouts, udp_timeouts, sctp_timeouts),
// and for ICMP echo the least that RFC 5508 REQ-2 allows.
func DefaultTimeouts() Timeouts {
	t := Timeouts{
		None:        2 * time.Second,
		Established: 15 * time.Minute,
		SynSent:     2 * time.Minute,
		SynRecv:     1 * time.Minute,
		FinWait:     2 * time.Minute,
		TimeWait:    2 * time.Minute,
		Close:       10 * time.Second,
		CloseWait:   1 * time.Minute,
		LastAck:     30 * time.Second,
		Listen:      2 * time.Minute,
		SynAck:      2 * time.Minute,
		UDP:         5 * time.Minute,
		ICMP:        1 * time.Minute,
	}
	sctpTimeouts(&t)

	return t
}
