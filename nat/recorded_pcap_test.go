// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
)

// A captured packet: of the wire at one side of the director.
type captured struct {
	at   time.Time
	port uint16 // 0: the client's side
	data []byte // from the IP header on, as long as it was; zeros where the capture ends
	have int    // bytes that the capture has
	sent bool   // by a host; else by the director
}

// readCapture reads one side of a recording.
func readCapture(t *testing.T, file string, port uint16) []captured {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/recorded/pcap", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var list []captured
	for {
		b, info, err := r.ReadPacketData()
		if err != nil {
			return list
		}
		if binary.BigEndian.Uint16(b[12:]) != 0x0800 {
			continue // ARP
		}
		b = b[14:]
		c := captured{at: info.Timestamp, port: port, have: min(len(b), int(binary.BigEndian.Uint16(b[2:])))}
		c.data = make([]byte, binary.BigEndian.Uint16(b[2:]))
		copy(c.data, b)
		source := netip.AddrFrom4([4]byte(b[12:16]))
		c.sent = port == 0 && source == netip.MustParseAddr("192.168.88.21") || port == 1 && b[12] == 10
		list = append(list, c)
	}
}

// TestRecordedCaptures sends what hosts sent in 10-pcap, at the time and the side
// where they did, and compares what leaves on either side with what left there: each
// byte of what was forwarded, and of what the director said itself all but the IP
// id. Who serves a connection is taken from the capture.
func TestRecordedCaptures(t *testing.T) {
	captures := []struct {
		name   string
		reason map[int]string // number of a packet that the director sent, on either side
	}{
		{"tcp-client-closes", nil}, {"tcp-client-resets", nil}, {"tcp-server-closes", nil}, {"tcp-refused", nil},
		{"tcp-no-server", nil}, {"udp", nil}, {"icmp-echo-vip", nil}, {"snat-ipvs-flow", nil}, {"snat-own-traffic", nil},
		{"udp-port-unreachable", map[int]string{1: "quoted UDP checksum"}},
	}
	for _, c := range captures {
		t.Run(c.name, func(t *testing.T) {
			list := append(readCapture(t, c.name+"-client.pcap", 0), readCapture(t, c.name+"-server.pcap", 1)...)
			slices.SortStableFunc(list, func(a, b captured) int { return a.at.Compare(b.at) })
			s := newScript(t, c.name)
			servers := []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"}
			for _, service := range []string{"tcp 192.168.88.23:80 8080", "udp 192.168.88.23:53 5353", "tcp 192.168.88.23:81 "} {
				w := strings.Split(service, " ")
				s.step("service", w[0]+" "+w[1]+" sched rr")
				for _, a := range servers {
					if w[2] != "" {
						s.step("server", a+":"+w[2])
					}
				}
			}
			if strings.HasPrefix(c.name, "snat-") {
				s.step("snat", "10.0.0.0/24 192.168.88.23")
			}
			replayCapture(t, s, list, newDifferences(t, c.name, c.reason))
		})
	}
}

func replayCapture(t *testing.T, s *script, list []captured, differs *differences) {
	var want, got [2][]captured
	forwarded := 0
	for i, c := range list {
		if !c.sent {
			want[c.port] = append(want[c.port], c)
			continue
		}
		chosenIn(s, list[i:], c)
		f := s.forwarder()
		s.now = s.now.Add(time.Millisecond)
		f.Begin(s.now)
		p := Packet{Data: bytes.Clone(c.data), In: c.port, From: [6]byte{2, 0, 0, 0, byte(c.port), c.data[15]}}
		v := f.Forward(&p)
		if v.Action == Forward {
			forwarded++
			got[v.Port] = append(got[v.Port], captured{data: p.Data})
		}
		for _, g := range f.Outbox() {
			got[g.Verdict.Port] = append(got[g.Verdict.Port], captured{data: bytes.Clone(g.Packet.Data), sent: v.Action != Hold || c.data[9] == protoICMP})
		}
	}
	n := 0
	for port := range want {
		if len(want[port]) != len(got[port]) {
			t.Fatalf("%d packets on side %d, the kernel %d", len(got[port]), port, len(want[port]))
		}
		for i, w := range want[port] {
			g := got[port][i]
			n++
			if g.sent { // made here: an id of its own
				copy(g.data[4:6], w.data[4:6])
				ipv4Header(g.data).computeChecksum()
			}
			differs.compare(n, fmt.Sprintf("packet %d on side %d", i+1, port),
				decodePacket(w.data, Offload{})+fmt.Sprintf(" %x", w.data[:w.have]),
				decodePacket(g.data, Offload{})+fmt.Sprintf(" %x", g.data[:min(w.have, len(g.data))]))
		}
	}
	differs.done()
	if n == 0 {
		t.Error("nothing left")
	}
	recount(t, s.rules, s.f)
}

// chosenIn has the service choose the server that it chose in the recording: the
// destination of the packet that left when a client's first packet came.
func chosenIn(s *script, rest []captured, c captured) {
	if c.port != 0 || len(rest) < 2 {
		return
	}
	for _, o := range rest[1:] {
		if o.port == 1 && !o.sent && bytes.Equal(o.data[12:16], c.data[12:16]) && bytes.Equal(o.data[4:6], c.data[4:6]) {
			only(s, netip.AddrFrom4([4]byte(o.data[16:20])))
			return
		}
	}
}
