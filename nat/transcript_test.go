// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A transcript is what was typed beside a kernel and what came of it. A player
// does the same to a Forwarder and compares. Listings are compared by their rows;
// a kernel shows those of -c in the order of its hash table.
//
// A timer is read a moment after what set it, so half a second passes before each
// look. The kernel's timers are late by up to two seconds, and so is what depends
// on them; an entry shown with no more time left than that may be gone here, and a template may have
// begun to wait for its children anew.
type player struct {
	*script
	hold  bool          // connections stay open
	late  time.Duration // how late the kernel may be by now
	shown int           // listings compared
}

// section is a part of a transcript, under a line of ##.
type section struct {
	title string
	lines []string
}

func sections(t *testing.T, file string) (list []section) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			list = append(list, section{title: title})
			continue
		}
		if text := strings.TrimSpace(line); len(list) > 0 && text != "" && text != "=> 0" {
			list[len(list)-1].lines = append(list[len(list)-1].lines, text)
		}
	}
	return list
}

func newPlayer(t *testing.T, title string, steps ...string) *player {
	p := &player{script: newScript(t, title), hold: true, late: time.Second}
	for _, step := range steps {
		word, rest, _ := strings.Cut(step, " ")
		p.step(word, rest)
	}
	return p
}

// play does a section line by line.
func (p *player) play(lines []string) {
	p.t.Helper()
	for i := 0; i < len(lines); {
		line, from := lines[i], i+1
		kind := kindOf(line)
		for i++; i < len(lines) && kindOf(lines[i]) == kind && kind == "Lnc|" || i < len(lines) && kindOf(lines[i]) == "1|" && kind == "$"; i++ {
		}
		p.line, p.asked = from, line
		switch kind {
		case "@":
			p.event(line)
		case "Lnc|":
			p.group(lines[from-1 : i])
		case "$":
			p.command(strings.TrimPrefix(line, "$ "), lines[from:i])
		default:
			p.fatal("nobody knows what to do with %q", line)
		}
	}
	recount(p.t, p.rules, p.forwarder())
}

func kindOf(line string) string {
	word, _, _ := strings.Cut(line, " ")
	return word
}

var recordedConn = regexp.MustCompile(`^@ conn\(([\d.]+:\d+) -> :(\d+)\) -> rs(\d)$`)

// event is a connection and the server that got it.
func (p *player) event(line string) {
	p.t.Helper()
	m := recordedConn.FindStringSubmatch(line)
	if m == nil {
		p.fatal("not a connection: %s", line)
	}
	got, _, _ := strings.Cut(p.connect(m[1], "192.168.88.23:"+m[2], p.hold), ":")
	if n, _ := strconv.Atoi(got); strconv.Itoa(n-1) != m[3] {
		p.fatal("%s, got .%s", line, got)
	}
}

// pass lets time go by as a director does, which sweeps every now and then.
func (p *player) pass(d time.Duration) {
	const often = 100 * time.Millisecond
	for ; d > often; d -= often {
		p.step("advance", often.String())
	}
	p.step("advance", d.String())
}

// a row is one of a listing of connections.
type row struct {
	proto, state, client, virtual, dest string
	left                                int // seconds
}

func (r row) String() string {
	return fmt.Sprintf("%s %02d:%02d %s %s %s %s", r.proto, r.left/60, r.left%60, r.state, r.client, r.virtual, r.dest)
}

// rows lists the entries that keep.
func (p *player) rows(keep func(*ConnInfo) bool) (list []row) {
	for _, c := range p.forwarder().Conns(ConnQuery{}).Conns {
		if keep(&c) {
			list = append(list, row{
				map[uint8]string{ProtoTCP: "TCP", ProtoUDP: "UDP", 0: "IP"}[c.Proto], c.State.String(),
				c.Client.String(), c.Virtual.String(), c.Dest.String(), int(c.Expires / time.Second),
			})
		}
	}
	return list
}

// recordedRow reads a row of -Lnc.
func (p *player) recordedRow(text string) row {
	w := strings.Fields(text)
	var m, s int
	if _, err := fmt.Sscanf(w[1], "%d:%d", &m, &s); err != nil || len(w) != 6 {
		p.fatal("not an entry: %q", text)
	}
	return row{w[0], w[2], w[3], w[4], w[5], 60*m + s}
}

// same compares two listings without regard to their order.
func (p *player) same(want, got []row) {
	p.t.Helper()
	p.shown++
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(g row) bool {
			by := time.Duration(w.left-g.left) * time.Second
			anew := strings.HasSuffix(w.client, ":0") && by >= -conntrack.ParentLife && by <= p.late-conntrack.ParentLife
			g.left = w.left
			return g == w && (by >= -time.Second && by <= p.late || anew)
		})
		if i < 0 && time.Duration(w.left)*time.Second >= p.late {
			p.fatal("no entry %s among\n    %v", w, got)
		}
		if i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) > 0 {
		p.fatal("the kernel has no %v", left)
	}
}

// group compares the entries of the clients and services that are shown.
func (p *player) group(lines []string) {
	p.t.Helper()
	p.pass(500 * time.Millisecond)
	var want []row
	clients, ports := map[string]bool{}, map[string]bool{}
	host := func(endpoint string) string { h, _, _ := strings.Cut(endpoint, ":"); return h }
	for _, line := range lines {
		r := p.recordedRow(strings.TrimPrefix(line, "Lnc| "))
		want = append(want, r)
		clients[host(r.client)] = true
		ports[strings.TrimPrefix(r.virtual, host(r.virtual))] = true
	}
	p.same(want, p.rows(func(c *ConnInfo) bool {
		return clients[c.Client.Addr().String()] && ports[fmt.Sprintf(":%d", c.Virtual.Port())]
	}))
}

// command does what was typed, and compares what was printed.
func (p *player) command(text string, printed []string) {
	p.t.Helper()
	for i := range printed {
		printed[i] = strings.TrimPrefix(printed[i], "1| ")
	}
	w := strings.Fields(text)
	switch {
	case text == "cat /proc/net/ip_vs_conn":
		p.pass(500 * time.Millisecond)
		var want []row
		for _, line := range printed[1:] {
			want = append(want, p.procRow(line))
		}
		p.same(want, p.rows(func(*ConnInfo) bool { return true }))
	case strings.HasPrefix(text, "ipvsadm -Lnc"):
		p.pass(500 * time.Millisecond)
		var want []row
		for _, line := range printed {
			if !strings.HasPrefix(line, "IPVS") && !strings.HasPrefix(line, "pro ") {
				want = append(want, p.recordedRow(line))
			}
		}
		_, port, _ := strings.Cut(text, "grep :")
		p.same(want, p.rows(func(c *ConnInfo) bool { return port == "" || port == strconv.Itoa(int(c.Virtual.Port())) }))
	case strings.HasPrefix(text, "ipvsadm -Ln"):
		p.listed(text, printed)
	case w[0] == "ipvsadm":
		p.change(w[1:])
		p.pass(100 * time.Millisecond) // deleted servers are noticed
	default:
		p.fatal("nobody knows how to %s", text)
	}
}

// procRow reads a row of /proc/net/ip_vs_conn.
func (p *player) procRow(text string) row {
	w := strings.Fields(text)
	end := func(addr, port string) string {
		a, err := strconv.ParseUint(addr, 16, 32)
		p.must(err)
		n, err := strconv.ParseUint(port, 16, 16)
		p.must(err)
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), uint16(n)).String()
	}
	left, err := strconv.Atoi(w[8])
	p.must(err)
	return row{w[0], w[7], end(w[1], w[2]), end(w[3], w[4]), end(w[5], w[6]), left}
}

// listed compares a listing of servers: what stands between their address and the
// end of the row.
func (p *player) listed(text string, printed []string) {
	p.t.Helper()
	p.shown++
	stats := p.forwarder().Stats()
	servers, services := map[string]string{}, map[string]string{}
	for _, v := range p.rules.Services() {
		name := v.Addr.String() + ":" + strconv.Itoa(int(v.Port))
		if v.Mark != 0 {
			name = strconv.Itoa(int(v.Mark))
		}
		flags := v.Scheduler
		if v.Persistence.Timeout > 0 {
			flags += fmt.Sprintf(" persistent %d", int(v.Persistence.Timeout.Seconds()))
		}
		if v.OnePacket {
			flags += " ops"
		}
		numbers := func(c Counters) string {
			return fmt.Sprint(c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes)
		}
		if services[name] = flags; strings.Contains(text, "--stats") {
			services[name] = numbers(stats.Services[v.Slot])
		}
		for _, d := range v.Servers {
			key := name + " " + netip.AddrPortFrom(d.Addr, d.Port).String()
			switch {
			case strings.Contains(text, "--stats"):
				servers[key] = numbers(stats.Servers[d.Slot])
			case strings.Contains(text, "--persistent-conn"):
				servers[key] = fmt.Sprint(d.Weight, d.Persistent, d.Active, d.Inactive)
			case strings.Contains(text, "--thresholds"):
				servers[key] = fmt.Sprint(d.Upper, d.Lower, d.Active, d.Inactive)
			default:
				servers[key] = fmt.Sprint("Masq ", d.Weight, d.Active, d.Inactive)
			}
		}
	}
	service, rows := "", 0
	for _, line := range printed {
		w := strings.Fields(line)
		switch got := ""; {
		case w[0] == "->" && w[1] != "RemoteAddress:Port":
			rows++
			if got = servers[service+" "+w[1]]; got != strings.Join(w[2:], " ") {
				p.fatal("%s\n     got %s", line, got)
			}
		case w[0] == "TCP" || w[0] == "UDP" || w[0] == "FWM":
			service = w[1]
			if got = services[service]; got != strings.Join(w[2:], " ") {
				p.fatal("%s\n     got %s", line, got)
			}
		}
	}
	if rows == 0 {
		p.fatal("no server in what was printed")
	}
}

// change does a command that changes services and servers, in the words of scripts.
func (p *player) change(w []string) {
	words := map[string]string{
		"-E": "edit-service", "-a": "server", "-e": "edit-server", "-d": "delete-server",
		"-s": "sched", "-p": "persistent", "-w": "weight", "-x": "upper",
	}
	proto := map[string]string{"-t": "tcp ", "-u": "udp "}[w[1]]
	rest := ""
	for i := 3; i < len(w); i++ {
		switch w[i] {
		case "-m":
		case "-o":
			rest += " one-packet"
		case "-r":
			i++
			rest += w[i]
		case "-p":
			i++
			rest += " persistent " + w[i] + "s"
		default:
			rest += " " + words[w[i]] + " " + w[i+1]
			i++
		}
	}
	if w[0] == "-E" {
		p.step("edit-service", proto+w[2]+rest)
		return
	}
	p.step("of", proto+w[2])
	p.step(words[w[0]], rest)
}
