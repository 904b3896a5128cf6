// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// What a kernel did, replayed through a Forwarder.

func lines(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return list
}

// segment is one of the events of the recordings, i for the client's side and o
// for the server's, with numbers that both ends would take.
func segment(event, client, virtual, server string) string {
	flags := map[byte]string{'S': "S", 'F': "FA", 'A': "A", 'R': "R"}[event[1]]
	if event[0] == 'i' {
		seq := map[byte]int{'S': 5000}[event[1]]
		if seq == 0 {
			seq = 5001
		}
		ack := 7001
		if flags == "S" {
			ack = 0
		}
		return fmt.Sprintf("tcp %s > %s %s seq=%d ack=%d", client, virtual, flags, seq, ack)
	}
	if flags == "S" {
		return fmt.Sprintf("tcp %s > %s SA seq=7000 ack=5001", server, client)
	}
	return fmt.Sprintf("tcp %s > %s %s seq=7001 ack=5001", server, client, flags)
}

// TestRecordedMatrix sends each sequence of segments that a kernel was given
// and compares state, timer and counts at its end.
func TestRecordedMatrix(t *testing.T) {
	t.Run("usual", func(t *testing.T) { replayMatrix(t, "tcp-matrix.txt", 150, 0) })
	t.Run("secure", func(t *testing.T) { replayMatrix(t, "tcp-matrix-secure.txt", 36, 3) })
}

func replayMatrix(t *testing.T, file string, least, secure int) {
	s := newScript(t, file)
	s.max = 4096
	s.set("secure_tcp", secure)
	s.step("service", "tcp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:8080")
	list := lines(t, "../conntrack/testdata/"+file)
	if len(list) < least {
		t.Fatalf("%d sequences", len(list))
	}
	for i, line := range list {
		events, want, _ := strings.Cut(line, " : ")
		client := fmt.Sprintf("192.168.88.21:%d", 20000+i)
		for _, e := range strings.Fields(events) {
			s.arrive("", segment(e, client, "192.168.88.23:80", "10.0.0.2:8080"))
		}
		got := shown(s, client)
		if got != want {
			t.Errorf("%s: %s, the kernel %s", events, got, want)
		}
	}
	s.made, s.verdict = nil, nil
	recount(t, s.rules, s.f)
}

// shown is the state and timer of a client's entry, as a listing shows them in the
// second after its last packet.
func shown(s *script, client string) string {
	for q := (ConnQuery{}); q.Cursor >= 0; {
		page := s.f.Conns(q)
		for _, c := range page.Conns {
			if c.Client.String() == client {
				return fmt.Sprintf("%s %s", c.State, minutes(c.Expires-time.Second))
			}
		}
		q.Cursor = page.Next
	}
	return "none"
}

func minutes(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// TestRecordedAssociations does the same with SCTP, masqueraded and by direct
// routing.
func TestRecordedAssociations(t *testing.T) {
	s := newScript(t, "sctp-matrix.txt")
	s.max = 4096
	s.step("service", "sctp 192.168.88.23:80 sched rr")
	s.step("server", "10.0.0.2:8080")
	s.step("service", "sctp 192.168.88.23:81 sched rr")
	s.step("server", "10.0.0.2:81 method route")
	file, err := os.ReadFile("../conntrack/testdata/sctp-matrix.txt")
	if err != nil {
		t.Fatal(err)
	}
	virtual, n := "192.168.88.23:80", 0
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			if virtual = "192.168.88.23:80"; strings.Contains(line, "(-g)") {
				virtual = "192.168.88.23:81"
			}
			s.step("set", "sloppy_sctp 0")
			if strings.HasSuffix(line, "sloppy_sctp=1") {
				s.step("set", "sloppy_sctp 1")
			}
			continue
		}
		events, want, _ := strings.Cut(line, " : ")
		client := fmt.Sprintf("192.168.88.21:%d", 20000+n)
		n++
		for _, e := range strings.Fields(events) {
			s.arrive("", chunkPacket(e, client, virtual))
		}
		// The recording was read a second later or two.
		if got := shown(s, client); got != want && (got == "none" || aSecondLater(got) != want) {
			t.Errorf("%s: %s, the kernel %s", events, got, want)
		}
	}
	if n < 700 {
		t.Errorf("only %d sequences", n)
	}
	s.made, s.verdict = nil, nil
	recount(t, s.rules, s.f)
}

// aSecondLater is what is shown then.
func aSecondLater(shown string) string {
	var state string
	var m, sec int
	fmt.Sscanf(shown, "%s %d:%d", &state, &m, &sec)
	return state + " " + minutes(time.Duration(m)*time.Minute+time.Duration(sec-1)*time.Second)
}

// chunkPacket is one of the events of the recording of SCTP.
func chunkPacket(event, client, virtual string) string {
	chunk := map[string]string{
		"D": "DATA", "I": "INIT", "IA": "INIT-ACK", "CE": "COOKIE-ECHO", "CA": "COOKIE-ACK", "S": "SHUTDOWN",
		"SA": "SHUTDOWN-ACK", "SC": "SHUTDOWN-COMPLETE", "ER": "ERROR", "AB": "ABORT",
	}[event[1:]]
	if chunk != "INIT" {
		chunk += " tag=5"
	}
	if event[0] == 'o' {
		return fmt.Sprintf("sctp 10.0.0.2:8080 > %s %s", client, chunk)
	}
	return fmt.Sprintf("sctp %s > %s %s", client, virtual, chunk)
}

// TestRecordedReuse sends a SYN on the tuple of a connection in each state: the
// kernel with conn_reuse_mode 1 schedules it anew in TIME_WAIT and CLOSE, with
// conn_reuse_mode 0 never.
func TestRecordedReuse(t *testing.T) {
	// How the states that the recording names come about, by segments.
	ways := map[string]string{
		"1 SYN_RECV": "iS", "1 ESTABLISHED": "iS oS iA", "1 FIN_WAIT": "iS oS iA iF", "1 TIME_WAIT": "iS oS iA iF oF iA",
		"1 CLOSE by client": "iS oS iA iR oS", "1 CLOSE by server": "iS oS iA oR",
		"0 SYN_RECV": "iS", "0 ESTABLISHED": "iS oS iA", "0 FIN_WAIT": "iS oS iA iF", "0 TIME_WAIT": "iS oS iA iF oF iA",
		"0 CLOSE by client": "iS oS iA iR", "0 CLOSE by server": "iS oS iA oR",
	}
	form := regexp.MustCompile(`^conn_reuse_mode=(. .*) : before (\S+) \S+ 10.0.0.(\d):\d+ ; after (\S+) (\S+) 10.0.0.(\d):\d+$`)
	found := 0
	for _, line := range lines(t, "testdata/recorded/reuse.txt") {
		m := form.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		found++
		s := newScript(t, "reuse "+m[1])
		s.set("conn_reuse_mode", int(m[1][0]-'0'))
		s.step("service", "tcp 192.168.88.23:80 sched rr")
		s.step("server", "10.0.0.3:80") // the newest is first in turn
		s.step("server", "10.0.0.2:80")
		const client = "192.168.88.21:40000"
		for _, e := range strings.Fields(ways[m[1]]) {
			s.arrive("", segment(e, client, "192.168.88.23:80", "10.0.0.2:80"))
		}
		before := s.f.Conns(ConnQuery{}).Conns[0]
		s.arrive("", "tcp "+client+" > 192.168.88.23:80 S seq=90000")
		if s.verdict.Action != Forward {
			t.Errorf("%s: the SYN was lost: %v", m[1], s.verdict.Reason)
		}
		after := s.f.Conns(ConnQuery{}).Conns
		if len(after) != 1 {
			t.Fatalf("%s: %d entries", m[1], len(after))
		}
		got := fmt.Sprintf("%s at .%s, then %s at .%s", before.State, last(before.Dest), after[0].State, last(after[0].Dest))
		want := fmt.Sprintf("%s at .%s, then %s at .%s", m[2], m[3], m[4], m[6])
		if got != want {
			t.Errorf("%s: %s; the kernel %s", m[1], got, want)
		}
		recount(t, s.rules, s.f)
	}
	if found != len(ways) {
		t.Fatalf("%d cases", found)
	}
}

func last(a netip.AddrPort) string { b := a.Addr().As4(); return fmt.Sprint(b[3]) }

// recount fails unless the servers' counts are those of the table.
func recount(t *testing.T, r *Rules, forwarders ...*Forwarder) {
	t.Helper()
	type count struct{ active, inactive, templates int }
	want := map[uint32]count{}
	for _, f := range forwarders {
		for i := range f.table.Extent() {
			if c := f.table.At(i); c != nil && c.Server != conntrack.NoSlot {
				n := want[c.Server]
				switch {
				case c.Flags&conntrack.Template != 0:
					n.templates++
				case c.State.Active():
					n.active++
				default:
					n.inactive++
				}
				want[c.Server] = n
			}
		}
	}
	for slot, d := range r.servers.all {
		if d == nil {
			continue
		}
		if got := (count{d.sched.Active(), d.sched.Inactive(), d.sched.Templates()}); got != want[uint32(slot)] {
			t.Fatalf("server %s: counted %+v, the table has %+v", d.sched.Addr, got, want[uint32(slot)])
		}
	}
}

// TestEverySequence sends every sequence of six segments that begins with a SYN, with
// numbers that both ends would take: the windows must not keep an entry from any state
// that the kernel's table leads to.
func TestEverySequence(t *testing.T) {
	for name, table := range map[string]conntrack.TCPTable{"usual": conntrack.UsualTCP, "secure": conntrack.SecureTCP} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, name)
			s.set("secure_tcp", 3*int(table))
			s.step("service", "tcp 192.168.88.23:80 sched rr")
			s.step("server", "10.0.0.2:8080")
			f := s.forwarder()
			defer f.Close()
			const client = "192.168.88.21:40000"
			tuple := conntrack.Tuple{Src: endpoint(client), Dst: endpoint("192.168.88.23:80"), Proto: ProtoTCP}
			packets := map[string][]byte{}
			events := []string{"iS", "iF", "iA", "iR", "oS", "oF", "oA", "oR"}
			for _, e := range events {
				packets[e], _ = encodePacket(segment(e, client, "192.168.88.23:80", "10.0.0.2:8080"))
			}
			for n := range 1 << 15 {
				want, sequence := conntrack.None, "iS"
				for i := range 6 {
					e := "iS"
					if i > 0 {
						e = events[n>>(3*(i-1))&7]
						sequence += " " + e
					}
					d, event := eventOf(e)
					if e == "iS" && over(want) {
						want = conntrack.None // another connection
					}
					want = table.Next(want, d, event)
					s.f.Begin(s.now)
					f.Forward(&Packet{Data: bytes.Clone(packets[e]), In: uint16(d)})
					if c, _ := f.table.Lookup(&tuple, conntrack.DstOurs); c == nil || c.State != want {
						t.Fatalf("%s: %v, the table %s", sequence, c, want)
					}
				}
				c, _ := f.table.Lookup(&tuple, conntrack.DstOurs)
				f.table.Remove(c, conntrack.Deleted)
			}
			recount(t, s.rules, f)
		})
	}
}

// eventOf is one of the events of the recordings for the state machine.
func eventOf(e string) (conntrack.Direction, conntrack.Event) {
	d := conntrack.Inbound
	if e[0] == 'o' {
		d = conntrack.Outbound
	}
	return d, map[byte]conntrack.Event{'S': conntrack.SYN, 'F': conntrack.FIN, 'A': conntrack.ACK, 'R': conntrack.RST}[e[1]]
}

func endpoint(s string) conntrack.Endpoint {
	a := netip.MustParseAddrPort(s)
	return conntrack.Endpoint{Addr: conntrack.AddrFrom(a.Addr()), Port: a.Port()}
}
