// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math"
	"slices"
	"testing"
	"time"
)

const lots = math.MaxInt

// TestExpiry: never early, at most one tick late, whatever the life.
func TestExpiry(t *testing.T) {
	for _, start := range []Time{0, 12345, -Time(time.Hour), 400 * Time(24*time.Hour)} {
		for _, life := range []time.Duration{
			0, 1, time.Second, 10 * time.Second, 900 * time.Second,
			time.Duration(tick), wheelSlots * time.Duration(tick), (wheelSlots + 1) * time.Duration(tick), 5 * time.Hour,
		} {
			table := newTable(t, 4)
			c := dnat(client, virtual, server)
			table.Insert(&c, start, life)
			now := start
			for step := 0; table.Len() > 0; step++ {
				if now > start.Add(life)+2*tick {
					t.Fatalf("start %d, life %v: still there", start, life)
				}
				now += tick / 3
				table.Sweep(now, lots)
			}
			if over := now - start.Add(life); over < 0 || over > tick+tick/3 {
				t.Errorf("start %d, life %v: gone %v after its deadline", start, life, time.Duration(over))
			}
		}
	}
}

// TestDeadlineMoves: later is kept without a look, earlier is noticed.
func TestDeadlineMoves(t *testing.T) {
	second := Time(time.Second)
	table := newTable(t, 4)
	c := insert(t, table, dnat(client, virtual, server)) // 60 s
	table.SetDeadline(c, 900*second)
	for now := Time(0); now < 100*second; now += second {
		table.Sweep(now, lots)
	}
	if table.Len() != 1 {
		t.Fatal("gone at the old deadline")
	}
	table.SetDeadline(c, 110*second) // RST: CLOSE, 10 s
	table.Sweep(110*second-1, lots)
	if table.Len() != 1 {
		t.Fatal("gone too early")
	}
	if n := table.Sweep(110*second+tick, lots); n != 1 || table.Len() != 0 {
		t.Fatalf("%d expired at the earlier deadline", n)
	}

	// To and fro, and into the past.
	c = insert(t, table, dnat(client, virtual, server))
	for _, d := range []Time{500, 300, 400, 200, 600, 250} {
		table.SetDeadline(c, d*second)
	}
	table.Sweep(249*second, lots)
	if table.Len() != 1 {
		t.Fatal("gone before the deadline that was set last")
	}
	table.SetDeadline(c, -second)
	if table.Sweep(249*second+tick, lots) != 1 {
		t.Error("a deadline in the past is not noticed")
	}
}

// TestSweepBudget: a crowd that is due at once goes in portions, in order of
// its ticks, and no portion is larger than asked.
func TestSweepBudget(t *testing.T) {
	var gone []uint16
	table, err := NewTable(Config{MaxConns: 1000, Removed: func(c *Conn, why Removal) {
		if why != Expired {
			t.Errorf("removed: %s", why)
		}
		gone = append(gone, c.Client.Port)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()

	for port := range uint16(100) {
		c := dnatAt(port)
		table.Insert(&c, 0, time.Duration(port)*time.Second)
	}
	now := Time(200 * time.Second)
	if table.Sweep(now, 0) != 0 || table.Sweep(now, -1) != 0 {
		t.Error("expired without a budget")
	}
	for want := 100; want > 0; want -= 7 {
		if got := table.Sweep(now, 7); got != min(7, want) {
			t.Fatalf("%d expired where %d were left", got, want)
		}
	}
	if !slices.IsSorted(gone) || len(gone) != 100 {
		t.Errorf("gone %v", gone)
	}

	// Those that live on count too, so a call stays short.
	for port := range uint16(100) {
		c := dnatAt(port)
		n, _ := table.Insert(&c, now, time.Second)
		table.SetDeadline(n, now.Add(time.Hour))
	}
	c := dnatAt(200)
	table.Insert(&c, now, 2*time.Second)
	now = now.Add(10 * time.Second)
	calls := 1
	for ; table.Sweep(now, 10) == 0; calls++ {
		if calls > 100 {
			t.Fatal("the sweep makes no headway")
		}
	}
	if calls != 11 {
		t.Errorf("found in call %d; 100 to look at by 10", calls)
	}
}

// TestClockJumps: a jump ahead ends what is due and nothing else, in portions;
// a jump back ends nothing.
func TestClockJumps(t *testing.T) {
	table := newTable(t, 1000)
	for port := range uint16(200) {
		c := dnatAt(port)
		life := time.Minute
		if port%2 == 1 {
			life = 3 * 365 * 24 * time.Hour
		}
		table.Insert(&c, 0, life)
	}
	year := Time(365 * 24 * time.Hour)
	if got := table.Sweep(-year, lots); got != 0 {
		t.Errorf("%d expired when the clock went back", got)
	}
	calls := 0
	for table.Len() > 100 {
		before := table.Len()
		table.Sweep(year, 16)
		if before-table.Len() > 16 {
			t.Fatalf("%d at once", before-table.Len())
		}
		if calls++; calls > 20 {
			t.Fatal("the sweep makes no headway")
		}
	}
	for range 10 {
		table.Sweep(year, 16)
	}

	// What lives on was looked at once, not in each turn that the clock left
	// out: a small budget is enough to end a new one on time beside it.
	c := dnatAt(1000)
	table.Insert(&c, year, time.Second)
	if got := table.Sweep(year.Add(time.Second)+tick, 10); got != 1 || table.Len() != 100 {
		t.Errorf("%d expired, %d left", got, table.Len())
	}
	for i := range table.Cap() {
		if c := table.At(i); c != nil && c.Client.Port%2 == 0 {
			t.Errorf("%s is left", c)
		}
	}
	if got := table.Sweep(4*year, lots); got != 100 {
		t.Errorf("%d expired in the end", got)
	}
}

func TestTimeAdd(t *testing.T) {
	if got := Time(5).Add(7); got != 12 {
		t.Error(got)
	}
	if got := Time(5).Add(-7); got != -2 {
		t.Error(got)
	}
	if got := Time(5).Add(math.MaxInt64); got != math.MaxInt64 {
		t.Error(got)
	}
	table := newTable(t, 1)
	c := dnat(client, virtual, server)
	table.Insert(&c, 1, math.MaxInt64)
	if table.Sweep(Time(100*365*24*time.Hour), lots) != 0 {
		t.Error("for ever is over")
	}
}
