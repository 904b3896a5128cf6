// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var recordedDestination = regexp.MustCompile(`^(\w+) (\d),(\d),(\d)( one destination,)?( hold)?(?: after "(-[de]) -f 1 -r ([\d.]+)[^"]*")? : (.*)`)

// TestRecordedByDestination opens the connections that a kernel was given for a
// mark service in front of 40 destinations, and compares who got them. Two lines
// show what was left of an earlier run; package sched has them.
func TestRecordedByDestination(t *testing.T) {
	earlier := []string{"lblcr 1,2,3 hold :", `lblcr 1,1,1 hold after "-e -f 1 -r 10.0.0.3 -m -w 0" :`}
	replayed := 0
	for _, line := range lines(t, "../sched/testdata/ipvs/by-destination.txt") {
		m := recordedDestination.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(line, earlier[0]) || strings.HasPrefix(line, earlier[1]) {
			continue
		}
		replayed++
		s := newScript(t, line)
		s.step("service", "mark 1 sched "+m[1])
		for i, weight := range m[2:5] {
			s.step("server", fmt.Sprintf("10.0.0.%d:0 weight %s", 2+i, weight))
		}
		s.step("mark", "1 tcp to 192.168.88.128/25 port 80")
		port := 20000
		all := func() string {
			var got []string
			for _, word := range strings.Fields(m[9]) {
				host, _, named := strings.Cut(word, "=")
				if !named {
					host = "200"
				}
				port++
				who := s.connect(fmt.Sprintf("192.168.88.21:%d", port), "192.168.88."+host+":80", m[6] != "")
				if named {
					who = host + "=" + who
				}
				got = append(got, who)
			}
			return strings.Join(got, " ")
		}
		if m[7] != "" {
			all() // before the edit
			if m[7] == "-d" {
				s.step("delete-server", m[8]+":0")
			} else {
				s.step("edit-server", m[8]+":0 weight 0")
			}
		}
		if got := all(); got != m[9] {
			t.Errorf("%s\n got %s\nwant %s", line, got, m[9])
		}
		recount(t, s.rules, s.f)
		if err := s.f.Close(); err != nil {
			t.Error(err)
		}
	}
	if replayed != 19 {
		t.Errorf("%d lines were replayed", replayed)
	}
}

// connect opens a connection and returns the last number of its server's address,
// or how it was refused. Unless it is to be held, both ends close it.
func (s *script) connect(client, virtual string, hold bool) string {
	s.t.Helper()
	s.arrive("", fmt.Sprintf("tcp %s > %s S seq=5000", client, virtual))
	made := s.made
	s.made, s.madeBy = nil, nil
	if s.verdict.Action != Forward {
		if len(made) == 1 && strings.Contains(made[0], " port-unreachable ") && s.verdict.Reason == ReasonNoServer {
			return "!ECONNREFUSED"
		}
		return s.verdict.Reason.String()
	}
	server := fmt.Sprintf("10.0.0.%d:%d", s.packet.Data[19], be16(s.packet.Data, 22))
	steps := []string{
		"S > C SA seq=7000 ack=5001", "C > V A seq=5001 ack=7001",
		"C > V FA seq=5001 ack=7001", "S > C FA seq=7001 ack=5002", "C > V A seq=5002 ack=7002",
	}
	if hold {
		steps = steps[:2]
	}
	for _, step := range steps {
		ends, rest := step[:len("C > V")], step[len("C > V"):]
		s.arrive("", "tcp "+strings.NewReplacer("C", client, "V", virtual, "S", server).Replace(ends)+rest)
		if s.verdict.Action != Forward {
			s.fatal("%s: %s", step, s.verdict.Reason)
		}
	}
	s.verdict = nil
	return strings.TrimPrefix(strings.TrimSuffix(server, ":80"), "10.0.0.")
}
