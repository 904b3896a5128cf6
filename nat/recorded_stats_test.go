// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"regexp"
	"testing"
)

// TestRecordedStats: what each packet adds to the counters of service and server.
func TestRecordedStats(t *testing.T) {
	const client, virtual, server = "192.168.88.21:40000", "192.168.88.23:80", "10.0.0.2:8080"
	in := func(rest string) string { return "tcp " + client + " > " + virtual + " " + rest }
	out := func(rest string) string { return "tcp " + server + " > " + client + " " + rest }
	packets := map[string]string{
		"SYN":                          in("S seq=5000"),
		"SYN again":                    in("S seq=5000"),
		"SYN+ACK":                      out("SA seq=7000 ack=5001"),
		"ACK":                          in("A seq=5001 ack=7001"),
		"100 bytes from the client":    in("PA seq=5001 ack=7001 data=100"),
		"1000 bytes from the server":   out("PA seq=7001 ack=5101 data=1000"),
		"ACK for no entry":             "tcp 192.168.88.21:40001 > " + virtual + " A seq=5001 ack=7001",
		"FIN from the client":          in("FA seq=5101 ack=8001"),
		"FIN from the server":          out("FA seq=8001 ack=5102"),
		"SYN on the same tuple":        in("S seq=900000"),
		"RST":                          in("R seq=900001"),
		"segment with a bad TCP":       in("PA seq=5001 ack=7001 data=100 sum=bad"),
		"frag-needed from the client":  "icmp 192.168.88.21 > 192.168.88.23 frag-needed mtu=1400 (tcp " + virtual + " > " + client + " PA seq=7001 ack=5101 data=1000) cut=28",
		"port unreachable from the se": "icmp 10.0.0.2 > 192.168.88.21 port-unreachable (tcp " + client + " > " + server + " PA seq=5001 data=100) cut=28",
	}
	form := regexp.MustCompile(`^(.*\S) +\( *(\d+) bytes\) conns inpkts outpkts inbytes outbytes: (.*)$`)
	s := newScript(t, "stats")
	s.step("service", "tcp "+virtual+" sched rr")
	s.step("server", server)
	n := 0
	for _, line := range recording(t, "testdata/recorded/stats.txt") {
		m := form.FindStringSubmatch(line.text)
		if m == nil {
			continue
		}
		n++
		packet := ""
		for name, p := range packets {
			if m[1] == name || len(name) > 20 && len(m[1]) > len(name) && m[1][:len(name)] == name {
				packet = p
			}
		}
		if packet == "" {
			t.Fatalf("no packet for %q", m[1])
		}
		s.arrive("", packet)
		stats := s.f.Stats()
		v := s.rules.Services()[0]
		for what, c := range map[string]Counters{"service": stats.Services[v.Slot], "server": stats.Servers[v.Servers[0].Slot]} {
			got := fmt.Sprintf("%d %d %d %d %d", c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes)
			if got != m[3] {
				t.Errorf("%s: %s: %s, the kernel %s", m[1], what, got, m[3])
			}
		}
	}
	if n != 15 {
		t.Errorf("%d packets", n)
	}
}
