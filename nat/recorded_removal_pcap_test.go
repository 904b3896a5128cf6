// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"testing"
	"time"
)

// TestRecordedRemovalCaptures sends what the client sent while a server was deleted,
// and what the servers then sent, which is what the client got, untranslated. Each
// packet that leaves must be the one captured, or nothing where nothing was.
func TestRecordedRemovalCaptures(t *testing.T) {
	for _, c := range []struct {
		file, port            string
		expire                int
		deleted, added, total int // numbers of packets: before which it happened, and of all
	}{
		{"removal-101.pcap", "101", 0, 22, 44, 53},
		{"removal-104.pcap", "104", 1, 22, 39, 44},
	} {
		t.Run(c.file, func(t *testing.T) {
			r := &removalReplay{t: t}
			r.begin(c.port, []string{"10.0.0.4", "10.0.0.3", "10.0.0.2"}, c.expire)
			list := readCapture(t, c.file, 0)
			if len(list) != c.total {
				t.Fatalf("%d packets", len(list))
			}
			server := map[uint16][4]byte{} // by the client's port
			var answers []captured
			for i, p := range list {
				switch i + 1 {
				case c.deleted:
					r.command("$ ipvsadm -d -t 192.168.88.23:" + c.port + " -r 10.0.0.2:" + c.port)
				case c.added:
					r.command("$ ipvsadm -a -t 192.168.88.23:" + c.port + " -r 10.0.0.2:" + c.port + " -m")
				}
				gone := i+1 >= c.deleted && i+1 < c.added
				if !p.sent {
					if p.data[8] == 64 { // from the director: it was an answer
						answers = checkAnswer(t, answers, p)
						continue
					}
					client := be16(p.data, 22)
					in := bytes.Clone(p.data)
					to := server[client]
					copy(in[12:], to[:])
					in[8]++
					fixChecksums(in)
					if v := r.forward(in, 1); v.Action != Forward || !bytes.Equal(in, p.data) {
						t.Fatalf("packet %d: %s %s\n%x\n%x", i+1, v.Action, v.Reason, in, p.data)
					}
					continue
				}
				in := bytes.Clone(p.data)
				v := r.forward(in, 0)
				for _, g := range r.s.f.Outbox() {
					answers = append(answers, captured{data: bytes.Clone(g.Packet.Data)})
				}
				client := be16(p.data, 20)
				if was, ok := server[client]; ok && was == [4]byte{10, 0, 0, 2} && gone {
					if v.Action != Drop {
						t.Fatalf("packet %d: %s", i+1, v.Action)
					}
					continue
				}
				if v.Action != Forward {
					t.Fatalf("packet %d: %s %s", i+1, v.Action, v.Reason)
				}
				server[client] = [4]byte(in[16:20])
			}
			if len(answers) != 0 {
				t.Errorf("%d answers that were not captured", len(answers))
			}
		})
	}
}

// TestRecordedServerDown: a client whose server does not answer ARP is not given
// another one (removal-108.pcap), and hears nothing until it is told.
func TestRecordedServerDown(t *testing.T) {
	r := &removalReplay{t: t}
	r.begin("108", []string{"10.0.0.9"}, 0)
	list := readCapture(t, "removal-108.pcap", 0)
	if len(list) != 3 {
		t.Fatalf("%d packets", len(list))
	}
	for i, p := range list {
		in := bytes.Clone(p.data)
		v := r.forward(in, 0)
		if v.Action != Forward || [4]byte(in[16:20]) != [4]byte{10, 0, 0, 9} || len(r.s.f.Outbox()) != 0 {
			t.Fatalf("SYN %d: %s %s to %v", i+1, v.Action, v.Reason, in[16:20])
		}
	}
	if n := r.s.f.Stats().Conns; n != 1 {
		t.Errorf("%d entries", n)
	}
}

func (r *removalReplay) forward(b []byte, port uint16) Verdict {
	r.s.now = r.s.now.Add(time.Millisecond)
	r.s.f.Begin(r.s.now)
	return r.s.f.Forward(&Packet{Data: b, In: port, From: [6]byte{2, 0, 0, 0, byte(port), b[15]}})
}

// checkAnswer compares what was captured with the oldest answer.
func checkAnswer(t *testing.T, answers []captured, p captured) []captured {
	t.Helper()
	if len(answers) == 0 || !bytes.Equal(answers[0].data, p.data) {
		t.Fatalf("captured %x\nanswered %+v", p.data, answers)
	}
	return answers[1:]
}

// fixChecksums computes those of a TCP segment.
func fixChecksums(b []byte) {
	b[10], b[11], b[36], b[37] = 0, 0, 0, 0
	sum := ^slowSum(b[:20])
	b[10], b[11] = byte(sum>>8), byte(sum)
	pseudo := pseudoBytes(addr(b[12:16]), addr(b[16:20]), true, protoTCP, len(b)-20)
	sum = ^slowSum(append(pseudo, b[20:]...))
	b[36], b[37] = byte(sum>>8), byte(sum)
}
