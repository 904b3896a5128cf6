// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

var recordedThresholds = regexp.MustCompile(`\| (\w+) -x (\d+) -y (\d+) on \.2 : (.*)$`)

// TestRecordedThresholds opens the connections that a kernel was given for a
// service of which one server has thresholds, ends some, waits until their entries
// are gone, and compares who got them and what is counted in the end. All others
// stay open.
func TestRecordedThresholds(t *testing.T) {
	var s *script
	port, replayed := 0, 0
	for _, line := range lines(t, "../sched/testdata/ipvs/thresholds.txt") {
		if counted, ok := strings.CutPrefix(line, "1|   -> "); ok {
			w := strings.Fields(counted)
			s.listedThresholds(w[0][:len("10.0.0.2")]+":80", w[1:])
			continue
		}
		m := recordedThresholds.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("unreadable: %s", line)
		}
		replayed++
		s = newScript(t, line)
		s.step("service", "tcp 192.168.88.23:80 sched "+m[1])
		s.step("server", "10.0.0.2:80 upper "+m[2]+" lower "+m[3])
		s.step("server", "10.0.0.3:80")
		s.step("server", "10.0.0.4:80")
		for text := m[4]; text != ""; {
			var word string
			if strings.HasPrefix(text, "[") {
				word, text, _ = strings.Cut(text, "] ")
			} else {
				word, text, _ = strings.Cut(text, " ")
			}
			switch n := 0; {
			case strings.HasPrefix(word, "[close"):
				if _, err := fmt.Sscanf(word, "[close %d on .2", &n); err != nil {
					t.Fatal(err)
				}
				s.closeOn("10.0.0.2", n)
			case strings.HasPrefix(word, "[wait"):
				s.step("advance", "125s")
			default:
				port++
				if got := s.connect(fmt.Sprintf("192.168.88.21:%d", 20000+port), "192.168.88.23:80", true); got != word {
					t.Fatalf("%s\ngot %s for the connection %d, want %s", line, got, port, word)
				}
				s.step("advance", time.Millisecond.String())
			}
		}
		recount(t, s.rules, s.f)
	}
	if replayed != 3 {
		t.Errorf("%d lines were replayed", replayed)
	}
}

// closeOn ends the first n open connections of a server, from both sides.
func (s *script) closeOn(server string, n int) {
	for _, c := range s.f.Conns(ConnQuery{State: "ESTABLISHED"}).Conns {
		if c.Dest.Addr().String() != server || n == 0 {
			continue
		}
		n--
		for _, text := range []string{
			fmt.Sprintf("tcp %s > %s FA seq=5001 ack=7001", c.Client, c.Virtual),
			fmt.Sprintf("tcp %s > %s FA seq=7001 ack=5002", c.Dest, c.Client),
		} {
			s.arrive("", text)
			s.verdictIs(Forward, ReasonNone)
		}
	}
	if n > 0 {
		s.fatal("%s has %d connections too few to close", server, n)
	}
}

func (s *script) listedThresholds(server string, want []string) {
	for _, d := range s.rules.Services()[0].Servers {
		if fmt.Sprintf("%s:%d", d.Addr, d.Port) != server {
			continue
		}
		if got := fmt.Sprint([]int{d.Upper, d.Lower, d.Active, d.Inactive}); got != fmt.Sprint(want) {
			s.fatal("%s: thresholds and counts %s, the kernel %s", server, got, want)
		}
		return
	}
	s.fatal("no server %s", server)
}
