// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// An ftpSession has a client and a server speak on a control connection, each in
// its own counting.
type ftpSession struct {
	*script
	client   string
	seen     string         // the client, as the server sees it
	sent     map[string]int // bytes by "client" and "server"
	received map[string]int
	transfer string // what closes the data connection that is open, later
	reads    string // what the other end has read last
	left     Packet // the last one, as it left
}

const ftpRecordedServer = "10.0.0.2:21"

func newFTPSession(t *testing.T, helper, client string) *ftpSession {
	s := &ftpSession{script: newScript(t, "testdata/recorded/ftp.txt"), client: client, seen: client}
	if strings.HasPrefix(client, "10.") {
		s.seen = "192.168.88.23" + client[strings.IndexByte(client, ':'):]
	}
	s.step("service", "tcp 192.168.88.23:21 sched rr helper "+helper)
	s.step("server", ftpRecordedServer)
	s.opens()
	return s
}

// opens has the client open the control connection.
func (s *ftpSession) opens() {
	s.sent, s.received = map[string]int{"client": 1001, "server": 5001}, map[string]int{"client": 5001, "server": 1001}
	s.passes("tcp " + s.client + " > 192.168.88.23:21 S seq=1000")
	s.passes("tcp 10.0.0.2:21 > " + s.seen + " SA seq=5000 ack=1001")
	s.passes("tcp " + s.client + " > 192.168.88.23:21 A seq=1001 ack=5001")
}

// passes sends a packet and returns it as it leaves; "" if it does not.
func (s *ftpSession) passes(packet string) string {
	s.arrive("", packet)
	v := s.verdict.Action
	s.verdict, s.made, s.madeBy, s.left = nil, nil, nil, Packet{}
	switch list := s.f.outbox.list; {
	case v == Forward:
		s.left = s.packet
	case v == Hold && len(list) == 1:
		s.left = list[0].Packet
	default:
		return ""
	}
	return decodePacket(s.left.Data, s.left.Offload)
}

// payload is that of the packet that has left.
func (s *ftpSession) payload() []byte {
	var h parsed
	p := s.left
	if r := h.parse(&p); r != ReasonNone {
		s.t.Fatal(r)
	}
	return p.Data[len(p.Data)-h.payload:]
}

// says sends a line, and notes what the other end reads.
func (s *ftpSession) says(who, line string) {
	from, to, other := s.client, "192.168.88.23:21", "server"
	if who == "server" {
		from, to, other = ftpRecordedServer, s.seen, "client"
	}
	out := s.passes(fmt.Sprintf("tcp %s > %s PA seq=%d ack=%d %q", from, to, s.sent[who], s.received[who], line))
	_, f, _ := splitFields(out)
	if f.num("seq", 0) != s.received[other] || strings.Contains(out, "sum=bad") {
		s.t.Fatalf("%s says %q, and what arrives is %s", who, line, out)
	}
	text := string(s.payload())
	s.sent[who] += len(line)
	s.received[other] += len(text)
	s.reads = text
	if strings.HasPrefix(line, "PORT") && s.transfer != "" {
		s.passes(s.transfer)
	}
}

// rows are the entries as ipvsadm -Lnc shows them, up to a second late.
func (s *ftpSession) rows() []string {
	var rows []string
	for _, c := range s.f.Conns(ConnQuery{}).Conns {
		left := c.Expires - time.Second
		rows = append(rows, fmt.Sprintf("TCP %02d:%02d %s %s %s %s", int(left.Minutes()), int(left.Seconds())%60, c.State, c.Client, c.Virtual, c.Dest))
	}
	return rows
}

// TestRecordedFTP replays a control connection that a kernel has served, with
// ip_vs_ftp and without. What ends the data connections was not recorded; the
// states say it.
func TestRecordedFTP(t *testing.T) {
	data, err := os.ReadFile("testdata/recorded/ftp.txt")
	if err != nil {
		t.Fatal(err)
	}
	fact := regexp.MustCompile(`^@ (client|server) (reads|sends) b'(.*)'$`)
	helper := ""
	var s *ftpSession
	compared := 0
	for _, line := range strings.Split(string(data), "\n") {
		m := fact.FindStringSubmatch(line)
		word := strings.NewReplacer(`\r`, "\r", `\n`, "\n")
		switch {
		case strings.HasPrefix(line, "## ip_vs_ftp"):
			helper = map[bool]string{true: "none", false: "ftp"}[strings.Contains(line, "not")]
			s = newFTPSession(t, helper, map[string]string{"none": "192.168.88.21:30100", "ftp": "192.168.88.21:30110"}[helper])
			s.says("server", "220 ready\r\n")
		case m != nil && m[2] == "sends":
			s.says(m[1], word.Replace(m[3]))
		case m != nil:
			if text := word.Replace(m[3]); text == "PASV\r\n" {
				s.says("client", text)
			} else if s.reads != text {
				t.Fatalf("%s: %s reads %q, want %q", helper, m[1], s.reads, text)
			}
		case strings.HasPrefix(line, "1| TCP ") && !strings.Contains(line, ":711") && strings.Contains(line, "192.168"):
			row := strings.Join(strings.Fields(line[3:]), " ")
			got := s.rows()
			if row = strings.Replace(row, "14:57", "14:59", 1); !slices.Contains(got, row) { // it waited for the time-out of connect
				t.Errorf("%s: no row %s\nin %s", helper, row, strings.Join(got, "\n   "))
			}
			compared++
		case strings.HasPrefix(line, "@ data connection to 192.168.88.23:5001: connected"):
			s.passes("tcp 192.168.88.21:30115 > 192.168.88.23:5001 S seq=100")
			s.passes("tcp 10.0.0.2:5001 > 192.168.88.21:30115 SA seq=200 ack=101")
			s.passes("tcp 192.168.88.21:30115 > 192.168.88.23:5001 A seq=101 ack=201")
			s.passes("tcp 10.0.0.2:5001 > 192.168.88.21:30115 FA seq=201 ack=101")
			s.transfer = "tcp 192.168.88.21:30115 > 192.168.88.23:5001 FA seq=101 ack=202"
		case strings.HasPrefix(line, "@ server connects from port 20"):
			out := s.passes("tcp 10.0.0.2:20 > 192.168.88.21:6001 S seq=100")
			if strings.HasSuffix(line, "timed out") {
				if out != "" || s.f.Stats().Conns != 1 {
					t.Errorf("%s: unexpected, and it left: %s", helper, out)
				}
				continue
			}
			if !agrees("tcp 192.168.88.23:20 > 192.168.88.21:6001 S", out) {
				t.Errorf("the client sees %s", out)
			}
			s.passes("tcp 192.168.88.21:6001 > 192.168.88.23:20 SA seq=200 ack=101")
			s.passes("tcp 10.0.0.2:20 > 192.168.88.21:6001 A seq=101 ack=201")
			s.passes("tcp 192.168.88.21:6001 > 192.168.88.23:20 FA seq=201 ack=101")
		}
	}
	if compared != 14 {
		t.Errorf("%d rows were compared", compared)
	}
	if n := s.f.table.Len(); n != 3 {
		t.Errorf("%d entries at the end", n)
	}
}
