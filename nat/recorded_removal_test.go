// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRecordedRemoval plays 07-removal/removal.txt: the commands that the director
// was given, and what the sockets then did, by what came of it. What is compared is
// whether a segment reached its server, was met with silence or with a RST, and which
// entries and counts there were. Listings in which all connections are closed tell
// that they were.
func TestRecordedRemoval(t *testing.T) {
	r := &removalReplay{t: t, lines: recording(t, "testdata/recorded/removal.txt")}
	for i := 0; i < len(r.lines); i++ {
		i = r.step(i)
	}
	if r.sections != 15 || r.exchanges != 63 || r.listings != 23 {
		t.Errorf("%d sections, %d exchanges, %d listings", r.sections, r.exchanges, r.listings)
	}
}

type removalReplay struct {
	t       *testing.T
	s       *script
	lines   []recordedLine
	line    recordedLine
	port    string // of the service
	servers []string
	socks   map[string]*sock
	order   []*sock

	sections, exchanges, listings int
}

// A sock is a client's connection.
type sock struct {
	client, server string
	seq, ack       uint32
	dead           bool
}

var (
	removalCommand = regexp.MustCompile(`^\$ ipvsadm -(\w)(?: -t 192.168.88.23:(\d+))?(?: -r (\S+))?(?: -s (\w+))?(.*)$`)
	removalEntry   = regexp.MustCompile(`Lnc\| TCP (\d\d):(\d\d) (\w+) (\S+) (\S+) (\S+)$`)
)

func (r *removalReplay) fatal(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("removal.txt:%d: %s\n    %s", r.line.n, r.line.text, fmt.Sprintf(format, args...))
}

func (r *removalReplay) step(i int) int {
	r.line = r.lines[i]
	switch text := r.line.text; {
	case strings.HasPrefix(text, "## "):
		r.section(text, i)
	case strings.HasPrefix(text, "$ ipvsadm -Ln -t"):
		return r.listing(i)
	case strings.HasPrefix(text, "$ ipvsadm -Lnc"):
		_, n, _ := strings.Cut(r.lines[i+1].text, "| ")
		if got := r.s.f.Stats().Conns; fmt.Sprint(got) != n {
			r.fatal("%d entries, the kernel %s", got, n)
		}
	case strings.HasPrefix(text, "$ ipvsadm -Ln --stats"):
	case strings.HasPrefix(text, "$ ipvsadm"):
		r.command(text)
	case strings.HasPrefix(text, "Lnc| TCP") && len(r.servers) > 1:
		var entries []string
		entries, i, _ = r.entries(i)
		r.sameEntries(entries)
		return i - 1
	case strings.HasPrefix(text, "Lnc| TCP"), strings.HasPrefix(text, "after close Lnc| "):
		r.idle(text)
	case text == "Lnc| ":
		if n := r.s.f.Stats().Conns; n != 0 {
			r.fatal("%d entries", n)
		}
	case strings.HasPrefix(text, "@ "):
		r.fact(text)
	}
	return i
}

// section begins anew: a service beside others, as in the recording, and three
// connections to three servers in turn, unless its heading says otherwise.
func (r *removalReplay) section(text string, i int) {
	r.sections++
	if strings.HasPrefix(text, "## weight 0 everywhere") || strings.HasPrefix(text, "## no server in") ||
		strings.HasPrefix(text, "## scheduler edited") || strings.HasPrefix(text, "## -Z") {
		return // goes on with the service before
	}
	port := ""
	for _, l := range r.lines[i:] {
		if m := regexp.MustCompile(`192\.168\.88\.23:(\d+)|grep -c :(\d+)`).FindStringSubmatch(l.text); m != nil {
			port = m[1] + m[2]
			break
		}
	}
	servers := []string{"10.0.0.4", "10.0.0.3", "10.0.0.2"}
	switch {
	case strings.HasPrefix(text, "## a server that is down"):
		servers = []string{"10.0.0.9"}
	case strings.HasPrefix(text, "## a server whose port"):
		servers = []string{"10.0.0.3", "10.0.0.2"}
	case strings.HasPrefix(text, "## deleted server with"):
		servers = []string{"10.0.0.2"}
	}
	expire := 0
	if strings.HasPrefix(text, "## expire_nodest_conn=1") {
		expire = 1
	}
	r.begin(port, servers, expire)
	if len(servers) == 3 || strings.HasPrefix(text, "## deleted server with") {
		for n := range servers {
			r.connect(fmt.Sprintf("192.168.88.21:%d", 30001+n))
		}
	}
}

func (r *removalReplay) begin(port string, servers []string, expire int) {
	r.s = newScript(r.t, "removal.txt")
	r.s.max = 64
	r.port, r.servers = port, servers
	r.socks, r.order = map[string]*sock{}, nil
	r.s.set("expire_nodest_conn", expire)
	r.s.set("hold_gone_syn", 1)
	r.s.step("service", "tcp 192.168.88.23:9 sched rr")
	r.service()
}

func (r *removalReplay) service() {
	r.s.step("service", "tcp 192.168.88.23:"+r.port+" sched rr")
	for _, a := range r.servers {
		r.s.step("server", a+":"+r.port)
	}
	r.s.forwarder()
}

func (r *removalReplay) virtual() string { return "192.168.88.23:" + r.port }

// arrive sends a packet and says what came of it: the destination, "silence", or
// "refused". What the host has it refuses.
func (r *removalReplay) arrive(text string) string {
	s := r.s
	s.arrive("", text)
	v, made := *s.verdict, s.made
	s.verdict, s.made, s.madeBy = nil, nil, nil
	switch {
	case v.Action == Forward:
		return strings.Fields(decodePacket(s.packet.Data, Offload{}))[3]
	case v.Action == Pass:
		return "refused"
	case len(made) == 0:
		return "silence"
	case len(made) == 1 && (strings.Contains(made[0], " R") || strings.Contains(made[0], "port-unreachable")):
		return "refused"
	}
	r.fatal("%s made %v", text, made)
	return ""
}

func (r *removalReplay) connect(client string) string {
	r.s.step("advance", "0s")
	to := r.arrive("tcp " + client + " > " + r.virtual() + " S seq=5000")
	if to == "refused" || to == "silence" {
		return to
	}
	c := &sock{client: client, server: to, seq: 5001, ack: 7001}
	r.socks[client] = c
	r.order = append(r.order, c)
	if r.servers[0] == "10.0.0.3" && strings.HasPrefix(to, "10.0.0.3:") { // its port is closed
		c.dead = true
		if got := r.arrive("tcp " + to + " > " + client + " RA seq=0 ack=5001"); got != client {
			r.fatal("the refusal: %s", got)
		}
		return "refused"
	}
	r.arrive("tcp " + to + " > " + client + " SA seq=7000 ack=5001")
	r.arrive("tcp " + client + " > " + r.virtual() + " A seq=5001 ack=7001")
	return to
}

// exchange has a client say something, and its server answer.
func (r *removalReplay) exchange(c *sock) string {
	r.exchanges++
	if c.dead {
		return "client write: EPIPE"
	}
	switch to := r.arrive(fmt.Sprintf("tcp %s > %s PA seq=%d ack=%d data=5", c.client, r.virtual(), c.seq, c.ack)); to {
	case "silence":
		return "server got nothing, client heard nothing"
	case "refused":
		c.dead = true
		return "server got nothing; client: ECONNRESET"
	default:
		if to != c.server {
			r.fatal("%s went to %s, not to %s", c.client, to, c.server)
		}
	}
	c.seq += 5
	if got := r.arrive(fmt.Sprintf("tcp %s > %s PA seq=%d ack=%d data=9", c.server, c.client, c.ack, c.seq)); got != c.client {
		r.fatal("the answer of %s: %s", c.server, got)
	}
	c.ack += 9
	r.arrive(fmt.Sprintf("tcp %s > %s A seq=%d ack=%d", c.client, r.virtual(), c.seq, c.ack))
	return "ok " + name(c.server)
}

// name is what the recording calls a server.
func name(server string) string {
	a := netip.MustParseAddrPort(server).Addr().As4()
	return fmt.Sprintf("rs%d", a[3]-1)
}

// late are the exchanges in which the recorder waited 4 s for a segment that the
// client's TCP, backing off, sent later: the listing after shows that it went.
var late = map[string]bool{"61 0": true, "96 1": true}

func (r *removalReplay) fact(text string) {
	what, rest, _ := strings.Cut(text[2:], ": ")
	switch {
	case strings.Contains(rest, "ok rs") || strings.Contains(rest, "server got nothing") || strings.Contains(rest, "EPIPE"):
		results := strings.Split(strings.ReplaceAll(rest, "nothing; client", "nothing, client"), "; ")
		for i, want := range results {
			want, _, _ = strings.Cut(strings.ReplaceAll(want, "nothing, client: ", "nothing; client: "), " in 4 s")
			want, _, _ = strings.Cut(want, ":hello")
			got := r.exchange(r.order[i])
			if wasLate := late[fmt.Sprint(r.line.n, " ", i)]; wasLate != (got != want) {
				r.fatal("connection %d: %s", i+1, got)
			}
		}
	case what == "a new connection", what == "new", what == "results":
		for _, want := range strings.Fields(rest) {
			if want != "ECONNREFUSED" && !strings.HasPrefix(want, "rs") {
				break // after so many seconds
			}
			got := r.connect(fmt.Sprintf("192.168.88.21:%d", r.nextPort(what)))
			if got == "refused" {
				got = "ECONNREFUSED"
			} else if got != "silence" {
				got = name(got)
			}
			if got != want {
				r.fatal("%s", got)
			}
		}
	case strings.HasPrefix(text, "@ client: EHOSTUNREACH"):
		to := r.connectOnly("192.168.88.21:30001")
		if to != "10.0.0.9:"+r.port {
			r.fatal("went to %s", to)
		}
		r.s.step("unreachable@1", "")
		r.s.step("made@0", "icmp 192.168.88.23 > 192.168.88.21 host-unreachable (tcp 192.168.88.21:30001 > "+r.virtual()+" S)")
	}
}

func (r *removalReplay) connectOnly(client string) string {
	return r.arrive("tcp " + client + " > " + r.virtual() + " S seq=5000")
}

// nextPort is the source port of the next connection, as the recorder chose them.
func (r *removalReplay) nextPort(what string) int {
	if what == "results" {
		return 30001 + len(r.order)
	}
	return 30011 + len(r.order) - len(r.servers)
}

func (r *removalReplay) command(text string) {
	m := removalCommand.FindStringSubmatch(text)
	if m == nil {
		r.fatal("not understood")
	}
	s := r.s
	if m[2] != "" && m[2] != r.port { // a service of its own, of the section about idle connections
		r.begin(m[2], r.servers, 1)
		r.connect("192.168.88.21:30001")
		s = r.s
	}
	s.step("of", "tcp "+r.virtual())
	switch m[1] {
	case "d":
		s.step("delete-server", m[3])
	case "a":
		s.step("server", m[3])
	case "e":
		switch w := strings.Fields(m[5]); {
		case slices.Contains(w, "-w"):
			s.step("edit-server", m[3]+" weight "+w[len(w)-1])
		case slices.Contains(w, "-g"):
			a := netip.MustParseAddrPort(m[3])
			s.must(s.rules.EditServer(s.service, ServerSpec{Addr: a.Addr(), Port: a.Port(), Weight: 1, Method: DirectRoute}))
		}
	case "D":
		s.step("delete-service", "tcp "+r.virtual())
	case "C":
		s.rules.Clear()
		s.dirty = true
	case "E":
		s.must(s.rules.EditService(ServiceSpec{ServiceKey: s.key("tcp", r.virtual()), Scheduler: m[4]}))
	case "Z":
	default:
		r.fatal("not understood")
	}
	s.step("advance", "0s")
}

// listing compares the servers of a service, and the entries listed after them. A
// service that is listed and not there was added again.
func (r *removalReplay) listing(i int) int {
	r.listings++
	var servers []string
	j := i + 1
	for ; j < len(r.lines) && strings.HasPrefix(r.lines[j].text, "1| "); j++ {
		if w := strings.Fields(r.lines[j].text); w[1] == "->" && strings.HasPrefix(w[2], "10.") {
			servers = append(servers, strings.Join(w[2:], " "))
		}
	}
	entries, j, closed := r.entries(j)
	if len(r.s.rules.Services()) == 1 && len(servers) > 0 {
		r.service()
	}
	if closed && len(entries) > 0 {
		for _, c := range r.order {
			r.close(c)
		}
	}
	var got []string
	for _, v := range r.s.rules.Services() {
		for _, d := range v.Servers {
			method := map[Method]string{Masquerade: "Masq", DirectRoute: "Route"}[d.Method]
			got = append(got, fmt.Sprintf("%s:%d %s %d %d %d", d.Addr, d.Port, method, d.Weight, d.Active, d.Inactive))
		}
	}
	r.same("servers", servers, got)
	r.sameEntries(entries)
	recount(r.t, r.s.rules, r.s.f)
	return j - 1
}

// entries reads the listed entries from line i on, says where they end, and whether
// all of them are closed.
func (r *removalReplay) entries(i int) (list []string, end int, closed bool) {
	closed = true
	for ; i < len(r.lines) && strings.HasPrefix(r.lines[i].text, "Lnc| TCP"); i++ {
		m := removalEntry.FindStringSubmatch(r.lines[i].text)
		list = append(list, fmt.Sprintf("%s c:%s v:%s d:%s", m[3], m[4], m[5], m[6]))
		closed = closed && (m[3] == "TIME_WAIT" || m[3] == "CLOSE")
	}
	return list, i, closed
}

func (r *removalReplay) sameEntries(want []string) {
	var got []string
	for _, c := range r.s.f.Conns(ConnQuery{}).Conns {
		got = append(got, fmt.Sprintf("%s c:%s v:%s d:%s", c.State, c.Client, c.Virtual, c.Dest))
	}
	r.same("entries", want, got)
}

func (r *removalReplay) same(what string, want, got []string) {
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		r.fatal("%s\n    the kernel %q\n    here       %q", what, want, got)
	}
}

func (r *removalReplay) close(c *sock) {
	if c.dead {
		return
	}
	c.dead = true
	r.arrive(fmt.Sprintf("tcp %s > %s FA seq=%d ack=%d", c.client, r.virtual(), c.seq, c.ack))
	r.arrive(fmt.Sprintf("tcp %s > %s FA seq=%d ack=%d", c.server, c.client, c.ack, c.seq+1))
	r.arrive(fmt.Sprintf("tcp %s > %s A seq=%d ack=%d", c.client, r.virtual(), c.seq+1, c.ack+1))
}

// idle compares the one entry that is listed every five seconds.
func (r *removalReplay) idle(text string) {
	c := r.order[0]
	if strings.HasPrefix(text, "after close") { // what the server still says goes on
		if got := r.arrive(fmt.Sprintf("tcp %s > %s FA seq=%d ack=%d", c.server, c.client, c.ack, c.seq)); got != c.client {
			r.fatal("the server's FIN: %s", got)
		}
	}
	m := removalEntry.FindStringSubmatch(text)
	want := fmt.Sprintf("%s:%s %s c:%s v:%s d:%s", m[1], m[2], m[3], m[4], m[5], m[6])
	got := ""
	for _, c := range r.s.f.Conns(ConnQuery{}).Conns {
		got += fmt.Sprintf("%s %s c:%s v:%s d:%s", minutes(c.Expires-time.Second), c.State, c.Client, c.Virtual, c.Dest)
	}
	if got != want {
		r.fatal("%s", got)
	}
	r.s.step("advance", "5s")
}
