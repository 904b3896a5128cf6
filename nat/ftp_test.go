// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// Rows are found by slot, whatever the order in which they come and go.
func TestFTPTable(t *testing.T) {
	var table ftpTable
	if table.find(0) != nil || table.take(0, &conntrack.Conn{}) != nil {
		t.Fatal("a row, though no memory was claimed")
	}
	table.release(0)
	const rows, slots = 50, 400
	table.claim(rows)
	r := rand.New(rand.NewPCG(1, 21))
	known := map[uint32]*ftpControl{}
	for range 20000 {
		slot := uint32(r.IntN(slots))
		switch k := known[slot]; {
		case k != nil && r.IntN(2) == 0:
			table.release(slot)
			delete(known, slot)
		case k == nil:
			c := conntrack.Conn{Window: [2]conntrack.Window{{End: slot, Ack: slot + 1, Flags: conntrack.WindowSeen | conntrack.WindowAcked}}}
			k = table.take(slot, &c)
			if (k == nil) != (len(known) == rows) {
				t.Fatalf("a row for %d: %v, with %d taken", slot, k != nil, len(known))
			}
			if k != nil {
				if k.streams[0].next != slot || k.streams[1].next != slot+1 || k.phase != (ftpPhase{}) {
					t.Fatalf("a row that is not new: %+v", k)
				}
				k.phase.opaque = true
				known[slot] = k
			}
		}
		probe := uint32(r.IntN(slots))
		if table.find(probe) != known[probe] {
			t.Fatalf("slot %d is not found as it was", probe)
		}
	}
	if table.bytes() < rows*700 || table.bytes() > rows*850+1000 {
		t.Errorf("%d bytes", table.bytes())
	}
}

// A control connection is read from its first byte on, also if the client's SYN came
// again behind the answer to the first.
func TestFTPHandshakeAgain(t *testing.T) {
	for _, first := range []uint32{1, 5001, 1 << 31, 3000000001} {
		s := newFTPSession(t, "ftp", "192.168.88.21:30110")
		s.passes("tcp 192.168.88.21:30111 > 192.168.88.23:21 S seq=1000")
		s.passes(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:30111 SA seq=%d ack=1001", first-1))
		s.passes("tcp 192.168.88.21:30111 > 192.168.88.23:21 S seq=1000")
		s.passes(fmt.Sprintf("tcp 192.168.88.21:30111 > 192.168.88.23:21 A seq=1001 ack=%d", first))
		ready := fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:30111 PA seq=%d ack=1001 \"227 (10,0,0,2,4,1)\\r\\n\"", first)
		if out := s.passes(ready); !strings.Contains(out, "192,168,88,23,4,1") {
			t.Errorf("first byte %d: left as %q", first, out)
		}
		s.f.Close()
	}
}

// When all rows are taken, the server of one more control connection is not let
// speak until there is one: what it says is sent again.
func TestFTPControlsRunOut(t *testing.T) {
	s := newFTPSession(t, "ftp", "192.168.88.21:30110")
	defer s.f.Close()
	s.f.ftp.rows = s.f.ftp.rows[:2] // row 0 is none
	s.says("server", "220 ready\r\n")
	open := func(port int) {
		s.passes(fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:21 S seq=1000", port))
		s.passes(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:%d SA seq=5000 ack=1001", port))
		s.passes(fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:21 A seq=1001 ack=5001", port))
	}
	ready := "tcp 10.0.0.2:21 > 192.168.88.21:30111 PA seq=5001 ack=1001 \"220 ready\\r\\n\""
	open(30111)
	if out := s.passes(ready); out != "" || s.f.Stats().Drops[ReasonHelperFull] != 1 {
		t.Errorf("left: %s", out)
	}
	s.passes("tcp 192.168.88.21:30110 > 192.168.88.23:21 R seq=1001")
	s.step("advance", "11s")
	if out := s.passes(ready); out == "" {
		t.Error("still no row")
	}
}

// A row is for who has been heard, and answered: what a forged source can say alone
// claims none. What is expected makes room before any connection that was answered.
func TestFTPCostsNothingEarly(t *testing.T) {
	s := newScript(t, "early")
	for _, line := range []string{"service tcp 192.168.88.23:21 helper ftp", "server 10.0.0.2:21"} {
		word, rest, _ := strings.Cut(line, " ")
		s.step(word, rest)
	}
	f := &ftpSession{script: s}
	for i, packet := range []string{
		"tcp 192.168.88.21:30110 > 192.168.88.23:21 S seq=1000",
		"tcp 10.0.0.2:21 > 192.168.88.21:30110 SA seq=5000 ack=1001",
		"tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5001 ack=1001 \"220 ready\\r\\n\"",
		"tcp 192.168.88.21:30110 > 192.168.88.23:21 A seq=1001 ack=5001",
		"tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1001 ack=5001 \"PASV\\r\\n\"",
	} {
		if f.passes(packet) == "" || s.f.ftp.fresh != 1 {
			t.Fatalf("packet %d: %d rows", i+1, s.f.ftp.fresh-1)
		}
	}
	defer s.f.Close()
	f.passes("tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5012 ack=1007 \"331 who?\\r\\n\"")
	f.passes("tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1007 ack=5022 \"PORT 192,168,88,21,23,113\\r\\n\"")
	if n := s.f.table.Counts()[conntrack.ClassOneWay]; s.f.ftp.fresh != 2 || n != 1 {
		t.Errorf("%d rows, %d entries that may be evicted", s.f.ftp.fresh-1, n)
	}
}

// When the table is full of connections that are held, what would lead to a data
// connection waits too.
func TestFTPTableFull(t *testing.T) {
	s := newScript(t, "full")
	s.max = 2
	for _, line := range []string{"service tcp 192.168.88.23:21 helper ftp", "server 10.0.0.2:21"} {
		word, rest, _ := strings.Cut(line, " ")
		s.step(word, rest)
	}
	f := &ftpSession{script: s}
	defer s.forwarder().Close()
	for _, port := range []int{30110, 30111} {
		f.passes(fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:21 S seq=1000", port))
		f.passes(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:%d SA seq=5000 ack=1001", port))
		f.passes(fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:21 A seq=1001 ack=5001", port))
		f.passes(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:%d PA seq=5001 ack=1001 \"220 ready\\r\\n\"", port))
	}
	command := "tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1001 ack=5012 \"PORT 192,168,88,21,23,113\\r\\n\""
	if out := f.passes(command); out != "" || s.f.Stats().Drops[ReasonTableFull] != 1 {
		t.Errorf("left: %s", out)
	}
	f.passes("tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1001 ack=5012 \"PASV\\r\\n\"")
	reply := "tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5012 ack=1007 \"227 (10,0,0,2,4,1)\\r\\n\""
	if out := f.passes(reply); string(f.payload()) != "227 (" {
		t.Errorf("left: %s", out)
	}
	rest := "tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5017 ack=1007 \"10,0,0,2,4,1)\\r\\n\""
	if out := f.passes(rest); out != "" || s.f.Stats().Drops[ReasonTableFull] != 2 || s.f.mapper.used != 0 {
		t.Errorf("left: %s", out)
	}
	f.passes("tcp 192.168.88.21:30111 > 192.168.88.23:21 R seq=1001")
	if out := f.passes(rest); !strings.Contains(out, "\"192,168,88,23,4,1)") || s.f.table.Len() != 2 {
		t.Errorf("with room again: %q, %d entries", out, s.f.table.Len())
	}
	recount(t, s.rules, s.f)
}

// A service that gets the helper has it for new connections; one that loses it
// keeps it for those that are there, whose numbers it has changed.
func TestFTPHelperEdited(t *testing.T) {
	s := newFTPSession(t, "none", "192.168.88.21:30100")
	defer s.f.Close()
	edit := func(h Helper) {
		spec := ServiceSpec{ServiceKey: s.service, Scheduler: "rr", Helper: h}
		s.must(s.rules.EditService(spec))
	}
	if s.f.ftp.rows != nil {
		t.Error("memory was claimed without a service that asks for it")
	}
	edit(HelperFTP)
	s.says("server", "220 ready\r\n")
	s.says("client", "PASV\r\n")
	s.says("server", "227 (10,0,0,2,19,137)\r\n")
	if s.reads != "227 (10,0,0,2,19,137)\r\n" {
		t.Errorf("the client of an old connection reads %q", s.reads)
	}
	other := &ftpSession{script: s.script, client: "192.168.88.21:30101", seen: "192.168.88.21:30101"}
	other.opens()
	other.says("server", "220 ready\r\n")
	other.says("client", "PASV\r\n")
	edit(NoHelper)
	other.says("server", "227 (10,0,0,2,19,138)\r\n")
	if other.reads != "227 (192,168,88,23,19,138)\r\n" {
		t.Errorf("the client reads %q", other.reads)
	}
	other.says("server", "226 done\r\n")
	if err := s.rules.EditService(ServiceSpec{ServiceKey: ServiceKey{Proto: ProtoUDP, Addr: s.service.Addr, Port: 21}, Scheduler: "rr", Helper: HelperFTP}); err == nil {
		t.Error("a helper over UDP")
	}
}

// TestNoAllocsFTP: no command and no reply allocates, whether it is new or sent again,
// or in two parts, whether a data connection is expected, comes, or is given up.
func TestNoAllocsFTP(t *testing.T) {
	const runs = 100
	s := newFTPSession(t, "ftp", "192.168.88.21:30110")
	defer s.f.Close()
	s.says("server", "220 ready\r\n")
	var batches [runs + 1][]Packet
	clientSeq, serverSeq, shift := 1001, 5012, 0
	for i := range batches {
		add := func(text string) {
			b, off := encodePacket(text)
			p := Packet{Data: b, Offload: off, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}
			if b[12] == 10 {
				p.In = 1
			}
			batches[i] = append(batches[i], p)
		}
		client := func(line string) {
			add(fmt.Sprintf("tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=%d ack=%d sack=%d-%d %q", clientSeq, serverSeq+shift, serverSeq+shift, serverSeq+shift, line))
			clientSeq += len(line)
		}
		server := func(line string, longer int) {
			add(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=%d ack=%d %q", serverSeq, clientSeq, line))
			add(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=%d ack=%d %q", serverSeq, clientSeq, line))
			serverSeq += len(line)
			shift += longer
		}
		client("PASV\r\n")
		server(fmt.Sprintf("227 (10,0,0,2,19,%d)\r\n", 100+i%100), 5)
		add(fmt.Sprintf("tcp 192.168.88.21:%d > 192.168.88.23:%d S seq=1", 40000+i, 19*256+100+i%100))
		client("EPSV\r\n")
		server(fmt.Sprintf("229 (|||%d|)\r\n", 20000+i), 0)
		client(fmt.Sprintf("EPRT |1|192.168.88.21|%d|\r\n", 30000+i))
		add(fmt.Sprintf("tcp 10.0.0.2:20 > 192.168.88.21:%d S seq=1", 30000+i))
		add(fmt.Sprintf("tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=%d ack=%d %q", serverSeq, clientSeq, "227 (10,0,"))
	}
	i := 0
	if n := testing.AllocsPerRun(runs, func() {
		s.now = s.now.Add(10 * time.Second)
		s.f.Begin(s.now)
		for k := range batches[i] {
			v := s.f.Forward(&batches[i][k])
			if v.Action == Drop {
				t.Fatalf("packet %d of batch %d: %s", k, i, v.Reason)
			}
		}
		s.f.Outbox()
		s.f.Sweep(64)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s.f.ftp.find(s.f.table.Slot(s.f.table.At(0))).streams[conntrack.Outbound].edits.before == 0 {
		t.Error("nothing was edited")
	}
}

// BenchmarkFTP is what a control connection costs once it was edited: an
// acknowledgement that is renumbered, a command that was read before, a reply that
// becomes longer.
func BenchmarkFTP(b *testing.B) {
	s := newFTPSession(&testing.T{}, "ftp", "192.168.88.21:30110")
	defer s.f.Close()
	s.says("server", "220 ready\r\n")
	s.says("client", "PASV\r\n")
	s.says("server", "227 Entering Passive Mode (10,0,0,2,19,137).\r\n")
	for _, row := range []struct{ name, packet string }{
		{"acknowledgement", "tcp 192.168.88.21:30110 > 192.168.88.23:21 A seq=1007 ack=5063"},
		{"command", `tcp 192.168.88.21:30110 > 192.168.88.23:21 PA seq=1001 ack=5012 "PASV\r\n"`},
		{"reply", `tcp 10.0.0.2:21 > 192.168.88.21:30110 PA seq=5012 ack=1007 "227 Entering Passive Mode (10,0,0,2,19,137).\r\n"`},
	} {
		b.Run(row.name, func(b *testing.B) {
			data, _ := encodePacket(row.packet)
			var buffer [256]byte
			b.ReportAllocs()
			for b.Loop() {
				p := Packet{Data: buffer[:copy(buffer[:], data)], From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}
				if data[12] == 10 {
					p.In = 1
				}
				s.f.outbox.reset()
				s.f.Forward(&p)
			}
		})
	}
}
