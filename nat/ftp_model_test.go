// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// The model of a control connection: two ends that send their stream in segments
// cut anyhow, lose some, send some twice, and acknowledge what has arrived. What
// arrives has to be the stream with its endpoints replaced, as a regular expression
// replaces them in the whole of it, byte for byte, whatever became of segments.

// modelEnd is one end: what it sends, and what it has received.
type modelEnd struct {
	addr, peer string // as it sees them
	first      uint32 // number of its first byte
	stream     []byte
	acked      int // bytes of it that the peer has acknowledged, in its own counting
	sent       int // bytes of it that were sent at least once
	received   []byte
	expected   []byte
}

var (
	modelReply = regexp.MustCompile(`(?m)^(227 [^(\n]*\()10,0,0,2(,\d+,\d+\))`)
	modelEPSV  = regexp.MustCompile(`(?m)^(229 [^(\n]*\()\|1\|10\.0\.0\.2(\|\d+\|\))`)
	modelPort  = regexp.MustCompile(`(?m)^(PORT )10,0,0,7(,\d+,\d+)`)
	modelEPRT  = regexp.MustCompile(`(?m)^(EPRT \|1\|)10\.0\.0\.7(\|\d+\|)`)
)

func modelReplies(r *rand.Rand) []byte {
	var b bytes.Buffer
	for range 3 + r.IntN(12) {
		port := 1024 + r.IntN(60000)
		switch r.IntN(8) {
		case 0, 1, 2:
			fmt.Fprintf(&b, "227 Entering Passive Mode (10,0,0,2,%d,%d).\r\n", port>>8, port&255)
		case 3:
			fmt.Fprintf(&b, "229 Entering Extended Passive Mode (|||%d|)\r\n", port)
		case 4:
			fmt.Fprintf(&b, "229 here (|1|10.0.0.2|%d|)\n", port)
		case 5:
			fmt.Fprintf(&b, "213-%s\r\n 227 (10,0,0,2,%d,1)\r\n213 end\r\n", strings.Repeat("x", r.IntN(200)), port>>8)
		case 6:
			fmt.Fprintf(&b, "227 elsewhere (203,0,113,9,%d,%d)\r\n", port>>8, port&255)
		case 7:
			fmt.Fprintf(&b, "200 %s\r\n", strings.Repeat("y", r.IntN(120)))
		}
	}
	return b.Bytes()
}

func modelCommands(r *rand.Rand, client string) []byte {
	var b bytes.Buffer
	for range 3 + r.IntN(12) {
		port := 1024 + r.IntN(60000)
		switch r.IntN(6) {
		case 0, 1:
			b.WriteString("PASV\r\n")
		case 2:
			b.WriteString("EPSV\r\n")
		case 3:
			fmt.Fprintf(&b, "PORT %s,%d,%d\r\n", strings.ReplaceAll(client, ".", ","), port>>8, port&255)
		case 4:
			fmt.Fprintf(&b, "EPRT |1|%s|%d|\r\n", client, port)
		case 5:
			fmt.Fprintf(&b, "STOR %s\r\n", strings.Repeat("z", r.IntN(120)))
		}
	}
	return b.Bytes()
}

// send has an end send a part of its stream, or an acknowledgement alone, and the
// other receive what leaves.
func (e *modelEnd) send(t *testing.T, s *ftpSession, r *rand.Rand, to *modelEnd) {
	from := e.acked
	if r.IntN(3) == 0 {
		from = e.acked + r.IntN(e.sent-e.acked+1) // not the oldest
	}
	n := min(len(e.stream)-from, []int{0, 1, 7, 40, 200, 1400}[r.IntN(6)])
	if n > 1 {
		n -= r.IntN(n)
	}
	if r.IntN(8) == 0 && e.sent > 0 {
		from, n = r.IntN(e.sent), 0 // an old segment without a word
	}
	e.sent = max(e.sent, from+n)
	ack := to.first + uint32(len(e.received))
	sum := []string{"ok", "partial"}[r.IntN(2)]
	text := fmt.Sprintf("tcp %s > %s A seq=%d ack=%d sum=%s", e.addr, e.peer, e.first+uint32(from), ack, sum)
	if n > 0 {
		text += fmt.Sprintf(" %q", e.stream[from:from+n])
	}
	if r.IntN(10) == 0 {
		return // lost before it has come to us
	}
	out := s.passes(text)
	if out == "" {
		return
	}
	_, f, _ := splitFields(out)
	if f["sum"] == "bad" || f["ipsum"] == "bad" {
		t.Fatalf("%s\nleaves as %s", text, out)
	}
	if r.IntN(10) == 0 {
		return // lost behind us
	}
	got := s.payload()
	at := int(int32(uint32(f.num("seq", 0)) - e.first))
	if len(got) > 0 && (at < 0 || at+len(got) > len(e.expected) || !bytes.Equal(got, e.expected[at:at+len(got)])) {
		t.Fatalf("%s\nleaves as %s\nwant %q at %d", text, out, e.expected[max(0, min(at, len(e.expected))):], at)
	}
	if at <= len(to.received) && at+len(got) > len(to.received) {
		to.received = append(to.received, got[len(to.received)-at:]...)
	}
	acked := int(int32(uint32(f.num("ack", 0)) - to.first))
	if acked < 0 || acked > to.sent {
		t.Fatalf("%s\nleaves as %s, which acknowledges %d of %d bytes sent", text, out, acked, to.sent)
	}
	to.acked = max(to.acked, acked)
}

func TestFTPModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 21))
		client := "192.168.88.21"
		if seed%2 == 1 {
			client = "10.0.0.7" // hairpin: its own lines change too
		}
		runFTPModel(t, r, client)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func runFTPModel(t *testing.T, r *rand.Rand, client string) {
	s := newFTPSession(t, "ftp", client+":30110")
	defer s.f.Close()
	c := &modelEnd{addr: client + ":30110", peer: "192.168.88.23:21", first: 1001, stream: modelCommands(r, client)}
	d := &modelEnd{addr: ftpRecordedServer, peer: s.seen, first: 5001, stream: append([]byte("220 ready\r\n"), modelReplies(r)...)}
	c.expected = c.stream
	if strings.HasPrefix(client, "10.") {
		c.expected = modelPort.ReplaceAll(c.expected, []byte("${1}192,168,88,23${2}"))
		c.expected = modelEPRT.ReplaceAll(c.expected, []byte("${1}192.168.88.23${2}"))
	}
	d.expected = modelReply.ReplaceAll(d.stream, []byte("${1}192,168,88,23${2}"))
	d.expected = modelEPSV.ReplaceAll(d.expected, []byte("${1}||${2}"))
	for steps := 0; len(c.received) < len(d.expected) || len(d.received) < len(c.expected); steps++ {
		if steps > 20000 {
			t.Fatalf("%d of %d, %d of %d bytes have arrived", len(c.received), len(d.expected), len(d.received), len(c.expected))
		}
		if steps < 40 || r.IntN(2) == 0 {
			d.send(t, s, r, c)
		}
		if len(c.received) >= len("220 ready\r\n") {
			c.send(t, s, r, d)
		}
	}
	for d.acked < len(d.stream) || c.acked < len(c.stream) {
		c.send(t, s, r, d)
		d.send(t, s, r, c)
	}
	if s.f.table.Len() > 2 {
		t.Fatalf("%d entries", s.f.table.Len())
	}
	s.step("advance", "1h")
	s.step("advance", "1h")
	recount(t, s.rules, s.f)
	if s.f.table.Len() != 0 || s.f.mapper.used != 0 || s.f.ftp.waiting != 0 || s.f.ftp.find(0) != nil {
		t.Fatalf("%d entries, %d mappings, %d waiting are left", s.f.table.Len(), s.f.mapper.used, s.f.ftp.waiting)
	}
}

// pour has an end send text in segments of so many bytes, the last for all the rest, and
// go on behind what is acknowledged to it. It returns what the other end has received.
func (s *ftpSession) pour(who, text string, cuts []byte) (got string) {
	from, to, other := s.client, "192.168.88.23:21", ftpRecordedServer
	back, otherName := s.seen, "server"
	if who == "server" {
		from, to, other, back, otherName = ftpRecordedServer, s.seen, s.client, "192.168.88.23:21", "client"
	}
	sent, received := s.sent[who], s.received[otherName]
	for at := 0; at < len(text); {
		n := len(text) - at
		if len(cuts) > 0 {
			n, cuts = min(n, 1+int(cuts[0])), cuts[1:]
		}
		out := s.passes(fmt.Sprintf("tcp %s > %s PA seq=%d ack=%d %q", from, to, sent+at, s.received[who], text[at:at+n]))
		_, f, _ := splitFields(out)
		if out == "" || strings.Contains(out, "=bad") {
			s.t.Fatalf("%q in %q leaves as %q", text[at:at+n], text, out)
		}
		data, place := s.payload(), f.num("seq", 0)-received
		switch {
		case len(data) > 0 && place != len(got), len(data) == 0 && place != len(got)-1:
			s.t.Fatalf("%q in %q is at %d, want %d", text[at:at+n], text, place, len(got))
		}
		got += string(data)
		_, f, _ = splitFields(s.passes(fmt.Sprintf("tcp %s > %s A seq=%d ack=%d", other, back, s.sent[otherName], received+len(got))))
		acked := f.num("ack", 0) - sent
		if acked <= at || acked > at+n {
			s.t.Fatalf("%q in %q: up to %d of %d to %d is acknowledged", text[at:at+n], text, acked, at, at+n)
		}
		at = acked
	}
	s.sent[who] += len(text)
	s.received[otherName] += len(got)
	return got
}

// FuzzFTPControl has both ends say anything, cut anyhow. Something of each segment is
// acknowledged, and what arrives is the same as if all had come in one.
func FuzzFTPControl(f *testing.F) {
	f.Add("PASV\r\n", "227 Entering Passive Mode (10,0,0,2,19,137).\r\n226 done\r\n", []byte{5, 30, 3})
	f.Add("EPSV\r\nPASV\r\n", "229 (|1|10.0.0.2|5001|)\r\n213-x\r\n227 (10,0,0,2,1,1)\r\n213 x\r\n227 10,0,0,2,4,4 \n", []byte{1})
	f.Add("PORT 192,168,88,21,23,113\r\n", "200 ok\r\n234 go on\r\n227 10,0,0,2,4,4 \n", []byte{0, 9})
	f.Add("PORT 10,0,0,7,23,113  \r\nEPRT |1|10.0.0.7|6000|\r\nPORT 10,0,0,7,4000,1\n", "227 =1,2,3000,10,0,0,2,1,1\n227 (10,0,0,2,4,4", bytes.Repeat([]byte{0}, 80))
	f.Add("EPRT |2|2001:db8:1111:2222:3333:4444:255.255.255.255|65535|      \r\n", "229 ((|||5000|)\n229 (|1|10.0.0.2|x|(|||5000|)\n", []byte{58, 1, 1, 1})
	f.Add("", strings.Repeat("227 (10,0,0,2,9,9)\n", 9), []byte{})
	sessions := [2]*ftpSession{}
	for i, client := range []string{"192.168.88.21:30110", "10.0.0.7:30110"} {
		sessions[i] = newFTPSession(&testing.T{}, "ftp", client)
	}
	f.Fuzz(func(t *testing.T, commands, replies string, cuts []byte) {
		commands, replies = commands[:min(len(commands), 1000)], replies[:min(len(replies), 1000)]
		for _, s := range sessions {
			s.t = t
			read := func(cuts []byte) [2]string {
				end(s.script)
				s.opens()
				s.says("server", "220 ready\r\n")
				got := [2]string{s.pour("client", commands, cuts), s.pour("server", replies, cuts)}
				if n := s.f.table.Len(); n > 3 {
					t.Fatalf("%d entries", n)
				}
				return got
			}
			if want, got := read(nil), read(cuts); got != want {
				t.Fatalf("in parts %q, at once %q", got, want)
			}
		}
	})
}
