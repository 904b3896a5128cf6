// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A shortcutter is who takes shortcuts: what goes by them is what the test says.
type shortcutter struct {
	rows   int
	open   map[int]bool
	ways   [2]ShortWay // that were opened last
	from   [2]conntrack.Window
	passed [2]Passed
	broken bool
}

func (k *shortcutter) Rows() int { return k.rows }

func (k *shortcutter) Open(row int, ways *[2]ShortWay, from *[2]conntrack.Window) bool {
	k.open[row], k.ways, k.from, k.passed = true, *ways, *from, [2]Passed{}
	for dir := range from {
		k.passed[dir].Reached = from[dir]
	}
	return true
}

func (k *shortcutter) Passed(_ int, passed *[2]Passed) bool { *passed = k.passed; return !k.broken }

func (k *shortcutter) Close(row int) { delete(k.open, row) }

// pass is a segment that goes by.
func (k *shortcutter) pass(dir conntrack.Direction, bytes int) {
	p, other := &k.passed[dir], &k.passed[dir.Other()]
	p.Packets++
	p.Bytes += uint64(bytes)
	p.Reached.End += uint32(bytes)
	other.Reached.Ack = p.Reached.End
}

// shortcutScript has a connection that moves enough to get a shortcut.
func shortcutScript(t *testing.T, lines ...string) (*script, *shortcutter) {
	s := newScript(t, "shortcut")
	for _, line := range append([][2]string{
		{"service", "tcp 192.168.88.23:80 sched rr on-server-down reset"}, {"server", "10.0.0.2:8080"}, {"own", "10.0.0.1/24"},
		{"snat", "10.0.0.0/24 192.168.88.23"},
	}, pairs(lines)...) {
		s.step(line[0], line[1])
	}
	k := &shortcutter{rows: 4, open: map[int]bool{}}
	s.forwarder().SetShortcuts(k)
	s.send("tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq=5000",
		"tcp 10.0.0.2:8080 > 192.168.88.21:40000 SA seq=7000 ack=5001",
		"tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=5001 ack=7001")
	return s, k
}

func pairs(lines []string) (list [][2]string) {
	for i := 0; i+1 < len(lines); i += 2 {
		list = append(list, [2]string{lines[i], lines[i+1]})
	}
	return list
}

// send has packets arrive, whatever becomes of them.
func (s *script) send(packets ...string) {
	for _, p := range packets {
		s.arrive("", p)
		s.verdict, s.made, s.madeBy = nil, nil, nil
	}
}

// bulk moves 40,000 bytes four times, and the connection is nominated.
func (s *script) bulk(seq int) {
	for i := range 4 {
		s.send(fmt.Sprintf("tcp 10.0.0.2:8080 > 192.168.88.21:40000 A seq=%d ack=5001 data=40000 gso=1340 sum=partial", seq+40000*i),
			fmt.Sprintf("tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=5001 ack=%d", seq+40000*(i+1)))
	}
	s.wait(0)
}

// wait lets time pass, in steps in which shards look after what is due.
func (s *script) wait(d time.Duration) {
	f := s.forwarder()
	for end := s.now.Add(d); ; s.now = s.now.Add(100 * time.Millisecond) {
		f.Begin(s.now)
		f.Sweep(64)
		if s.now >= end {
			return
		}
	}
}

func (k *shortcutter) wants(t *testing.T, s *script, open int) {
	t.Helper()
	if n := s.forwarder().Stats().Shortcuts.Open; n != open || len(k.open) != open {
		t.Fatalf("%d shortcuts, %d taken; want %d", n, len(k.open), open)
	}
}

func (s *script) theConn() *conntrack.Conn {
	for i := range s.f.table.Extent() {
		if c := s.f.table.At(i); c != nil && c.Client.Port == 40000 {
			return c
		}
	}
	return nil
}

// TestShortcut follows one from its nomination until nobody takes it any more.
func TestShortcut(t *testing.T) {
	s, k := shortcutScript(t)
	s.send("tcp 10.0.0.2:8080 > 192.168.88.21:40000 A seq=7001 ack=5001 data=40000 gso=1340 sum=partial")
	s.wait(0)
	k.wants(t, s, 0)
	s.bulk(47001)
	k.wants(t, s, 1)
	in, out := k.ways[conntrack.Inbound], k.ways[conntrack.Outbound]
	if in.Arrives.Dst.String() != "192.168.88.23:80" || in.Leaves.Dst.String() != "10.0.0.2:8080" || in.Leaves.Src != in.Arrives.Src ||
		out.Arrives.Src != in.Leaves.Dst || out.Leaves.Src != in.Arrives.Dst || out.Leaves.Dst != in.Arrives.Src ||
		in.From == (conntrack.LinkAddr{}) || out.Out.To != in.From || in.Out.Port != out.In || out.Out.Port != in.In {
		t.Errorf("in  %+v\nout %+v", in, out)
	}
	if k.from[conntrack.Outbound].End != 207001 || k.from[conntrack.Inbound].End != 5001 || k.from[conntrack.Inbound].Ack != 207001 {
		t.Errorf("from %+v", k.from)
	}

	before := s.f.Stats()
	k.pass(conntrack.Outbound, 60000)
	k.pass(conntrack.Outbound, 40000)
	k.pass(conntrack.Inbound, 100)
	after := s.f.Stats()
	for _, list := range [][2][]Counters{{before.Services, after.Services}, {before.Servers, after.Servers}} {
		was, is := list[0][0], list[1][0]
		if is.OutPackets-was.OutPackets != 2 || is.OutBytes-was.OutBytes != 100000 || is.InPackets-was.InPackets != 1 || is.InBytes-was.InBytes != 100 {
			t.Errorf("counted %+v, before %+v", is, was)
		}
	}
	if after.Shortcuts.Packets != 3 || after.Shortcuts.Bytes != 100100 || after.Forwarded != before.Forwarded {
		t.Errorf("%+v, forwarded %d, before %d", after.Shortcuts, after.Forwarded, before.Forwarded)
	}

	// It lives as long as somebody takes it, and no longer than others.
	for range 3 {
		s.wait(10 * time.Minute)
		s.bulk(int(k.passed[conntrack.Outbound].Reached.End))
		k.wants(t, s, 1)
		k.pass(conntrack.Outbound, 1000)
		s.wait(2 * time.Second)
	}
	s.wait((quietVisits + 2) * time.Second)
	k.wants(t, s, 0)
	s.wait(15*time.Minute - (quietVisits+4)*time.Second)
	if s.theConn() == nil {
		t.Fatal("gone before its time")
	}
	s.wait(6 * time.Second)
	if s.theConn() != nil {
		t.Fatal("it does not end")
	}
}

// TestShortcutIsKeptAlive: the time-out of a connection begins anew while something goes
// by its shortcut, although the Forwarder sees no packet.
func TestShortcutIsKeptAlive(t *testing.T) {
	s, k := shortcutScript(t)
	s.bulk(7001)
	for range 20 * 60 {
		k.pass(conntrack.Outbound, 1000)
		s.wait(time.Second)
	}
	k.wants(t, s, 1)
}

// TestShortcutEnds: what changes the connection is judged by how far it has come.
func TestShortcutEnds(t *testing.T) {
	for name, row := range map[string]struct {
		packet string // with the sequence number that has been reached, in its place
		by     uint32 // off it
		state  conntrack.State
		open   int
	}{
		"FIN":             {"tcp 10.0.0.2:8080 > 192.168.88.21:40000 FA seq=%d ack=5001", 0, conntrack.FinWait, 0},
		"RST":             {"tcp 10.0.0.2:8080 > 192.168.88.21:40000 R seq=%d", 0, conntrack.Close, 0},
		"RST from before": {"tcp 10.0.0.2:8080 > 192.168.88.21:40000 R seq=%d", 5_000_000, conntrack.Established, 0},
		"last hop":        {"tcp 10.0.0.2:8080 > 192.168.88.21:40000 A seq=%d ack=5001 ttl=1", 0, conntrack.Established, 0},
		"late":            {"tcp 10.0.0.2:8080 > 192.168.88.21:40000 A seq=%d ack=5001 data=10", 5_000_000, conntrack.Established, 1},
		"an ICMP error":   {"icmp 192.168.88.21 > 192.168.88.23 host-unreachable (tcp 192.168.88.23:80 > 192.168.88.21:40000 A seq=%d)", 1000, conntrack.Established, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := shortcutScript(t)
			s.bulk(7001)
			k.wants(t, s, 1)
			for range 100 {
				k.pass(conntrack.Outbound, 50000)
			}
			k.pass(conntrack.Inbound, 0)
			s.send(fmt.Sprintf(row.packet, k.passed[conntrack.Outbound].Reached.End-row.by))
			k.wants(t, s, row.open)
			if c := s.theConn(); c.State != row.state {
				t.Errorf("state %v, want %v", c.State, row.state)
			}
		})
	}
}

// TestShortcutIsPublished: with a snapshot by which it would differ a shortcut ends.
func TestShortcutIsPublished(t *testing.T) {
	for name, row := range map[string]struct {
		change func(s *script, k *shortcutter)
		open   int
	}{
		"nothing": {func(s *script, _ *shortcutter) { s.step("own", "10.0.0.77/24") }, 1},
		"MTU":     {func(s *script, _ *shortcutter) { s.step("mtu", "1 1000") }, 0},
		"the server goes": {func(s *script, _ *shortcutter) {
			s.step("delete-server", "10.0.0.2:8080")
		}, 0},
		"a short time-out": {func(s *script, _ *shortcutter) {
			set := s.rules.Settings()
			set.Timeouts[conntrack.Established] = time.Second
			s.rules.SetSettings(set)
		}, 0},
		"who takes it says so": {func(_ *script, k *shortcutter) { k.broken = true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := shortcutScript(t)
			s.bulk(7001)
			k.wants(t, s, 1)
			row.change(s, k)
			s.dirty = true
			s.forwarder().Begin(s.now)
			k.wants(t, s, row.open)
		})
	}
}

// TestShortcutRows: a row rests before it is used again, as somebody may be reading it.
func TestShortcutRows(t *testing.T) {
	s, k := shortcutScript(t)
	k.rows = 1
	s.f.SetShortcuts(k)
	s.bulk(7001)
	k.wants(t, s, 1)
	again := func() {
		s.bulk(int(k.passed[conntrack.Outbound].Reached.End))
	}
	s.send("tcp 192.168.88.21:40000 > 192.168.88.23:80 A seq=5001 ack=7001 ttl=1")
	k.wants(t, s, 0)
	again()
	k.wants(t, s, 0)
	s.wait(restRows)
	again()
	k.wants(t, s, 1)
	s.f.SetShortcuts(nil)
	k.wants(t, s, 0)
	again()
	k.wants(t, s, 0)
}

// TestShortcutOfNone: connections whose every packet has to be seen, or that are not in the
// middle, get none.
func TestShortcutOfNone(t *testing.T) {
	s, k := world(t), &shortcutter{rows: 64, open: map[int]bool{}}
	s.f.SetShortcuts(k)
	for i := range s.f.table.Extent() {
		c := s.f.table.At(i)
		if c == nil {
			continue
		}
		s.f.openShortcut(c)
		odd := c.Flags&(conntrack.InputOnly|conntrack.Helped|conntrack.OnePacket|conntrack.Template) != 0 || c.Proto != ProtoTCP || c.State != conntrack.Established
		if odd && c.Flags&conntrack.Shortcut != 0 {
			t.Errorf("%v has a shortcut", c)
		}
	}
}

// TestShortcutNoAllocs: to look after shortcuts allocates nothing.
func TestShortcutNoAllocs(t *testing.T) {
	s, k := shortcutScript(t)
	s.bulk(7001)
	k.wants(t, s, 1)
	if n := testing.AllocsPerRun(100, func() {
		k.pass(conntrack.Outbound, 1000)
		s.now = s.now.Add(visitEvery / visitParts)
		s.f.Begin(s.now)
		s.f.Sweep(32)
		s.f.nominate(s.theConn())
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
