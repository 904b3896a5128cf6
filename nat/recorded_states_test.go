// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecordedSloppy: what the first segment makes, with sloppy_tcp and without.
func TestRecordedSloppy(t *testing.T) {
	const flags = "null, xmas, SYN+FIN"
	differs := newDifferences(t, "sloppy-tcp.txt", map[int]string{
		9: flags, 10: flags, 12: flags, 13: flags, 22: flags, // F, SF, U and none without ACK; SF
	})
	form := regexp.MustCompile(`^(sloppy_tcp=0: )?first segment \[(\w*)\] : (.*)$`)
	s := newScript(t, "sloppy-tcp")
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:80")
	n := 0
	for _, line := range recording(t, "testdata/recorded/sloppy-tcp.txt") {
		m := form.FindStringSubmatch(line.text)
		if m == nil {
			continue
		}
		n++
		s.set("sloppy_tcp", map[string]int{"": 1, "sloppy_tcp=0: ": 0}[m[1]])
		client := fmt.Sprintf("192.168.88.21:%d", 20000+n)
		events := m[2]
		if events == "" {
			events = "."
		}
		s.arrive("", fmt.Sprintf("tcp %s > 192.168.88.23:80 %s seq=5001 ack=7001", client, events))
		differs.compare(line.n, line.text, m[3], shown(s, client))
	}
	differs.done()
	if n != 25 {
		t.Errorf("%d segments", n)
	}
	recount(t, s.rules, s.f)
}

// TestRecordedExpiry lets entries live to their end. The kernel is up to two seconds
// late, and was looked at once a second.
func TestRecordedExpiry(t *testing.T) {
	s := newScript(t, "expiry")
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:80")
	life := regexp.MustCompile(`^.* \[(.*)\] : [\d.]+: (\S+ \S+) .*; gone at ([\d.]+) s$`)
	refresh := regexp.MustCompile(`^(\w\w) : at once (\S+) ESTABLISHED, after 10 s (\S+) ESTABLISHED, after \w\w (\S+) (\S+)$`)
	lives, refreshed := 0, 0
	for i, line := range recording(t, "../conntrack/testdata/expiry.txt") {
		client := fmt.Sprintf("192.168.88.21:%d", 20000+i)
		send := func(events string) {
			for _, e := range strings.Fields(events) {
				s.arrive("", segment(e, client, "192.168.88.23:80", "10.0.0.2:80"))
				s.verdict, s.made, s.madeBy = nil, nil, nil
			}
		}
		switch {
		case strings.HasPrefix(line.text, "# after ipvsadm --set 30 7 5"):
			s.step("timeout", "ESTABLISHED 30s")
			s.step("timeout", "FIN_WAIT 7s")
		case strings.HasPrefix(line.text, "# does --set change"):
			// As recorded: it is set while the connection is there.
			s.step("timeout", "ESTABLISHED 900s")
			send("iS oS iA")
			s.step("timeout", "ESTABLISHED 20s")
			s.forwarder().Begin(s.now)
			if got := shown(s, client); got != "ESTABLISHED 14:59" {
				t.Errorf("after --set: %s", got)
			}
			send("iA")
			if got := shown(s, client); got != "ESTABLISHED 00:19" {
				t.Errorf("after one more ACK: %s", got)
			}
			s.step("timeout", "ESTABLISHED 900s")
			s.step("timeout", "FIN_WAIT 120s")
		}
		if m := life.FindStringSubmatch(line.text); m != nil {
			lives++
			send(m[1])
			if got := shown(s, client); got != m[2] {
				t.Errorf("%s: %s, the kernel %s", m[1], got, m[2])
			}
			gone, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				t.Fatal(err)
			}
			lived := 0 * time.Second
			for ; shown(s, client) != "none"; lived += time.Second / 4 {
				s.step("advance", "250ms")
			}
			if late := gone - lived.Seconds(); late < 0 || late > 3 {
				t.Errorf("%s: gone after %v, in the kernel after %v s", m[1], lived, gone)
			}
		}
		if m := refresh.FindStringSubmatch(line.text); m != nil {
			refreshed++
			send("iS oS iA")
			at := shown(s, client)
			s.step("advance", "10s")
			then := shown(s, client)
			send(m[1])
			want := fmt.Sprintf("ESTABLISHED %s, ESTABLISHED %s, %s %s", m[2], m[3], m[5], m[4])
			if got := fmt.Sprintf("%s, %s, %s", at, then, shown(s, client)); got != want {
				t.Errorf("%s: %s, the kernel %s", m[1], got, want)
			}
		}
	}
	if lives != 16 || refreshed != 8 {
		t.Errorf("%d lives, %d timers", lives, refreshed)
	}
}

// TestRecordedStages compares the listings of entries and servers after each segment
// of whole connections. Which server the kernel chose is taken from the recording,
// and so are the connections that were there before; segments of the server are those
// of 10.0.0.2, as recorded, also where the kernel chose another.
func TestRecordedStages(t *testing.T) {
	var s *script
	lines := recording(t, "testdata/recorded/stages.txt")
	stages, listings := 0, 0
	want := func(i int, prefix string) (list []string, end int) {
		for ; i < len(lines) && strings.HasPrefix(lines[i].text, "1| "); i++ {
			if strings.HasPrefix(lines[i].text, prefix) {
				list = append(list, strings.Join(strings.Fields(lines[i].text[3:]), " "))
			}
		}
		slices.Sort(list)
		return list, i
	}
	for i := 0; i < len(lines); i++ {
		switch text := lines[i].text; {
		case strings.HasPrefix(text, "## "):
			if s != nil {
				recount(t, s.rules, s.f)
			}
			s = newScript(t, text)
			s.step("service", "tcp 192.168.88.23:80 sched rr")
			for _, server := range []string{"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"} {
				s.step("server", server)
			}
			s.forwarder()
		case strings.HasPrefix(text, "# segment "):
			event := text[len("# segment "):]
			if event == "iS" {
				// The listing after it says where it went.
				for j := i; ; j++ {
					if strings.Contains(lines[j].text, ":40001 ") {
						only(s, netip.MustParseAddrPort(strings.Fields(lines[j].text)[6]).Addr())
						break
					}
				}
			}
			s.arrive("", segment(event, "192.168.88.21:40001", "192.168.88.23:80", "10.0.0.2:80"))
			s.verdict, s.made, s.madeBy = nil, nil, nil
			stages++
		case text == "$ ipvsadm -Lnc":
			entries, end := want(i+1, "1| TCP ")
			var got []string
			for _, c := range s.f.Conns(ConnQuery{}).Conns {
				got = append(got, fmt.Sprintf("TCP %s %s %s %s %s", minutes(c.Expires-time.Second), c.State, c.Client, c.Virtual, c.Dest))
			}
			slices.Sort(got)
			if !slices.Equal(got, entries) {
				t.Errorf("line %d: %s\n  the kernel %q\n  here       %q", lines[i].n, s.file, entries, got)
			}
			listings++
			i = end - 1
		case text == "$ ipvsadm -Ln" && i > 0:
			servers, end := want(i+1, "1|   -> 10.")
			if next := lines[end].text; strings.HasPrefix(lines[i-1].text, "## ") && next == "$ ipvsadm -Lnc" {
				entries, _ := want(end+1, "1| TCP ")
				before(s, entries)
			}
			var got []string
			for _, d := range s.rules.Services()[0].Servers {
				got = append(got, fmt.Sprintf("-> %s:%d Masq 1 %d %d", d.Addr, d.Port, d.Active, d.Inactive))
			}
			slices.Sort(got)
			if !slices.Equal(got, servers) {
				t.Errorf("line %d: %s\n  the kernel %q\n  here       %q", lines[i].n, s.file, servers, got)
			}
			listings++
			i = end - 1
		}
	}
	if stages != 22 || listings != 52 {
		t.Errorf("%d stages, %d listings", stages, listings)
	}
}

// before opens what a listing shows: half-open connections, with the time that they
// have left.
func before(s *script, entries []string) {
	left := map[string]time.Duration{}
	for _, e := range entries {
		w := strings.Fields(e)
		if w[2] != "SYN_RECV" {
			s.fatal("%s", e)
		}
		d, err := time.ParseDuration(strings.Replace(w[1], ":", "m", 1) + "s")
		s.must(err)
		left[w[3]] = d
		only(s, netip.MustParseAddrPort(w[5]).Addr())
		s.arrive("", segment("iS", w[3], w[4], w[5]))
		s.verdict = nil
	}
	if lefts := slices.Sorted(maps.Values(left)); len(lefts) > 0 {
		s.step("advance", (59*time.Second - lefts[0]).String())
	}
}

// only has the next connections scheduled to one server.
func only(s *script, server netip.Addr) {
	for _, v := range s.rules.Services() {
		for _, d := range v.Servers {
			d.Weight = 0
			if d.Addr == server {
				d.Weight = 1
			}
			s.must(s.rules.EditServer(v.ServiceKey, d.ServerSpec))
		}
	}
}
