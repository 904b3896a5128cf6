// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestStatesGolden replays what the kernel's IPVS did: each line of a matrix is a
// sequence of segments and the state and timer after it.
func TestStatesGolden(t *testing.T) {
	for _, matrix := range []struct {
		file  string
		table TCPTable
		least int
	}{
		{"testdata/tcp-matrix.txt", UsualTCP, 200},
		{"testdata/tcp-matrix-secure.txt", SecureTCP, 38},
	} {
		t.Run(matrix.file, func(t *testing.T) {
			timeouts := DefaultTimeouts()
			lines := 0
			for line := range strings.Lines(readFile(t, matrix.file)) {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' {
					continue
				}
				events, want, ok := strings.Cut(line, " : ")
				if !ok {
					t.Fatalf("no colon in %q", line)
				}
				lines++

				got := "none"
				if state, open := replay(matrix.table, strings.Fields(events)); open {
					// Read within the second after the last segment: one less.
					got = fmt.Sprint(state, " ", clockFormat(timeouts[state]-time.Second))
				}
				if got != want {
					t.Errorf("%s: %s, the kernel has %s", events, got, want)
				}
			}
			if lines < matrix.least {
				t.Errorf("only %d lines replayed", lines)
			}
		})
	}
}

// replay runs events such as "iS" or "oA"; only a SYN of the client opens an entry.
func replay(table TCPTable, events []string) (state State, open bool) {
	for _, e := range events {
		if !open && e != "iS" {
			continue
		}
		open = true
		d, event := parseEvent(e)
		state = table.Next(state, d, event)
	}

	return state, open
}

func parseEvent(e string) (Direction, Event) {
	d := Inbound
	if e[0] == 'o' {
		d = Outbound
	}
	// As sent by the recorder: FIN with ACK, SYN of the server with ACK.
	flags := map[string]uint8{
		"iS": flagSYN, "iA": flagACK, "iF": flagFIN | flagACK, "iR": flagRST,
		"oS": flagSYN | flagACK, "oA": flagACK, "oF": flagFIN | flagACK, "oR": flagRST | flagACK,
	}[e]
	if flags == 0 {
		panic("unknown event " + e)
	}

	return d, EventOf(flags)
}

func clockFormat(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// TestExpiryGolden replays expiry.txt: how long an entry is seen after its
// last segment, with the default timeouts and after "ipvsadm --set 30 7 5".
func TestExpiryGolden(t *testing.T) {
	timeouts := DefaultTimeouts()
	lines := 0
	for line := range strings.Lines(readFile(t, "testdata/expiry.txt")) {
		if strings.HasPrefix(line, "# after ipvsadm --set 30 7 5") {
			timeouts[Established], timeouts[FinWait], timeouts[UDP] = 30*time.Second, 7*time.Second, 5*time.Second
		}
		head, rest, ok := strings.Cut(line, "] : ")
		if !ok || line[0] == '#' {
			continue
		}
		_, events, _ := strings.Cut(head, "[")
		var seen, gone float64
		var state, left, last, zero string
		if _, err := fmt.Sscanf(rest[strings.Index(rest, "last seen"):], "last seen %f: %s 00:%s ; gone at %f s", &seen, &last, &zero, &gone); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		fmt.Sscanf(rest, "%f: %s %s", &seen, &state, &left)
		lines++

		table := newTable(t, 8)
		c, _ := table.Insert(&Conn{Proto: protoTCP}, 0, time.Second)
		now := Time(0)
		for _, e := range strings.Fields(events) {
			c.State = c.State.Next(parseEvent(e))
			table.SetDeadline(c, now.Add(timeouts[c.State]))
		}
		if shown := clockFormat(timeouts[c.State] - time.Second); c.State.String() != state ||
			shown != left && clockFormat(timeouts[c.State]-500*time.Millisecond) != left {
			t.Errorf("%s: %s %s, the kernel has %s %s", events, c.State, shown, state, left)
		}
		for table.Len() > 0 && now < Time(time.Hour) {
			now += Time(100 * time.Millisecond)
			table.Sweep(now, 100)
		}
		// The kernel's listing was read once a second, its wheel is coarser.
		if at := time.Duration(now).Seconds(); at > gone || at < gone-3 {
			t.Errorf("%s: gone at %.1f s, in the kernel at %.1f s", events, at, gone)
		}
	}
	if lines < 15 {
		t.Errorf("only %d lines replayed", lines)
	}
}

// TestStateTable compares the table with one written from the reference by
// hand, state by state instead of row by row.
func TestStateTable(t *testing.T) {
	//  in: S  F  A  R    out: S  F  A  R
	byHand := map[State]string{
		None:        "SR CL ES CL  SS TW ES CL",
		Established: "ES CW ES CL  ES FW ES CL",
		SynSent:     "ES SS SS CL  SS SS SS SS",
		SynRecv:     "SR TW ES SR  SR TW ES CL",
		FinWait:     "SR TW FW CL  SS FW FW CL",
		TimeWait:    "SR TW TW CL  SS TW TW TW",
		Close:       "SR CL CL CL  SS CL CL CL",
		CloseWait:   "SR CW CW CL  SS TW CW CL",
		LastAck:     "SR LA CL LA  SS LA LA CL",
		Listen:      "SR LI LI LI  LI LI ES CL",
		SynAck:      "SR TW ES SR  SR TW ES CL",
	}
	short := map[string]State{
		"NO": None, "ES": Established, "SS": SynSent, "SR": SynRecv, "FW": FinWait, "TW": TimeWait,
		"CL": Close, "CW": CloseWait, "LA": LastAck, "LI": Listen, "SA": SynAck,
	}
	for from, row := range byHand {
		for i, name := range strings.Fields(row) {
			d, e := Direction(i/4), []Event{SYN, FIN, ACK, RST}[i%4]
			if got := from.Next(d, e); got != short[name] {
				t.Errorf("%s, %s, event %d: %s, want %s", from, d, e, got, short[name])
			}
		}
		for _, d := range []Direction{Inbound, Outbound} {
			if got := from.Next(d, NoFlags); got != Close {
				t.Errorf("%s, %s, no flags: %s", from, d, got)
			}
		}
	}
	for _, s := range []State{UDP, ICMP} {
		for e := SYN; e <= NoFlags; e++ {
			if s.Next(Inbound, e) != s || s.Next(Outbound, e) != s {
				t.Errorf("%s does not stay", s)
			}
		}
	}
}

// TestInputOnlyStates has the kernel's INPUT-ONLY rows, written by hand: SYN FIN ACK
// RST of the client.
func TestInputOnlyStates(t *testing.T) {
	byHand := map[State][4]State{
		None:        {SynRecv, Close, Established, Close},
		Established: {Established, FinWait, Established, Close},
		SynSent:     {Established, SynSent, SynSent, Close},
		SynRecv:     {SynRecv, TimeWait, Established, SynRecv},
		FinWait:     {SynRecv, FinWait, FinWait, Close},
		TimeWait:    {SynRecv, TimeWait, TimeWait, Close},
		Close:       {SynRecv, Close, Close, Close},
		CloseWait:   {SynRecv, CloseWait, CloseWait, Close},
		LastAck:     {SynRecv, LastAck, Close, LastAck},
		Listen:      {SynRecv, Listen, Listen, Listen},
		SynAck:      {SynRecv, TimeWait, Established, Close},
	}
	for from, row := range byHand {
		for e, want := range row {
			if got := from.Next(InboundOnly, Event(e)); got != want {
				t.Errorf("%s, event %d: %s, want %s", from, e, got, want)
			}
		}
		if got := from.Next(InboundOnly, NoFlags); got != Close {
			t.Errorf("%s, no flags: %s", from, got)
		}
	}
	if got := UDP.Next(InboundOnly, RST); got != UDP {
		t.Errorf("UDP does not stay: %s", got)
	}
}

// TestSecureStates names the cells in which the table of secure_tcp differs from
// the usual one (ip_vs_proto_tcp.c, tcp_states_dos); all others are the same.
func TestSecureStates(t *testing.T) {
	type cell struct {
		from State
		d    Direction
		e    Event
	}
	differs := map[cell]State{
		{SynAck, Inbound, SYN}:  SynAck,
		{SynAck, Inbound, FIN}:  SynAck,
		{SynAck, Inbound, ACK}:  SynAck,
		{SynAck, Inbound, RST}:  Close,
		{SynRecv, Inbound, ACK}: SynRecv,

		{SynRecv, Outbound, SYN}: SynAck,
		{SynAck, Outbound, SYN}:  SynAck,
	}
	for _, s := range []State{None, FinWait, TimeWait, Close, CloseWait, LastAck, Listen, SynAck} {
		differs[cell{s, InboundOnly, SYN}] = SynAck
	}
	for s := range State(numTCPStates) {
		for d := range InboundOnly + 1 {
			for e := range NoFlags + 1 {
				want, ok := differs[cell{s, d, e}]
				if !ok {
					want = UsualTCP.Next(s, d, e)
				} else if want == UsualTCP.Next(s, d, e) {
					t.Errorf("%s, %d, event %d: no difference", s, d, e)
				}
				if got := SecureTCP.Next(s, d, e); got != want {
					t.Errorf("%s, %d, event %d: %s, want %s", s, d, e, got, want)
				}
			}
		}
	}
}

func TestEventOf(t *testing.T) {
	for flags, want := range map[uint8]Event{
		0x02: SYN, 0x12: SYN, 0x03: SYN, 0x22: SYN, 0xc2: SYN,
		0x01: FIN, 0x11: FIN, 0x10: ACK, 0x18: ACK, 0xd0: ACK,
		0x04: RST, 0x14: RST, 0x06: RST, 0x05: RST, 0xff: RST,
		0x00: NoFlags, 0x08: NoFlags, 0x20: NoFlags, 0xc0: NoFlags,
	} {
		if got := EventOf(flags); got != want {
			t.Errorf("flags %#02x: event %d, want %d", flags, got, want)
		}
	}
}

func TestStateFacts(t *testing.T) {
	rows := []struct {
		state   State
		name    string
		active  bool
		seconds int
	}{
		{None, "NONE", false, 2},
		{Established, "ESTABLISHED", true, 900},
		{SynSent, "SYN_SENT", true, 120},
		{SynRecv, "SYN_RECV", true, 60},
		{FinWait, "FIN_WAIT", false, 120},
		{TimeWait, "TIME_WAIT", false, 120},
		{Close, "CLOSE", false, 10},
		{CloseWait, "CLOSE_WAIT", false, 60},
		{LastAck, "LAST_ACK", false, 30},
		{Listen, "LISTEN", false, 120},
		{SynAck, "SYNACK", true, 120},
		{UDP, "UDP", false, 300},
		{ICMP, "ICMP", false, 60},
		{SCTPInit1, "INIT1", false, 4},
		{SCTPInit, "INIT", false, 61},
		{SCTPCookieSent, "C-SENT", false, 61},
		{SCTPCookieReplied, "C-REPLIED", false, 61},
		{SCTPCookieWait, "C-WAIT", false, 61},
		{SCTPCookie, "COOKIE", false, 61},
		{SCTPCookieEchoed, "C-ECHOED", false, 61},
		{SCTPEstablished, "ESTABLISHED", true, 900},
		{SCTPShutdownSent, "S-SENT", false, 61},
		{SCTPShutdownReceived, "S-RECEIVED", false, 61},
		{SCTPShutdownAckSent, "S-ACK-SENT", false, 61},
		{SCTPRejected, "REJECTED", false, 4},
		{SCTPClosed, "CLOSED", false, 61},
		{Assured, "ASSURED", false, 0},
	}
	if len(rows) != NumStates {
		t.Fatalf("%d rows, %d states", len(rows), NumStates)
	}
	for _, row := range rows {
		life := DefaultTimeouts()[row.state]
		if row.state.String() != row.name || row.state.Active() != row.active || life != time.Duration(row.seconds)*time.Second {
			t.Errorf("%s: active %v, %v; want %+v", row.state, row.state.Active(), life, row)
		}
	}
	if beyond := State(NumStates); beyond.Active() || beyond.String() != "ERR!" {
		t.Error("a state out of range is active or has a name")
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}

	return string(b)
}

// newTable is a table with a known seed that is closed when the test ends.
func newTable(t testing.TB, n int) *Table {
	t.Helper()
	table, err := NewTable(Config{MaxConns: n, Seed: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })

	return table
}
