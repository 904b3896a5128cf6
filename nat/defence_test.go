// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// TestDefenceLevels fills a table and asks which defences are in force, in each mode
// and on both sides of the mark.
func TestDefenceLevels(t *testing.T) {
	for _, row := range []struct {
		mode, entries int // of 160: a sixteenth is 10
		want          bool
		rate          int
	}{
		{0, 160, false, 0},
		{1, 150, false, 0}, {1, 151, true, 10}, {1, 155, true, 2}, {1, 156, true, 2}, {1, 160, true, 2},
		{2, 0, false, 0}, {2, 152, true, 5}, {2, 153, true, 3},
		{3, 0, true, 7}, {3, 160, true, 7},
	} {
		t.Run(fmt.Sprintf("mode %d with %d", row.mode, row.entries), func(t *testing.T) {
			s := newScript(t, "levels")
			s.max = 160
			s.step("service", "udp 192.168.88.23:53 sched rr")
			s.step("server", "10.0.0.2:53")
			f := s.forwarder()
			defer f.Close()
			for i := range row.entries {
				s.arrive("", fmt.Sprintf("udp 192.168.88.21:%d > 192.168.88.23:53 data=1", 1000+i))
				s.verdict = nil
			}
			s.set("am_droprate", 7)
			for _, name := range []string{"drop_entry", "drop_packet", "secure_tcp"} {
				s.set(name, row.mode)
			}
			s.forwarder().Begin(s.now)
			want := Defence{row.want, row.want, row.want, row.rate}
			if got := f.Stats().Defence; got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// TestHardlyUsed: of entries with n packets that have been idle for a minute every
// n-th is dispensable, from the first; none with more than 8, and none before.
func TestHardlyUsed(t *testing.T) {
	s := newScript(t, "hardly used")
	s.step("service", "udp 192.168.88.23:53 sched rr idle 100s")
	s.step("server", "10.0.0.2:53")
	f := s.forwarder()
	defer f.Close()
	for packets := 1; packets <= 10; packets++ {
		for i := range 24 {
			for range packets {
				s.arrive("", fmt.Sprintf("udp 192.168.88.21:%d > 192.168.88.23:53 data=1", 1000*packets+i))
				s.verdict = nil
			}
		}
	}
	count := func() (dispensable map[int]int) {
		dispensable = map[int]int{}
		for i := range f.table.Extent() {
			if c := f.table.At(i); f.dispensable(c) {
				dispensable[int(c.Client.Port)/1000]++
			}
		}
		return dispensable
	}
	s.now = s.now.Add(59 * time.Second)
	f.Begin(s.now)
	if n := count(); len(n) != 0 {
		t.Errorf("after 59 s: %v", n)
	}
	s.now = s.now.Add(time.Second)
	f.Begin(s.now)
	got := count()
	for packets := 1; packets <= 10; packets++ {
		want := (24 + packets - 1) / packets
		if packets > 8 {
			want = 0
		}
		if got[packets] != want {
			t.Errorf("%d of 24 with %d packets, want %d", got[packets], packets, want)
		}
	}
}

// TestThinningSpares: no established connection that is used, no template that has
// served, nothing with children goes, however long the defence is at work; half-open
// ones all go within 32 s of Sweeps.
func TestThinningSpares(t *testing.T) {
	s := crowd(t, 100, "reset_on_expiry")
	defer s.f.Close()
	for i := range 320 {
		s.arrive("", fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:80 S", 1000+i))
		s.verdict = nil
	}
	s.set("drop_entry", 3)
	for range 33 {
		s.step("advance", "1s")
	}
	if got := s.f.Stats(); got.Conns != 100 || got.Removals[conntrack.Thinned] != 320 || got.Farewells != 0 {
		t.Errorf("%d entries are left, %d went, %d were told", got.Conns, got.Removals[conntrack.Thinned], got.Farewells)
	}
	recount(t, s.rules, s.f)
}

// TestNoAllocsSettings: what settings add to the walk allocates nothing.
func TestNoAllocsSettings(t *testing.T) {
	for _, row := range []struct {
		setting string
		value   int
		packet  string
		want    string
	}{
		{"sloppy_tcp", 1, "tcp 192.168.88.21:{i} > 192.168.88.23:80 A seq=1 ack=1", "forward"},
		{"secure_tcp", 3, "tcp 192.168.88.21:{i} > 192.168.88.23:80 S seq=1", "forward"},
		{"nat_icmp_send", 1, "tcp 10.0.0.3:80 > 192.168.88.77:{i} A", "drop stray-server-packet"},
		{"schedule_icmp", 1, "icmp 192.168.88.21 > 192.168.88.23 port-unreachable (udp 192.168.88.23:53 > 192.168.88.21:{i} data=9)", "forward"},
		{"drop_packet", 3, "udp 192.168.88.21:{i} > 192.168.88.23:53 data=1", "drop drop-packet"},
		{"conn_reuse_mode", 0, "tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq={i}", "forward"},
	} {
		t.Run(row.setting, func(t *testing.T) {
			s := world(t)
			defer s.f.Close()
			s.set(row.setting, row.value)
			s.set("drop_entry", 3) // at work beside it
			s.forwarder().Begin(s.now)
			var packets [102]Packet
			for i := range packets {
				b, _ := encodePacket(strings.ReplaceAll(row.packet, "{i}", fmt.Sprint(20000+i)))
				packets[i] = Packet{Data: b, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}
				if b[12] == 10 {
					packets[i].In = 1
				}
			}
			i := 0
			if n := testing.AllocsPerRun(100, func() {
				s.now = s.now.Add(50 * time.Millisecond)
				s.f.Begin(s.now)
				v := s.f.Forward(&packets[i])
				s.f.Sweep(64)
				if i == 0 {
					if got := verdictWords(v); got != row.want {
						t.Fatalf("%s, want %s", got, row.want)
					}
				}
				i++
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
