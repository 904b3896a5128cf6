// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A script's packets: sent, and compared with what is wanted.

func (s *script) number(want string, got int) {
	if n, err := strconv.Atoi(want); err != nil || n != got {
		s.fatal("want %s, got %d", want, got)
	}
}

func (s *script) collect() {
	for _, g := range s.crew.outbox() {
		s.made = append(s.made, decodePacket(g.Packet.Data, g.Packet.Offload)+hopWord(&g.Verdict))
		s.madeBy = append(s.madeBy, g.Verdict.Port)
		s.lastMade = bytes.Clone(g.Packet.Data)
		if len(g.Memory) != Headroom+len(g.Packet.Data) {
			s.fatal("a made packet without headroom")
		}
	}
}

func (s *script) verdictIs(a Action, r Reason) {
	if s.verdict == nil {
		s.fatal("no packet came")
	}
	v := *s.verdict
	s.verdict = nil
	if v.Action != a || v.Reason != r {
		s.fatal("want %s %s, got %s %s\n    %s", a, r, v.Action, v.Reason, decodePacket(s.packet.Data, s.packet.Offload))
	}
}

// settled complains of what a packet did that the script did not mention.
func (s *script) settled(before string) {
	if s.verdict != nil {
		s.fatal("before %s: the script does not say what became of the packet: %s %s\n    %s", before,
			s.verdict.Action, s.verdict.Reason, decodePacket(s.packet.Data, s.packet.Offload))
	}
	if len(s.made) > 0 {
		s.fatal("before %s: the script does not mention that this was made:\n    %s", before, s.made[0])
	}
}

// listing compares a conns or stats line, or with -update writes it anew.
func (s *script) listing(word, rest string) []string {
	var got []string
	if word == "conns" {
		states := s.all().stats().States
		for _, c := range s.all().conns() {
			states[c.State]--
			line := fmt.Sprintf("conns %s c:%s v:%s d:%s", c.State, c.Client, c.Virtual, c.Dest)
			if c.Local.IsValid() {
				line += " l:" + c.Local.String()
			}
			got = append(got, fmt.Sprintf("%s %ds", line, int(c.Expires.Round(time.Second).Seconds())))
		}
		if states != [conntrack.NumStates]int{} {
			s.fatal("the counts of states differ from the listing by %v", states)
		}
		if len(got) == 0 {
			got = []string{"conns"}
		}
	} else {
		a := netip.MustParseAddrPort(strings.Fields(rest)[0])
		stats := s.all().stats()
		for _, v := range s.rules.Services() {
			for _, d := range v.Servers {
				if d.Addr == a.Addr() && d.Port == a.Port() {
					c := stats.Servers[d.Slot]
					inactive := strconv.Itoa(d.Inactive)
					if d.Persistent != 0 {
						inactive += fmt.Sprintf(" templates=%d", d.Persistent)
					}
					got = append(got, fmt.Sprintf("stats %s active=%d inactive=%s conns=%d in=%d/%d out=%d/%d", a, d.Active, inactive,
						c.Conns, c.InPackets, c.InBytes, c.OutPackets, c.OutBytes))
				}
			}
		}
	}
	want := strings.TrimSpace(word + " " + rest)
	if !*update && !slices.Contains(got, want) {
		s.fatal("\n    want %s\n    got  %s", want, strings.Join(got, "\n         "))
	}
	return got
}

func (s *script) arrive(at, text string) {
	s.forwarder()
	via := -1
	if i := strings.Index(text, " via="); i >= 0 {
		head, tail, _ := strings.Cut(text[i+5:], " ")
		via, _ = strconv.Atoi(head)
		text = text[:i] + " " + tail
	}
	b, off := encodePacket(s.expand(text))
	port := uint16(0)
	if at != "" {
		n, _ := strconv.Atoi(at)
		port = uint16(n)
	} else if bytes.HasPrefix(b[12:], []byte{10, 0, 0}) || b[0]>>4 == 6 && bytes.HasPrefix(b[8:], []byte{0xfd, 0, 0, 0x10}) {
		port = 1
	}
	last := b[15]
	if b[0]>>4 == 6 {
		last = b[23]
	}
	s.packet = Packet{Data: b, Offload: off, In: port, From: conntrack.LinkAddr{2, 0, 0, 0, byte(port), last}}
	if via >= 0 {
		s.packet.From[5] = byte(via)
	}
	s.all().begin(s.now)
	v := s.crew.forward(s.t, &s.packet)
	s.verdict, s.lastPort = &v, v.Port
	s.lastTo = hopWord(&v)
	if v.Action == Forward && v.To == (conntrack.LinkAddr{}) && v.NextHop == (conntrack.Addr{}) {
		s.fatal("forwarded to nobody")
	}
	s.collect()
}

// flood sends many packets that differ in {i} and {a}.
func (s *script) flood(count, verdict, text string) {
	n, err := strconv.Atoi(count)
	s.must(err)
	s.flooded = 0
	for i := 1; i <= n; i++ {
		a := fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&255, i&255)
		s.arrive("", strings.NewReplacer("{i}", strconv.Itoa(i), "{a}", a).Replace(text))
		got := s.verdict.Action.String()
		if s.verdict.Action == Drop {
			got += ":" + s.verdict.Reason.String()
		}
		if verdict != "any" && got != verdict {
			s.fatal("packet %d: %s", i, got)
		}
		s.flooded += len(s.made)
		s.made, s.madeBy, s.verdict = nil, nil, nil
	}
}
