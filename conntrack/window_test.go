// SPDX-License-Identifier: Apache-2.0

package conntrack

import "testing"

// talk is a TCP connection told segment by segment.
type talk struct{ Conn }

func (c *talk) syn(d Direction, seq uint32, win uint16, scale int) {
	c.FollowSYN(d, seq, 0, win, flagSYN, 0, scale)
	c.State = c.State.Next(d, SYN)
}

func (c *talk) synAck(seq, ack uint32, win uint16, scale int) {
	c.FollowSYN(Outbound, seq, ack, win, flagSYN|flagACK, 0, scale)
	c.State = c.State.Next(Outbound, SYN)
}

func (c *talk) ack(d Direction, seq, ack uint32, win uint16, payload int) {
	c.Follow(d, seq, ack, win, flagACK, payload)
	c.State = c.State.Next(d, ACK)
}

// established is after the handshake: the client's next number is isn+1, the
// server's 5001.
func established(isn uint32, clientScale, serverScale int) *talk {
	c := &talk{}
	c.syn(Inbound, isn, 64240, clientScale)
	c.synAck(5000, isn+1, 65160, serverScale)
	c.ack(Inbound, isn+1, 5001, 502, 0)

	return c
}

type judged struct {
	sender Direction
	seq    uint32
	want   WindowVerdict
}

func (c *talk) judge(t *testing.T, what string, rows ...judged) {
	t.Helper()
	for _, row := range rows {
		if got := c.InWindow(row.sender, row.seq); got != row.want {
			t.Errorf("%s: %s %d is %s, want %s\n%+v", what, row.sender, row.seq, got, row.want, c.Window)
		}
	}
}

// TestWindowWrap: the same judgement at every place in sequence space, the
// wrap among them, for a handshake, a request and its answer.
func TestWindowWrap(t *testing.T) {
	for _, isn := range []uint32{0, 1000, 1<<31 - 500, 1 << 31, 1<<32 - 1, 1<<32 - 2, 1<<32 - 501, 1<<32 - 65000} {
		c := established(isn, 7, 7)
		next := isn + 1
		c.judge(t, "handshake",
			judged{Inbound, next, Exact},
			judged{Outbound, 5001, Exact},
			judged{Inbound, next + 1, Inside},
			judged{Inbound, next + 65159, Inside},
			judged{Inbound, next + 65160, Outside}, // the server's SYN window is not scaled
			judged{Outbound, 5001 + 502<<7 - 1, Inside},
			judged{Outbound, 5001 + 502<<7, Outside},
			judged{Inbound, next - 1, Outside},
			judged{Inbound, next + 1<<31, Outside},
			judged{Outbound, 5000, Outside},
		)

		c.ack(Inbound, next, 5001, 502, 1000)         // request
		c.ack(Outbound, 5001, next+1000, 510, 64<<10) // answer, one super-packet
		c.judge(t, "answered",
			judged{Inbound, next + 1000, Exact},
			judged{Inbound, next, Outside},
			judged{Outbound, 5001, Exact},           // as a closed socket would
			judged{Outbound, 5001 + 64<<10, Exact},  // as one that gives up
			judged{Outbound, 5001 + 32<<10, Inside}, // within what is on its way
			judged{Inbound, next + 1000 + 510<<7 - 1, Inside},
			judged{Inbound, next + 1000 + 510<<7, Outside},
		)
		if seq, ok := c.NextSeq(Inbound); !ok || seq != next+1000 {
			t.Errorf("next of the client %d %v", seq, ok)
		}
		if seq, ok := c.NextSeq(Outbound); !ok || seq != 5001+64<<10 {
			t.Errorf("next of the server %d %v", seq, ok)
		}

		c.Follow(Outbound, 5001+64<<10, next+1000, 510, flagFIN|flagACK, 0)
		c.judge(t, "closing",
			judged{Outbound, 5002 + 64<<10, Exact}, // a FIN has a number
			judged{Outbound, 5001 + 64<<10, Inside},
		)
	}
}

// TestWindowLong: gigabytes in both directions, several wraps.
func TestWindowLong(t *testing.T) {
	c := established(1<<32-100, 7, 7)
	up, down := uint32(1<<32-99), uint32(5001)
	for range 300_000 {
		c.ack(Inbound, up, down, 502, 60_000)
		up += 60_000
		c.ack(Outbound, down, up, 510, 30_000)
		down += 30_000
	}
	c.judge(t, "after 18 GB",
		judged{Inbound, up, Exact},
		judged{Outbound, down, Exact},
		judged{Inbound, up + 1, Inside},
		judged{Inbound, up + 1<<20, Outside},
	)
}

// TestWindowScale: a scale holds only if both offered one.
func TestWindowScale(t *testing.T) {
	for _, row := range []struct{ client, server, shift int }{
		{7, 9, 7}, {7, -1, 0}, {-1, 9, 0}, {-1, -1, 0}, {0, 3, 0}, {14, 0, 14}, {200, 0, 14},
	} {
		c := established(1000, row.client, row.server)
		edge := uint32(5001 + 502<<row.shift)
		c.judge(t, "scale", judged{Outbound, edge - 1, Inside}, judged{Outbound, edge, Outside})
	}
}

// TestWindowMidstream: a connection met in its middle is believed as it is,
// and judged as far as it was seen.
func TestWindowMidstream(t *testing.T) {
	var c talk
	c.judge(t, "nothing seen", judged{Inbound, 7, Unknown}, judged{Outbound, 7, Unknown})
	if _, ok := c.NextSeq(Inbound); ok {
		t.Error("a next number from nothing")
	}

	c.ack(Inbound, 1_000_000, 2_000_000, 500, 100)
	c.judge(t, "one side seen",
		judged{Inbound, 1_000_100, Exact},
		judged{Inbound, 1_000_000, Unknown},
		judged{Outbound, 2_000_000, Exact},
		judged{Outbound, 2_000_000 + 500<<14 - 1, Inside}, // scale unknown: the largest
		judged{Outbound, 2_000_000 + 500<<14, Outside},
		judged{Outbound, 1_999_999, Outside},
	)
	if seq, ok := c.NextSeq(Outbound); !ok || seq != 2_000_000 {
		t.Errorf("next of the silent side: %d %v", seq, ok)
	}
	c.ack(Outbound, 2_000_000, 1_000_100, 500, 0)
	c.judge(t, "both seen", judged{Inbound, 1_000_100, Exact}, judged{Inbound, 1_000_000, Outside})
}

// TestNextAck: what a RST in the name of either end acknowledges, from the SYN on.
func TestNextAck(t *testing.T) {
	c := &talk{}
	check := func(what string, sender Direction, want uint32, known bool) {
		t.Helper()
		if got, ok := c.NextAck(sender); got != want || ok != known {
			t.Errorf("%s, in the name of %s: %d %v, want %d %v", what, sender, got, ok, want, known)
		}
	}
	check("nothing seen", Outbound, 0, false)
	c.syn(Inbound, 1000, 64240, 7)
	check("SYN", Outbound, 1001, true)
	check("SYN", Inbound, 0, false)
	c.synAck(5000, 1001, 65160, 7)
	check("SYN+ACK", Outbound, 1001, true)
	check("SYN+ACK", Inbound, 5001, true)
	c.ack(Inbound, 1001, 5001, 502, 300)
	c.ack(Outbound, 5001, 1101, 502, 0)
	check("data half acknowledged", Outbound, 1101, true)
	check("data half acknowledged", Inbound, 5001, true)
}

// TestWindowForged: what a blind sender throws in must not move the window to
// where his RST is.
func TestWindowForged(t *testing.T) {
	for _, far := range []uint32{1 << 20, 1 << 30, 1 << 31, 3 << 30, 1<<32 - 1<<20} {
		c := established(1000, 7, 7)
		c.Follow(Inbound, 1001+far, 5001+far, 500, flagACK, 100)
		c.Follow(Inbound, 1001+far, 5001, 500, flagACK, 100)
		c.Follow(Inbound, 1001, 5001+far, 500, flagACK, 0)
		c.Follow(Outbound, 5001+far, 1001+far, 500, flagACK, 100)
		c.Follow(Inbound, 1001+far, 5001, 0, flagRST, 0)
		c.Follow(Inbound, 1001+far, 5001, 0, flagRST|flagACK, 0)
		c.syn(Inbound, 1001+far, 64240, 7)
		c.synAck(5001+far, 1001+far, 64240, 7)
		c.judge(t, "forged",
			judged{Inbound, 1001 + far, Outside},
			judged{Inbound, 1101 + far, Outside},
			judged{Outbound, 5001 + far, Outside},
			judged{Outbound, 5101 + far, Outside},
			judged{Inbound, 1001, Exact},
			judged{Outbound, 5001, Exact},
		)
	}
}

// TestWindowOfOneSide: where the server answers past us, the client's own numbers
// have to do.
func TestWindowOfOneSide(t *testing.T) {
	for _, isn := range []uint32{1000, 1<<32 - 500} {
		c := &talk{Conn{Flags: InputOnly}}
		c.judge(t, "nothing seen", judged{Inbound, 7, Unknown})
		c.syn(Inbound, isn, 64240, 7)
		c.ack(Inbound, isn+1, 5001, 502, 0)
		c.ack(Inbound, isn+1, 5001, 502, 60_000)
		next := isn + 60_001
		c.judge(t, "sent",
			judged{Inbound, next, Exact},
			judged{Inbound, next - 60_000, Inside}, // answers what the server had not acknowledged
			judged{Inbound, next + 60_000, Inside}, // what went before it was lost on its way to us
			judged{Inbound, next + minReach + 1, Outside},
			judged{Inbound, next - minReach - 1, Outside},
			judged{Inbound, next + 1<<31, Outside},
		)
		// A forged segment moves nothing, one that comes again fills what was lost.
		c.ack(Inbound, next+1<<30, 5001, 502, 100)
		c.ack(Inbound, next+minReach, 5001, 502, 1)
		c.judge(t, "forged", judged{Inbound, next, Exact}, judged{Inbound, next + 1<<30 + 100, Outside})
		c.ack(Inbound, next+minReach-100, 5001, 502, 100)
		c.judge(t, "beyond what was lost", judged{Inbound, next + minReach, Exact})
		if seq, ok := c.NextSeq(Outbound); !ok || seq != 5001 {
			t.Errorf("next of the server %d %v", seq, ok)
		}
	}
}

// TestWindowOrdinary: what real stacks do must leave a true RST exact.
func TestWindowOrdinary(t *testing.T) {
	t.Run("reordering and repetition", func(t *testing.T) {
		c := established(1000, 7, 7)
		c.ack(Inbound, 2001, 5001, 502, 1000)
		c.ack(Inbound, 1001, 5001, 502, 1000)
		c.ack(Outbound, 5001, 3001, 510, 0)
		c.ack(Outbound, 5001, 2001, 100, 0) // an older acknowledgement comes late
		c.ack(Inbound, 1001, 5001, 502, 1000)
		c.judge(t, "", judged{Inbound, 3001, Exact}, judged{Inbound, 3001 + 510<<7 - 1, Inside})
	})
	t.Run("closed window and probe", func(t *testing.T) {
		c := established(1000, 7, 7)
		c.ack(Inbound, 1001, 5001, 502, 60_000)
		c.ack(Outbound, 5001, 61_001, 0, 0)
		c.judge(t, "closed", judged{Inbound, 61_001, Exact}, judged{Inbound, 61_002, Outside})
		c.ack(Inbound, 61_001, 5001, 502, 1)
		c.judge(t, "probed", judged{Inbound, 61_002, Exact}, judged{Inbound, 61_001, Exact})
	})
	t.Run("keepalive", func(t *testing.T) {
		c := established(1000, 7, 7)
		c.ack(Inbound, 1000, 5001, 502, 0)
		c.ack(Outbound, 5001, 1001, 510, 0)
		c.judge(t, "", judged{Inbound, 1001, Exact}, judged{Outbound, 5001, Exact})
	})
	t.Run("refused", func(t *testing.T) {
		var c talk
		c.syn(Inbound, 1000, 64240, 7)
		c.judge(t, "", judged{Outbound, 0, Unknown}, judged{Inbound, 1001, Exact})
	})
	t.Run("simultaneous open", func(t *testing.T) {
		var c talk
		c.syn(Inbound, 1000, 1000, 7)
		c.syn(Outbound, 5000, 1000, 7)
		c.ack(Inbound, 1001, 5001, 10, 0)
		c.ack(Outbound, 5001, 1001, 10, 0)
		c.judge(t, "", judged{Inbound, 1001, Exact}, judged{Inbound, 1001 + 10<<7, Outside})
	})
	t.Run("new incarnation on an old entry", func(t *testing.T) {
		c := established(1000, 7, 7)
		c.State = TimeWait
		c.syn(Inbound, 900_000_000, 64240, 7)
		c.judge(t, "SYN", judged{Inbound, 900_000_001, Exact}, judged{Outbound, 5001, Unknown}, judged{Inbound, 1001, Unknown})
		// The server still has the old one: challenge ACK, RST, SYN again.
		c.ack(Outbound, 5001, 1001, 510, 0)
		c.judge(t, "challenge", judged{Inbound, 1001, Exact})
		c.State = Close
		c.syn(Inbound, 900_000_000, 64240, 7)
		c.synAck(77_000_000, 900_000_001, 65160, 7)
		c.ack(Inbound, 900_000_001, 77_000_001, 502, 0)
		c.judge(t, "second try", judged{Inbound, 900_000_001, Exact}, judged{Outbound, 77_000_001, Exact}, judged{Inbound, 1001, Outside})
	})
	t.Run("SYN again behind its answer", func(t *testing.T) {
		var c talk
		c.syn(Inbound, 1000, 64240, 7)
		c.synAck(5000, 1001, 65160, 7)
		c.syn(Inbound, 1000, 64240, 7)
		c.ack(Inbound, 1001, 5001, 10, 0)
		c.judge(t, "", judged{Outbound, 5001, Exact}, judged{Outbound, 5001 + 10<<7 - 1, Inside}, judged{Outbound, 5001 + 10<<7, Outside})
		if seq, known := c.NextSeq(Outbound); seq != 5001 || !known {
			t.Errorf("next of the server %d, %t", seq, known)
		}
	})
	t.Run("data of the server that passed us by", func(t *testing.T) {
		c := established(1000, 7, 7)
		c.ack(Inbound, 1001, 5001+3000, 502, 0)
		if seq, _ := c.NextSeq(Outbound); seq != 8001 {
			t.Errorf("next of the server %d", seq)
		}
	})
	t.Run("a RST moves nothing", func(t *testing.T) {
		c := established(1000, 7, 7)
		before := c.Window
		c.Follow(Inbound, 1501, 5001, 0, flagRST, 0)
		c.Follow(Inbound, 1501, 5001, 0, flagRST|flagACK, 10)
		c.FollowSYN(Inbound, 1501, 5001, 0, flagRST|flagSYN, 10, 7)
		if c.Window != before {
			t.Errorf("%+v, before %+v", c.Window, before)
		}
	})
}
