// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"strings"
	"testing"
	"time"
)

var sctpShort = map[string]State{
	"NO": None, "I1": SCTPInit1, "IN": SCTPInit, "CS": SCTPCookieSent, "CR": SCTPCookieReplied,
	"CW": SCTPCookieWait, "CO": SCTPCookie, "CE": SCTPCookieEchoed, "ES": SCTPEstablished,
	"SS": SCTPShutdownSent, "SR": SCTPShutdownReceived, "SA": SCTPShutdownAckSent, "RJ": SCTPRejected, "CL": SCTPClosed,
}

// TestAssociations compares the tables with what each chunk changes, written
// chunk by chunk; what is not named stays.
func TestAssociations(t *testing.T) {
	changes := map[Direction]map[Chunk]string{
		Inbound: {
			ChunkData:             "NO>ES",
			ChunkInit:             "NO>I1 I1>IN RJ>IN CL>IN",
			ChunkInitAck:          "NO>CW I1>CW IN>CW CW>CO",
			ChunkCookieEcho:       "NO>CR I1>IN CS>CR",
			ChunkCookieAck:        "NO>ES CE>ES",
			ChunkShutdown:         "NO>SR ES>SR",
			ChunkShutdownAck:      "NO>CL I1>IN SS>CL SA>CL",
			ChunkShutdownComplete: "NO>CL I1>CL IN>CL SA>CL",
			ChunkError:            "NO>CL CE>CL",
			ChunkAbort:            "NO>CL I1>CL IN>CL CS>CL CR>CL CW>RJ CO>CL CE>CL ES>CL SS>CL SR>CL SA>CL RJ>CL",
		},
		Outbound: {
			ChunkData:             "NO>ES",
			ChunkInit:             "NO>CW I1>CW IN>CW CS>CW CR>CW CO>CW CE>CW SS>CW SR>CW SA>CW RJ>CW CL>CW",
			ChunkInitAck:          "NO>CS I1>CS IN>CS",
			ChunkCookieEcho:       "NO>CE I1>CE IN>CE CS>CE CR>CE CW>CE CO>CE",
			ChunkCookieAck:        "NO>ES I1>ES IN>ES CS>ES CR>ES CW>ES CO>ES CE>ES",
			ChunkShutdown:         "NO>SS I1>SS IN>SS CS>SS CR>SS CW>SS CO>SS CE>SS ES>SS",
			ChunkShutdownAck:      "NO>SA I1>SA IN>SA CS>SA CR>SA SS>SA SR>SA",
			ChunkShutdownComplete: "NO>CL",
			ChunkError:            "NO>CL I1>CL IN>CL CS>CL CR>CL",
			ChunkAbort:            "NO>CL I1>RJ IN>CL CS>CL CR>CL CW>CL CO>CL CE>CL ES>CL SS>CL SR>CL SA>CL RJ>CL",
		},
		InboundOnly: {
			ChunkData:             "NO>ES CW>ES",
			ChunkInit:             "NO>I1 I1>IN CS>IN CR>IN CW>IN RJ>IN CL>IN",
			ChunkInitAck:          "NO>CE I1>CE IN>CE CS>CE CR>CE CW>CE",
			ChunkCookieEcho:       "NO>ES I1>ES IN>ES CS>ES CR>ES CW>ES",
			ChunkCookieAck:        "NO>ES CS>ES CR>ES CO>ES CE>ES",
			ChunkShutdown:         "NO>SR ES>SR",
			ChunkShutdownAck:      "NO>CL I1>IN ES>CL SS>CL SA>CL",
			ChunkShutdownComplete: "NO>CL I1>CL IN>CL CS>CL CR>CL SR>CL SA>CL",
			ChunkError:            "NO>CL",
			ChunkAbort:            "NO>CL I1>CL IN>CL CS>CL CR>CL CW>RJ CO>CL CE>CL ES>CL SS>CL SR>CL SA>CL RJ>CL",
		},
	}
	for d, chunks := range changes {
		if len(chunks) != numChunks {
			t.Fatalf("%d chunks in direction %d", len(chunks), d)
		}
		for chunk, text := range chunks {
			want := make(map[State]State)
			for _, s := range sctpShort {
				want[s] = s
			}
			for _, change := range strings.Fields(text) {
				from, to, _ := strings.Cut(change, ">")
				want[sctpShort[from]] = sctpShort[to]
			}
			for from, to := range want {
				if got := from.NextChunk(d, chunk); got != to {
					t.Errorf("direction %d, chunk %d, %s: %s, want %s", d, chunk, from, got, to)
				}
			}
		}
	}
}

// TestAssociationsGolden replays what the kernel's IPVS did: each line of
// sctp-matrix.txt is a sequence of packets and the state and timer after it.
func TestAssociationsGolden(t *testing.T) {
	timeouts := DefaultTimeouts()
	sloppy, only := false, false
	lines := 0
	for line := range strings.Lines(readFile(t, "testdata/sctp-matrix.txt")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			sloppy, only = strings.HasSuffix(line, "sloppy_sctp=1"), strings.Contains(line, "(-g)")
			continue
		}
		events, want, ok := strings.Cut(line, " : ")
		if !ok {
			t.Fatalf("no colon in %q", line)
		}
		lines++

		state, open := replaySCTP(strings.Fields(events), sloppy, only)
		if !open {
			if want != "none" {
				t.Errorf("%s: no entry, the kernel has %s", events, want)
			}
			continue
		}
		// Read within two seconds after the last packet.
		name, left, _ := strings.Cut(want, " ")
		if state.String() != name || left != clockFormat(timeouts[state]-time.Second) && left != clockFormat(timeouts[state]-2*time.Second) {
			t.Errorf("%s: %s %v, the kernel has %s", events, state, timeouts[state], want)
		}
	}
	if lines < 700 {
		t.Errorf("only %d lines replayed", lines)
	}
}

// replaySCTP runs events such as "iI" or "oCA". An INIT of the client on what is
// closed begins a new entry.
func replaySCTP(events []string, sloppy, only bool) (state State, open bool) {
	chunks := map[string]Chunk{
		"D": ChunkData, "I": ChunkInit, "IA": ChunkInitAck, "CE": ChunkCookieEcho, "CA": ChunkCookieAck, "S": ChunkShutdown,
		"SA": ChunkShutdownAck, "SC": ChunkShutdownComplete, "ER": ChunkError, "AB": ChunkAbort,
	}
	for _, e := range events {
		if !open && e != "iI" && !(sloppy && e[0] == 'i' && e != "iAB") {
			continue
		}
		if e == "iI" && state == SCTPClosed {
			state = None
		}
		open = true
		d := Inbound
		switch {
		case e[0] == 'o':
			d = Outbound
		case only:
			d = InboundOnly
		}
		state = state.NextChunk(d, chunks[e[1:]])
	}

	return state, open
}

// TestAssociationLife follows associations from end to end.
func TestAssociationLife(t *testing.T) {
	chunks := map[string]Chunk{
		"init": ChunkInit, "init-ack": ChunkInitAck, "echo": ChunkCookieEcho, "ack": ChunkCookieAck, "data": ChunkData,
		"shutdown": ChunkShutdown, "shutdown-ack": ChunkShutdownAck, "complete": ChunkShutdownComplete, "abort": ChunkAbort,
	}
	for _, life := range []string{
		// The client opens and closes, the server closes, the server opens.
		"i:init I1  o:init-ack CS  i:echo CR  o:ack ES  i:data ES  o:data ES  i:shutdown SR  o:shutdown-ack SA  i:complete CL",
		"i:init I1  o:init-ack CS  i:echo CR  o:ack ES  o:shutdown SS  i:shutdown-ack CL  o:complete CL",
		"o:init CW  i:init-ack CO  o:echo CE  i:ack ES  i:shutdown SR  o:shutdown-ack SA  i:complete CL",
		// Refused; lost and repeated; ended at once; opened again.
		"i:init I1  o:abort RJ  i:init IN  o:abort CL",
		"i:init I1  i:init IN  o:init-ack CS  i:init CS  o:init-ack CS  i:echo CR  i:echo CR  o:ack ES  o:ack ES",
		"i:init I1  o:init-ack CS  i:echo CR  o:ack ES  i:abort CL  i:init IN  o:init-ack CS  i:echo CR  o:ack ES",
		// Both close at once.
		"i:init I1  o:init-ack CS  i:echo CR  o:ack ES  i:shutdown SR  o:shutdown SR  i:shutdown-ack SR  o:shutdown-ack SA  i:complete CL",
		// Only the client is heard.
		"x:init I1  x:echo ES  x:data ES  x:shutdown SR  x:complete CL",
	} {
		state := None
		words := strings.Fields(life)
		for i := 0; i < len(words); i += 2 {
			side, chunk, _ := strings.Cut(words[i], ":")
			state = state.NextChunk(map[string]Direction{"i": Inbound, "o": Outbound, "x": InboundOnly}[side], chunks[chunk])
			if state != sctpShort[words[i+1]] {
				t.Errorf("%s: %s after %s", life, state, words[i])
				break
			}
		}
	}
}

func TestChunkOf(t *testing.T) {
	want := map[uint8]Chunk{
		0: ChunkData, 1: ChunkInit, 2: ChunkInitAck, 3: ChunkData, 4: ChunkData, 5: ChunkData, 6: ChunkAbort, 7: ChunkShutdown,
		8: ChunkShutdownAck, 9: ChunkError, 10: ChunkCookieEcho, 11: ChunkCookieAck, 12: ChunkData, 13: ChunkData, 14: ChunkShutdownComplete,
	}
	for i := range 256 {
		if got := ChunkOf(uint8(i)); got != want[uint8(i)] { // the zero value is data
			t.Errorf("chunk type %d is %d", i, got)
		}
	}
}

// TestNextChunkOfOthers: what is no association's state stays.
func TestNextChunkOfOthers(t *testing.T) {
	for s := range State(255) {
		if s == None || s >= SCTPInit1 && s <= SCTPClosed {
			continue
		}
		for e := range Chunk(numChunks) {
			if s.NextChunk(Inbound, e) != s {
				t.Errorf("%s does not stay", s)
			}
		}
	}
	if SCTPEstablished.NextChunk(Inbound, Chunk(numChunks)) != SCTPEstablished || None.NextChunk(InboundOnly+1, ChunkInit) != None {
		t.Error("what is out of range changes something")
	}
	for e := SYN; e <= NoFlags; e++ {
		if SCTPEstablished.Next(Inbound, e) != SCTPEstablished {
			t.Error("a TCP event changes an association")
		}
	}
}

// TestTags: tags count once they were agreed, and nobody who guesses changes that.
func TestTags(t *testing.T) {
	const client, server, forged = 0xc1, 0x5e, 0xbad // tags of what is sent to them
	var c Conn
	has := func(sender Direction, tag uint32, reflected, want bool) {
		t.Helper()
		if got := c.HasTag(sender, tag, reflected); got != want {
			t.Errorf("%s has tag %#x (reflected %v): %v", sender, tag, reflected, got)
		}
	}
	has(Inbound, forged, false, true)
	c.FollowChunk(Inbound, ChunkInit, 0, client)
	c.FollowChunk(Outbound, ChunkInitAck, client, server)
	has(Inbound, forged, false, true) // not agreed yet
	if _, ok := c.Tag(Outbound); ok {
		t.Error("a tag was agreed that was proposed")
	}
	c.FollowChunk(Inbound, ChunkCookieEcho, forged, 0)
	has(Inbound, forged, false, true)
	c.FollowChunk(Inbound, ChunkCookieEcho, server, 0)
	c.FollowChunk(Outbound, ChunkCookieAck, client, 0)

	agreed := func() {
		t.Helper()
		has(Inbound, server, false, true)
		has(Inbound, client, false, false)
		has(Inbound, forged, false, false)
		has(Inbound, client, true, true)
		has(Inbound, server, true, false)
		has(Outbound, client, false, true)
		has(Outbound, server, false, false)
		has(Outbound, server, true, true)
	}
	agreed()
	for sender, want := range map[Direction]uint32{Inbound: server, Outbound: client} {
		if tag, ok := c.Tag(sender); !ok || tag != want {
			t.Errorf("%s sends with tag %#x, %v", sender, tag, ok)
		}
	}

	// A blind INIT has the server propose new ones, which the attacker does not see.
	c.FollowChunk(Inbound, ChunkInit, 0, forged)
	c.FollowChunk(Outbound, ChunkInitAck, forged, 0x5eed)
	c.FollowChunk(Inbound, ChunkCookieEcho, forged, 0)
	c.FollowChunk(Inbound, ChunkCookieEcho, server, 0)
	agreed()

	// The client begins anew, with the same ports.
	c.FollowChunk(Inbound, ChunkInit, 0, 0xc2)
	c.FollowChunk(Outbound, ChunkInitAck, 0xc2, 0x5f)
	c.FollowChunk(Inbound, ChunkCookieEcho, 0x5f, 0)
	has(Inbound, server, false, false)
	has(Inbound, 0x5f, false, true)
	has(Outbound, 0xc2, false, true)
}
