// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRecordedPackets sends the raw packets of 06-icmp/icmp.txt, from both sides, and
// compares what arrives where, byte for byte as far as the recording has it. Left
// out are the IP ids of packets that the director made itself.
func TestRecordedPackets(t *testing.T) {
	const (
		leaks     = "server without an entry"
		leaksICMP = "ICMP from it, no entry"
		udpQuote  = "quoted UDP checksum"
		zero      = "UDP checksum 0"
		ttl       = "quoted time to live"
	)
	r := &packetReplay{
		t: t, s: newScript(t, "icmp.txt"),
		differs: newDifferences(t, "icmp.txt", map[int]string{
			121: leaksICMP, 142: udpQuote, 163: udpQuote, 182: zero, 184: zero,
			251: leaks, 253: leaks, 255: leaks, 257: ttl, 260: ttl, 263: leaks, 265: ttl, 294: ttl,
			322: "fragments",
		}),
		history: map[string]bool{},
	}
	s := r.s
	r.begin()
	// What was set when, which the recording says in its headings only.
	setUp := map[string]func(){
		"## no server with weight": func() {
			s.set("nat_icmp_send", 0)
			r.servers("edit-server", " weight 0")
		},
		"## no server at all": func() { r.servers("delete-server", "") },
		"## path MTU: the director's server-side": func() {
			s.step("delete-service", "tcp 192.168.88.23:80")
			s.step("delete-service", "udp 192.168.88.23:53")
			r.begin()
			s.step("mtu", "1 1300")
		},
		"## path MTU: the director's client-side": func() {
			s.step("mtu", "1 1500")
			s.step("mtu", "0 1300")
		},
		"## fragments:":       func() { s.step("mtu", "0 1500") },
		"## schedule_icmp=1 ": func() { s.set("schedule_icmp", 1) },
	}
	lines := recording(t, "testdata/recorded/icmp.txt")
	used := 0
	for i := 0; i < len(lines); i++ {
		switch line := lines[i]; {
		case strings.HasPrefix(line.text, "## "):
			r.heading = line.text
			for prefix, f := range setUp {
				if strings.HasPrefix(line.text, prefix) {
					f()
					used++
				}
			}
		case strings.Contains(line.text, " sends: "):
			if line.n == 257 {
				s.set("nat_icmp_send", 1) // "0 then 1"
			}
			i = r.send(lines, i)
		case strings.HasPrefix(line.text, "$ ipvsadm -Lnc"):
			i = r.listing(lines, i+3)
		case strings.HasPrefix(line.text, "$ ipvsadm -Ln --stats"):
			i = r.stats(lines, i+4)
		}
	}
	r.differs.done()
	if used != len(setUp) || r.sent != 74 {
		t.Errorf("%d of %d headings, %d packets", used, len(setUp), r.sent)
	}
	recount(t, s.rules, s.f)
}

type packetReplay struct {
	t       *testing.T
	s       *script
	differs *differences
	heading string
	sent    int
	history map[string]bool // the counters that there were
}

func (r *packetReplay) begin() {
	r.s.step("service", "udp 192.168.88.23:53 sched rr")
	r.s.step("server", "10.0.0.2:5353")
	r.s.step("service", "tcp 192.168.88.23:80 sched rr")
	r.s.step("server", "10.0.0.2:8080")
	r.note()
}

func (r *packetReplay) servers(step, how string) {
	r.s.step("of", "tcp 192.168.88.23:80")
	r.s.step(step, "10.0.0.2:8080"+how)
	r.s.step("of", "udp 192.168.88.23:53")
	r.s.step(step, "10.0.0.2:5353"+how)
}

// quoted is the "inner:" line behind line i, if there is one.
func quotedLine(lines []recordedLine, i int) (string, int) {
	if i+1 < len(lines) {
		if inner, ok := strings.CutPrefix(strings.TrimSpace(lines[i+1].text), "inner: "); ok {
			return inner, i + 1
		}
	}
	return "", i
}

// send replays the packet at line i and compares what arrived. It returns the last
// line that it used.
func (r *packetReplay) send(lines []recordedLine, i int) int {
	line := lines[i]
	who, text, _ := strings.Cut(line.text, " sends: ")
	inner, i := quotedLine(lines, i)
	packet := fromRecorded(r.t, text, inner, true)
	var want []string
	for i+1 < len(lines) && strings.HasPrefix(lines[i+1].text, "   -> ") {
		i++
		to, text, _ := strings.Cut(strings.TrimPrefix(lines[i].text, "   -> "), ": ")
		if to == "nobody" {
			continue
		}
		quote := ""
		quote, i = quotedLine(lines, i)
		want = append(want, to+": "+fromRecorded(r.t, text, quote, false))
	}
	r.sent++
	s := r.s
	at := "0"
	if who == "server" {
		at = "1"
	}
	s.arrive(at, packet)
	got := r.arrived(packet)
	r.note()
	if len(got) == 1 && got[0] == "host" {
		// The host has it: it routes it on, or does nothing with it.
		routed := map[string]string{"client": "server", "server": "client"}[who] + ": " + ttlLess(packet)
		if len(want) == 0 || len(want) == 1 && agreesArrived(want[0], routed) {
			return i
		}
	}
	if len(got) == len(want) {
		for k := range want {
			if agreesArrived(want[k], got[k]) {
				got[k] = want[k] // but for what the recording does not say
			}
		}
	}
	r.differs.compare(line.n, packet, strings.Join(want, " | "), strings.Join(got, " | "))
	return i
}

func ttlLess(packet string) string {
	return strings.Replace(packet, "ttl=64", "ttl=63", 1)
}

// agreesArrived is agrees for packets with the side where they arrive. Packets that
// the director made have ids of their own.
func agreesArrived(want, got string) bool {
	wantTo, want, _ := strings.Cut(want, ": ")
	gotTo, got, _ := strings.Cut(got, ": ")
	if strings.HasPrefix(gotTo, "made ") {
		gotTo = gotTo[5:]
		if i := strings.Index(want, " id="); i >= 0 && !strings.HasPrefix(want, "icmp") {
			head, tail, _ := strings.Cut(want[i+1:], " ")
			want = want[:i] + " " + tail
			_ = head
		}
	}
	return wantTo == gotTo && agrees(want, got)
}

// arrived is what became of the packet just sent.
func (r *packetReplay) arrived(packet string) []string {
	s := r.s
	side := func(port uint16) string { return map[uint16]string{0: "client", 1: "server"}[port] }
	var got []string
	switch s.verdict.Action {
	case Forward:
		got = append(got, side(s.lastPort)+": "+decodePacket(s.packet.Data, s.packet.Offload))
	case Pass:
		got = append(got, "host")
	}
	for k, text := range s.made {
		kind := "made "
		if s.verdict.Action == Hold && !strings.HasPrefix(text, "icmp") {
			kind = "" // parts of a datagram
		}
		got = append(got, kind+side(s.madeBy[k])+": "+text)
	}
	s.verdict, s.made, s.madeBy = nil, nil, nil
	return got
}

// listing compares entries. The clock here stands still, that of the recording ran
// for some seconds.
func (r *packetReplay) listing(lines []recordedLine, i int) int {
	want := map[string]time.Duration{}
	for ; i < len(lines) && strings.HasPrefix(lines[i].text, "1| "); i++ {
		var proto, state, client, virtual, dest string
		var min, sec int
		if _, err := fmt.Sscanf(lines[i].text, "1| %s %d:%d %s %s %s %s", &proto, &min, &sec, &state, &client, &virtual, &dest); err != nil {
			r.t.Fatal(lines[i], err)
		}
		key := fmt.Sprintf("%s %s c:%s v:%s d:%s", strings.ToLower(proto), state, client, virtual, dest)
		want[key] = time.Duration(min*60+sec) * time.Second
	}
	got := map[string]time.Duration{}
	for _, c := range r.s.f.Conns(ConnQuery{}).Conns {
		got[fmt.Sprintf("%s %s c:%s v:%s d:%s", protoName(c.Proto), c.State, c.Client, c.Virtual, c.Dest)] = c.Expires
	}
	if !slices.Equal(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))) {
		r.t.Errorf("%s: the kernel has\n  %v\nhere\n  %v", r.heading, want, got)
	}
	for key, w := range want {
		if late := got[key] - w; late < 0 || late > 10*time.Second {
			r.t.Errorf("%s: %s: %v, the kernel %v", r.heading, key, got[key], w)
		}
	}
	return i - 1
}

// counters are those of all services and servers, in the form of ipvsadm.
func (r *packetReplay) counters() string {
	stats := r.s.forwarder().Stats()
	var b strings.Builder
	for _, v := range r.s.rules.Services() {
		write := func(name string, c Counters) {
			fmt.Fprintf(&b, "%s %d %d %d %d %d\n", name, c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes)
		}
		write(strings.ToUpper(protoName(v.Proto))+" "+fmt.Sprintf("%s:%d", v.Addr, v.Port), stats.Services[v.Slot])
		for _, d := range v.Servers {
			write(fmt.Sprintf("-> %s:%d", d.Addr, d.Port), stats.Servers[d.Slot])
		}
	}
	blocks := strings.SplitAfter(b.String(), "\n")
	if len(blocks) == 5 && strings.HasPrefix(blocks[0], "UDP") { // ipvsadm sorts
		return blocks[2] + blocks[3] + blocks[0] + blocks[1]
	}
	return b.String()
}

func (r *packetReplay) note() {
	r.s.forwarder().Begin(r.s.now) // takes up what was published
	r.history[r.counters()] = true
}

// stats compares counters. The kernel shows what its estimator summed last, up to
// two seconds before.
func (r *packetReplay) stats(lines []recordedLine, i int) int {
	var b strings.Builder
	for ; i < len(lines) && strings.HasPrefix(lines[i].text, "1| "); i++ {
		b.WriteString(strings.Join(strings.Fields(lines[i].text)[1:], " ") + "\n")
	}
	if !r.history[b.String()] {
		r.t.Errorf("%s: counters never were\n%s; they are\n%s", r.heading, b.String(), r.counters())
	}
	return i - 1
}
