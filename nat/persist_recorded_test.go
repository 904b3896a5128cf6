// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// threeServers are a service and its servers, of which rs1 comes first in turn.
func threeServers(service string, port int) []string {
	steps := []string{"service " + service}
	for i := 4; i >= 2; i-- {
		steps = append(steps, fmt.Sprintf("server 10.0.0.%d:%d", i, port))
	}
	return steps
}

func persistent(port int, words string) []string {
	return threeServers(fmt.Sprintf("tcp 192.168.88.23:%d %s", port, words), port)
}

// TestRecordedPersistence does what was done beside a kernel with persistent
// services, line by line. What a section begins with is in the transcript's titles
// alone.
func TestRecordedPersistence(t *testing.T) {
	list := sections(t, "testdata/recorded/persistence.txt")
	var p *player // of the section before: the second and the third go on with it
	shown, used := 0, 0
	for _, row := range []struct {
		title string
		play  func(*testing.T, section)
	}{
		{"-p 30: three clients, repeated connections", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(201, "sched rr persistent 30s")...)
			p.play(s.lines)
		}},
		{"template timer: connections stay open for 100 s, each look 10 s apart", func(t *testing.T, s section) {
			for look := range 10 {
				p.pass(9500 * time.Millisecond)
				p.late = time.Duration(2+look/6) * time.Second
				p.play(s.lines[4*look : 4*look+4])
			}
		}},
		{"all closed: template and entries over time", func(t *testing.T, s section) {
			p.closeAll("192.168.88.100")
			p.late = 6 * time.Second // after four times
			p.decay(s.lines)
		}},
		{"-p 30: connection closed at once, client returns after 20, 45, 100, 200 s", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(202, "sched rr persistent 30s")...)
			p.hold = false
			gaps := []time.Duration{0, 0, 20, 45, 100, 200, 400}
			for i, line := range s.lines {
				if kindOf(line) != "@" {
					continue
				}
				p.pass(gaps[0]*time.Second + time.Millisecond)
				gaps = gaps[1:]
				end := i + 1
				for end < len(s.lines) && kindOf(s.lines[end]) == "Lnc|" {
					end++
				}
				p.late = 2 * time.Second
				p.play(s.lines[i:end])
			}
		}},
		{"-p 300 with UDP-like short life: does the template last 300 s from the last connection, or until the last entry is gone?", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(203, "sched rr persistent 300s")...)
			p.hold = false
			looks := strings.Split(strings.Join(s.lines, "\n"), "\n-- ")
			for i, look := range looks {
				_, look, _ = strings.Cut("\n"+look, "\n")
				if lines := strings.Split(look, "\n"); i == 0 {
					p.play(lines)
				} else if p.pass(29500 * time.Millisecond); i < 11 {
					p.play(lines[1:])
				}
			}
			if n := len(p.f.Conns(ConnQuery{}).Conns); n != 0 || len(looks) != 12 {
				t.Errorf("%d entries after 330 s, %d looks", n, len(looks))
			}
		}},
		{"-p 60 -M 255.255.255.0: one template for the net", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(204, "sched rr persistent 60s mask 255.255.255.0")...)
			p.play(s.lines)
		}},
		{"-p 60 -M 255.255.255.252", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(205, "sched rr persistent 60s mask 255.255.255.252")...)
			p.play(s.lines)
		}},
		{"weight 0 on the persistent server: template still used? (expire_quiescent_template 0, then 1)", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, append(persistent(206, "sched rr persistent 60s"), persistent(207, "sched rr persistent 60s")...)...)
			p.inTwo(s.lines, ":207) -> rs1", "expire_quiescent_template 1")
		}},
		{"persistent server deleted (expire_nodest_conn 0, then 1; expire_quiescent_template 0)", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, append(persistent(208, "sched rr persistent 60s"), persistent(209, "sched rr persistent 60s")...)...)
			p.inTwo(s.lines, ":209) -> rs1", "expire_nodest_conn 1")
		}},
		{"port 0 service -p 60: all ports of the VIP, one template", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(0, "sched rr persistent 60s")...)
			p.play(s.lines)
		}},
		{"port 0 beside a service with a port: which wins", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, append(persistent(0, "sched rr persistent 60s"),
				"service tcp 192.168.88.23:8002 sched rr", "server 10.0.0.3:8002")...)
			p.play(s.lines)
		}},
		{"firewall-mark service over two ports, -p 60", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, append(threeServers("mark 1 sched rr persistent 60s", 0),
				"mark 1 tcp to 192.168.88.23/32 ports 8001-8002")...)
			p.play(s.lines)
		}},
		{"two services, -p each: templates are separate", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, append(persistent(210, "sched rr persistent 60s"), persistent(211, "sched rr persistent 60s")...)...)
			p.play(s.lines)
		}},
		{"edit: persistence taken away with -E, template there", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(212, "sched rr persistent 60s")...)
			p.play(s.lines)
		}},
		{"persistence and thresholds: template to a server that is at its upper limit", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(213, "sched rr persistent 60s")...)
			p.play(s.lines)
		}},
		{"wlc and persistence: counted connections", func(t *testing.T, s section) {
			p = newPlayer(t, s.title, persistent(214, "sched wlc persistent 60s")...)
			p.play(s.lines)
		}},
	} {
		t.Run(row.title, func(t *testing.T) {
			for _, s := range list {
				if s.title == row.title {
					used++
					if p != nil {
						p.t = t
					}
					row.play(t, s)
				}
			}
			if p.shown == 0 {
				t.Error("nothing was compared")
			}
			shown += p.shown
			p.shown = 0
		})
	}
	if used != len(list) {
		t.Errorf("%d of %d sections were played", used, len(list))
	}
	t.Logf("%d listings", shown)
}

// inTwo plays a section whose second half, from the line that has the words at,
// was under another setting.
func (p *player) inTwo(lines []string, at, setting string) {
	for i, line := range lines {
		if strings.Contains(line, at) {
			p.play(lines[:i])
			p.step("set", setting)
			p.play(lines[i:])
			return
		}
	}
	p.fatal("no line has %q", at)
}

// closeAll ends the connections of a client, from both sides.
func (p *player) closeAll(client string) {
	for _, c := range p.f.Conns(ConnQuery{}).Conns {
		if c.Client.Addr().String() != client || c.Template {
			continue
		}
		for _, text := range []string{
			fmt.Sprintf("tcp %s > %s FA seq=5001 ack=7001", c.Client, c.Virtual),
			fmt.Sprintf("tcp %s > %s FA seq=7001 ack=5002", c.Dest, c.Client),
		} {
			p.arrive("", text)
			p.verdict = nil
		}
	}
}

// decay looks at one client's entries at the times given.
func (p *player) decay(lines []string) {
	p.t.Helper()
	began := p.now
	for _, line := range lines {
		p.asked = line
		at, rest, _ := strings.Cut(line, " s:")
		seconds, err := time.ParseDuration(strings.TrimSpace(at) + "s")
		p.must(err)
		if wait := seconds + 500*time.Millisecond - time.Duration(p.now-began); wait > 0 {
			p.pass(wait)
		}
		var want []row
		for _, text := range strings.Split(rest, " / ") {
			w := strings.Fields(text)
			if len(w) == 3 {
				want = append(want, p.recordedRow(fmt.Sprintf("TCP %s %s 192.168.88.100:%s 192.168.88.23:201 10.0.0.2:201", w[1], w[0], w[2])))
			}
		}
		p.same(want, p.rows(func(c *ConnInfo) bool { return c.Client.Addr().String() == "192.168.88.100" }))
	}
}
