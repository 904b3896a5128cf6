// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecordedUDP does what was done beside a kernel with UDP services, line by
// line. One thing differs on purpose: where the kernel lets the answer of a
// one-packet service out with the server's address, it has the service's here.
func TestRecordedUDP(t *testing.T) {
	list := sections(t, "../sched/testdata/ipvs/udp.txt")
	shown, used := 0, 0
	service := func(port int, words string) []string {
		return threeServers(fmt.Sprintf("udp 192.168.88.23:%d %s", port, words), port)
	}
	weighted := func(port int, words string) (steps []string) {
		for i, step := range service(port, words) {
			if i > 0 {
				step += fmt.Sprintf(" weight %d", 4-i)
			}
			steps = append(steps, step)
		}
		return steps
	}
	const settled = 500 * time.Millisecond
	for _, row := range []struct {
		title string
		steps []string
		play  func(p *player, lines []string)
	}{
		{"plain UDP, rr: same source port stays, a new source port is scheduled", service(5001, "sched rr"), func(p *player, lines []string) {
			p.datagrams(5001, lines[0])
			p.late = 3 * time.Second // the last look comes 3 s after
			p.pass(3 * time.Second)
			p.late = 4 * time.Second
			p.play(lines[1:])
		}},
		{"timer: one datagram, then each 60 s", service(5002, "sched rr"), func(p *player, lines []string) {
			p.datagrams(5002, "@ 6010->rs1")
			began := p.now
			for _, line := range lines {
				at, rest, _ := strings.Cut(line, " s: ")
				seconds, err := strconv.Atoi(at)
				p.must(err)
				p.pass(time.Duration(seconds)*time.Second + settled - time.Duration(p.now-began))
				if p.asked = line; rest == "gone" {
					p.same(nil, p.rows(func(*ConnInfo) bool { return true }))
					continue
				}
				w := strings.Fields(rest)
				want := p.recordedRow(fmt.Sprintf("UDP %s %s 192.168.88.21:6010 192.168.88.23:5002 10.0.0.2:5002", w[0], w[1]))
				p.same([]row{want}, p.rows(func(*ConnInfo) bool { return true }))
			}
		}},
		{"timer is refreshed by either direction", service(5003, "sched rr"), func(p *player, lines []string) {
			p.datagrams(5003, "@ 6011->rs1")
			p.pass(100*time.Second - settled)
			p.play(lines[:1])
			p.datagrams(5003, "@ 6011->rs1")
			p.play(lines[1:2])
			p.pass(100*time.Second - 2*settled)
			p.play(lines[2:3])
			p.arrive("", "udp 10.0.0.2:5003 > 192.168.88.21:6011 data=3") // of the server alone
			p.verdict = nil
			p.play(lines[4:])
		}},
		{"counters: UDP entries are inactive or active?", service(5004, "sched rr"), func(p *player, lines []string) {
			p.datagrams(5004, "@ 1->rs1 2->rs2 3->rs3 4->rs1 5->rs2 6->rs3")
			p.play(lines)
		}},
		{"UDP wrr 1,2,3: 30 source ports", weighted(5005, "sched wrr"), spread(5005)},
		{"UDP lc 1,2,3: 30 source ports", weighted(5006, "sched lc"), spread(5006)},
		{"UDP wlc 1,2,3: 30 source ports", weighted(5007, "sched wlc"), spread(5007)},
		{"UDP sed 1,2,3: 30 source ports", weighted(5008, "sched sed"), spread(5008)},
		{"UDP nq 1,2,3: 30 source ports", weighted(5009, "sched nq"), spread(5009)},
		{"-o one-packet scheduling, rr: one source port, 9 datagrams", service(5010, "sched rr one-packet"), once(5010)},
		{"-o, wrr 1,2,3: 12 datagrams from one port", weighted(5011, "sched wrr one-packet"), once(5011)},
		{"-o, wlc 1,2,3: 12 datagrams from one port", weighted(5012, "sched wlc one-packet"), once(5012)},
		{"-o, sh: 3 source addresses, 3 datagrams each", service(5013, "sched sh one-packet"), once(5013)},
		{"-o -p 60: rr, 2 source ports", service(5014, "sched rr one-packet persistent 60s"), once(5014)},
		{"-o: is the answer translated back? (raw look at the client)", service(5015, "sched rr one-packet"), func(p *player, lines []string) {
			p.arrive("", "udp 192.168.88.21:6050 > 192.168.88.23:5015 data=1")
			p.verdict = nil
			p.arrive("", "udp 10.0.0.2:5015 > 192.168.88.21:6050 data=3 ttl=64")
			p.verdictIs(Forward, ReasonNone)
			// The kernel: 10.0.0.2:5015, and the rest as here.
			const want = "udp 192.168.88.23:5015 > 192.168.88.21:6050 data=3 ttl=63"
			if got := decodePacket(p.packet.Data, p.packet.Offload); !agrees(want, got) {
				p.fatal("%s; got %s", lines[0], got)
			}
			p.shown++
		}},
		{"-o taken away and put back by -E", service(5016, "sched rr one-packet"), func(p *player, lines []string) {
			p.play(lines[:1])
			p.datagrams(5016, strings.ReplaceAll(lines[1], " rs", " 6051->rs"))
			p.play(lines[2:3])
			p.datagrams(5016, strings.ReplaceAll(lines[3], " rs", " 6051->rs"))
			p.play(lines[4:])
		}},
		{"-p 60: rr", service(5017, "sched rr persistent 60s"), func(p *player, lines []string) {
			p.datagrams(5017, lines[0])
			p.play(lines[1:])
		}},
		{"server deleted under a UDP entry, expire_nodest_conn 0 then 1", append(service(5018, "sched rr"), service(5019, "sched rr")...), func(p *player, lines []string) {
			p.datagrams(5018, "@ 6070->rs1")
			p.play(lines[:1])
			p.datagrams(5018, strings.ReplaceAll(lines[1], " !", " 6070->!"))
			p.play(lines[2:3])
			p.datagrams(5019, "@ 6070->rs1")
			p.step("set", "expire_nodest_conn 1")
			p.play(lines[3:4])
			p.datagrams(5019, strings.ReplaceAll(lines[4], " rs", " 6070->rs"))
			p.play(lines[5:])
		}},
		{"weight 0 under a UDP entry: goes on until it expires", service(5020, "sched rr"), func(p *player, lines []string) {
			p.datagrams(5020, "@ 6080->rs1")
			p.play(lines[:1])
			old, other, _ := strings.Cut(lines[1], " | new port: ")
			p.datagrams(5020, strings.ReplaceAll(old, " rs", " 6080->rs"))
			for i, server := range strings.Fields(other) {
				p.datagrams(5020, fmt.Sprintf("@ %d->%s", 6081+i, server))
			}
			p.pass(300*time.Second - settled)
			p.play(lines[2:6])
			p.pass(32 * time.Second)
			p.datagrams(5020, "@ 6080->"+lines[7][len("@ 332 s after: "):])
		}},
		{"no server", []string{"service udp 192.168.88.23:5021 sched rr"}, func(p *player, lines []string) {
			p.datagrams(5021, strings.ReplaceAll(lines[0], " !", " 6090->!"))
		}},
		{"UDP and TCP services on one port are separate", append(service(5022, "sched rr"),
			"service tcp 192.168.88.23:5022 sched rr", "server 10.0.0.2:5022", "server 10.0.0.3:5022", "server 10.0.0.4:5022"), func(p *player, lines []string) {
			p.datagrams(5022, "@ 6095->"+strings.Fields(lines[0])[2])
			p.hold = false
			p.event("@ conn(192.168.88.21:6095 -> :5022) -> " + strings.Fields(lines[0])[4])
			p.play(lines[1:])
		}},
	} {
		t.Run(row.title, func(t *testing.T) {
			for _, s := range list {
				if s.title == row.title {
					used++
					p := newPlayer(t, s.title, row.steps...)
					row.play(p, s.lines)
					recount(t, p.rules, p.f)
					if shown += p.shown; p.shown == 0 {
						t.Error("nothing was compared")
					}
				}
			}
		})
	}
	if used != len(list) {
		t.Errorf("%d of %d sections were played", used, len(list))
	}
}

// spread plays a section of datagrams from many ports, named by their servers.
func spread(port int) func(*player, []string) {
	return func(p *player, lines []string) {
		var words []string
		for i, server := range strings.Fields(lines[0])[1:] {
			words = append(words, fmt.Sprintf("%d->rs%s", 7000+i, server))
		}
		p.datagrams(port, "@ "+strings.Join(words, " "))
		p.play(lines[1:])
	}
}

var recordedAnswer = regexp.MustCompile(`\(answer from ([\d.]+:\d+)\)`)

// once plays a section of datagrams that are scheduled one by one.
func once(port int) func(*player, []string) {
	return func(p *player, lines []string) {
		words := strings.Fields(recordedAnswer.ReplaceAllString(lines[0], ""))
		for i := range words[1:] {
			if word := &words[1+i]; !strings.Contains(*word, "->") {
				*word = "6040->" + *word
			}
		}
		p.datagrams(port, strings.Join(words, " "))
		p.play(lines[1:])
		if got := len(p.rows(func(c *ConnInfo) bool { return !c.Template })); got != 0 {
			p.fatal("%d entries are left of datagrams", got)
		}
	}
}

// datagrams sends what a line says, from a port or an address to the server that
// it reached, and has that answer.
func (p *player) datagrams(port int, line string) {
	p.t.Helper()
	p.asked = line
	for _, word := range strings.Fields(line)[1:] {
		from, want, _ := strings.Cut(word, "->")
		client, err := netip.ParseAddrPort(from)
		if n, bad := strconv.Atoi(from); bad == nil {
			client = netip.AddrPortFrom(netip.MustParseAddr("192.168.88.21"), uint16(n))
		} else if err != nil {
			client = netip.AddrPortFrom(netip.MustParseAddr(from), 6030)
		}
		p.shown++
		if got := p.datagram(client, netip.AddrPortFrom(netip.MustParseAddr("192.168.88.23"), uint16(port))); got != want {
			p.fatal("%s: reached %s", word, got)
		}
	}
}

// datagram returns the name of the server that a datagram reached and was answered
// by, as the service.
func (p *player) datagram(client, virtual netip.AddrPort) string {
	p.t.Helper()
	p.arrive("", fmt.Sprintf("udp %s > %s data=1", client, virtual))
	v := *p.verdict
	p.verdict, p.made = nil, nil
	if v.Action != Forward {
		return "!lost"
	}
	last, port := p.packet.Data[19], be16(p.packet.Data, 22)
	p.arrive("", fmt.Sprintf("udp 10.0.0.%d:%d > %s data=3", last, port, client))
	p.verdictIs(Forward, ReasonNone)
	if want, got := fmt.Sprintf("udp %s > %s data=3", virtual, client), decodePacket(p.packet.Data, p.packet.Offload); !agrees(want, got) {
		p.fatal("the answer is %s", got)
	}
	return fmt.Sprintf("rs%d", last-1)
}
