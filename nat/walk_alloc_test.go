// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// TestNoAllocs sends what packets there are, each a hundred times in a batch of
// its own, those with a comma between them one after the other: nothing on their
// way allocates. What becomes of the last is given.
func TestNoAllocs(t *testing.T) {
	const expect = "forward"
	tests := []struct{ name, packet, want string }{
		{"TCP in", "tcp 192.168.88.21:40000 > 192.168.88.23:80 PA seq=5001 ack=7001 data=100", expect},
		{"TCP out", "tcp 10.0.0.3:80 > 192.168.88.21:40000 PA seq=7001 ack=5001 data=100", expect},
		{"UDP in", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=9", expect},
		{"UDP out", "udp 10.0.0.2:5353 > 192.168.88.21:40000 data=9", expect},
		{"echo out", "icmp 10.0.0.7 > 203.0.113.9 echo-request id=7 data=8", expect},
		{"echo back", "icmp 203.0.113.9 > 192.168.88.23 echo-reply id=7 data=8", expect},
		{"hairpin", "tcp 10.0.0.7:40001 > 192.168.88.23:80 A seq=2 ack=1", expect},
		{"SCTP in", "sctp 192.168.88.21:40000 > 192.168.88.23:90 DATA tag=2 data=100", expect},
		{"SCTP out", "sctp 10.0.0.3:90 > 192.168.88.21:40000 SACK tag=1", expect},
		{"SCTP partial checksum", "sctp 10.0.0.3:90 > 192.168.88.21:40000 DATA tag=1 data=999 sum=partial", expect},
		{"new association", "sctp 192.168.88.21:{i} > 192.168.88.23:90 INIT", expect},
		{"new SNAT association", "sctp 10.0.0.8:{i} > 203.0.113.9:90 INIT", expect},
		{"ABORT", "sctp 192.168.88.21:40000 > 192.168.88.23:90 ABORT tag=2", expect},
		{"ABORT made", "sctp 192.168.88.21:1 > 192.168.88.23:90 DATA tag=9", "drop no-conn"},
		{"ABORT to a server made", "sctp 10.0.0.3:90 > 192.168.88.77:1 DATA tag=9", "drop stray-server-packet"},
		{"SCTP error in", "icmp 192.168.88.21 > 192.168.88.23 port-unreachable (sctp 192.168.88.23:90 > 192.168.88.21:40000 SACK tag=1)", expect},
		{"SCTP datagram", "frag 192.168.88.21 > 192.168.88.23 proto=132 off=1280 data=48 id={i}, sctp 192.168.88.21:40000 > 192.168.88.23:90 DATA data=1252 tag=2 mf id={i}", expect},
		{"IPv6 new association", "sctp [2001:db8:88::21]:{i} > [2001:db8:88::23]:90 INIT", expect},
		{"SNAT", "udp 10.0.0.7:7000 > 203.0.113.9:9000 data=4", expect},
		{"new connection", "tcp 192.168.88.21:{i} > 192.168.88.23:80 S seq=1", expect},
		{"new UDP flow", "udp 192.168.88.21:{i} > 192.168.88.23:53 data=1", expect},
		{"new SNAT flow", "udp 10.0.0.8:{i} > 203.0.113.9:9 data=1", expect},
		{"new hairpin", "tcp 10.0.0.8:{i} > 192.168.88.23:80 S seq=1", expect},
		{"new ping", "icmp 10.0.0.8 > 203.0.113.9 echo-request id={i} data=8", expect},
		{"error in", "icmp 192.168.88.21 > 192.168.88.23 port-unreachable (udp 192.168.88.23:53 > 192.168.88.21:40000 data=9)", expect},
		{"error out", "icmp 10.0.0.2 > 192.168.88.21 port-unreachable (udp 192.168.88.21:40000 > 10.0.0.2:5353 data=9)", expect},
		{"fragment", "udp 192.168.88.99:40000 > 192.168.88.23:53 data=1472 udplen=3000 mf id={i}", "hold"},
		{"fragment without ports", "frag 192.168.88.99 > 192.168.88.23 proto=17 off=1480 data=48 id={i}", "hold"},
		{"datagram", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=1272 udplen=1328 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=1280 data=48 id={i}", "hold"},
		{"datagram reversed", "frag 192.168.88.21 > 192.168.88.23 proto=17 off=1280 data=48 id={i}, udp 192.168.88.21:40000 > 192.168.88.23:53 data=1272 udplen=1328 mf id={i}", expect},
		{"datagram cut", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=1472 udplen=2960 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=1480 data=1480 id={i}", "hold"}, // the MTU is 1400
		{"datagram too big", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=1472 udplen=2960 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=1480 data=1480 df id={i}", "drop too-big"},
		{"datagram refused", "udp 192.168.88.21:40000 > 192.168.88.23:54 data=1472 udplen=1528 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=1480 data=48 id={i}", "drop no-service"},
		{"ping in fragments", "icmp 192.168.88.21 > 192.168.88.23 echo-request id=3 data=1472 mf ipid={i}, frag 192.168.88.21 > 192.168.88.23 proto=1 off=1480 data=48 id={i}", "hold"},
		{"direct routing", "tcp 192.168.88.21:40000 > 192.168.88.23:81 PA seq=5001 ack=7001 data=100", expect},
		{"new connection, direct routing", "tcp 192.168.88.21:{i} > 192.168.88.23:81 S seq=1", expect},
		{"error for a server, direct routing", "icmp 192.168.88.21 > 192.168.88.23 port-unreachable (tcp 192.168.88.23:81 > 192.168.88.21:40000 A)", expect},
		{"tunnel", "udp 192.168.88.21:40000 > 192.168.88.23:81 data=100", "hold"},
		{"tunnel, new flow", "udp 192.168.88.21:{i} > 192.168.88.23:81 data=100", "hold"},
		{"tunnel, cut", "udp 192.168.88.21:40000 > 192.168.88.23:81 data=1472", "hold"},
		{"tunnel, too big", "udp 192.168.88.21:40000 > 192.168.88.23:81 data=1472 df", "drop too-big"},
		{"tunnel, segments", "tcp 192.168.88.21:40000 > 192.168.88.23:82 PA seq=5001 ack=7001 data=60000 gso=1300 sum=partial", "hold"},
		{"tunnel, segments cut", "tcp 192.168.88.21:40000 > 192.168.88.23:82 PA seq=5001 ack=7001 data=6000 gso=1400 sum=partial", "hold"},
		{"tunnel, datagram", "udp 192.168.88.21:40000 > 192.168.88.23:81 data=1272 udplen=1328 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=1280 data=48 id={i}", "hold"},
		{"error about a tunnel", "icmp 10.0.0.9 > 10.0.0.1 time-exceeded (ipip 10.0.0.1 > 10.0.0.4 (udp 192.168.88.21:40000 > 192.168.88.23:81 data=9))", "hold"},
		{"tunnel out of room", "icmp 10.0.0.9 > 10.0.0.1 frag-needed mtu=1000 (gre 10.0.0.1 > 10.0.0.4 (tcp 192.168.88.21:40000 > 192.168.88.23:82 A seq=5001 df) gresum=ok)", "hold"},
		{"IPv6 GUE", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:81 PA seq=5001 ack=7001 data=100", "hold"},
		{"IPv6 in IPv4", "udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:81 data=100", "hold"},
		{"ping", "icmp 192.168.88.21 > 192.168.88.23 echo-request id=1 data=8", "hold"},
		{"host's", "tcp 192.168.88.21:1 > 192.168.88.99:80 S", "pass"},
		{"bad checksum", "tcp 192.168.88.21:1 > 192.168.88.23:80 S ipsum=bad", "drop ip-checksum"},
		{"bad source", "tcp 127.0.0.1:1 > 192.168.88.23:80 S", "drop bad-source"},
		{"land", "tcp 192.168.88.23:80 > 192.168.88.23:80 S", "drop land"},
		{"flags", "tcp 192.168.88.21:1 > 192.168.88.23:80 SF", "drop tcp-flags"},
		{"RST made", "tcp 192.168.88.21:1 > 192.168.88.23:80 A", "drop no-conn"},
		{"closed port", "udp 192.168.88.21:1 > 192.168.88.23:9 data=1", "drop no-service"},
		{"TTL", "tcp 192.168.88.21:40000 > 192.168.88.23:80 A ttl=1", "drop ttl"},
		{"too big", "tcp 192.168.88.21:40000 > 192.168.88.23:80 PA seq=5001 data=1460 df", "drop too-big"},
		{"cut", "tcp 192.168.88.21:40000 > 192.168.88.23:80 PA seq=5001 data=1460", "hold"},
		{"window", "tcp 192.168.88.21:40000 > 192.168.88.23:80 R seq=2000000000", "drop out-of-window"},
		{"stray", "tcp 10.0.0.3:80 > 192.168.88.77:1 A", "drop stray-server-packet"},
		{"unsolicited", "udp 198.51.100.1:1 > 192.168.88.23:7000 data=1", "drop unsolicited"},
		{"spoofed", "udp 10.0.0.7:1 > 192.168.88.23:53 data=1", "drop spoofed-source"},
		{"no connection", "icmp 192.168.88.21 > 192.168.88.23 port-unreachable (udp 192.168.88.23:53 > 192.168.88.21:9 data=9)", "drop icmp-no-conn"},
		{"overlap", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=1472 udplen=3000 mf id={i}, frag 192.168.88.21 > 192.168.88.23 proto=17 off=8 data=1480 id={i}", "drop fragment-overlap"},
		{"new by mark", "tcp 192.168.88.21:{i} > 192.168.88.23:2000 S seq=1", expect},
		{"new to a network", "udp 192.168.88.21:{i} > 203.0.113.6:8000 data=1", expect},
		{"to a network", "tcp 192.168.88.21:40000 > 203.0.113.5:8000 A seq=5001 ack=7001", expect},
		{"from a network", "tcp 10.0.0.3:8000 > 192.168.88.21:40000 A seq=7001 ack=5001", expect},
		{"error to a network", "icmp 192.168.88.9 > 203.0.113.5 host-unreachable (tcp 203.0.113.5:8000 > 192.168.88.21:40000 SA seq=7000)", expect},
		{"datagram to a network", "udp 192.168.88.21:40000 > 203.0.113.6:8000 data=1272 udplen=1328 mf id={i}, frag 192.168.88.21 > 203.0.113.6 proto=17 off=1280 data=48 id={i}", "hold"},
		{"beside a network", "tcp 192.168.88.21:{i} > 203.0.113.6:8001 S seq=1", "pass"},
		{"IPv6 to a network", "tcp [2001:db8:88::21]:{i} > [2001:db8:113::6]:8000 S seq=1", expect},
		{"new under a template", "tcp 192.168.88.21:{i} > 192.168.88.24:80 S seq=1", expect},
		{"new template", "tcp 203.0.113.{j}:40000 > 192.168.88.24:80 S seq=1", expect},
		{"one packet", "udp 192.168.88.21:{i} > 192.168.88.24:53 data=1", expect},
		{"answer", "udp 10.0.0.4:5353 > 192.168.88.21:{i} data=1", expect},
		{"answer in fragments", "udp 10.0.0.4:5353 > 192.168.88.21:40000 data=1272 udplen=1328 mf id={i}, frag 10.0.0.4 > 192.168.88.21 proto=17 off=1280 data=48 id={i}", "hold"},
		{"IPv6 one packet", "udp [2001:db8:88::21]:{i} > [2001:db8:88::24]:53 data=1", expect},
		{"IPv6 answer", "udp [fd00:10::4]:53 > [2001:db8:88::21]:{i} data=1", expect},
		{"one packet to a server of two services", "udp 192.168.88.21:{i} > 192.168.88.25:53 data=1", expect},
		{"again, of the other service", "udp 192.168.88.21:40000 > 192.168.88.26:53 data=1", expect},
		{"answer by an entry", "udp 10.0.0.5:53 > 192.168.88.21:40000 data=1", expect},
		{"one packet on one link", "udp 10.0.0.8:{i} > 192.168.88.24:53 data=1", expect},
		{"error about one packet", "icmp 10.0.0.4 > 192.168.88.21 port-unreachable (udp 192.168.88.21:40000 > 10.0.0.4:5353 data=9)", expect},
		{"IPv6 TCP in", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 PA seq=5001 ack=7001 data=100 ext=hop,dest", expect},
		{"IPv6 TCP out", "tcp [fd00:10::3]:80 > [2001:db8:88::21]:40000 PA seq=7001 ack=5001 data=100", expect},
		{"IPv6 new connection", "tcp [2001:db8:88::21]:{i} > [2001:db8:88::23]:80 S seq=1", expect},
		{"IPv6 new hairpin", "tcp [fd00:10::8]:{i} > [2001:db8:88::23]:80 S seq=1", expect},
		{"IPv6 new ping", "icmp fd00:10::8 > 2001:db8:113::9 echo-request id={i} data=8", expect},
		{"IPv6 error in", "icmp 2001:db8:88::21 > 2001:db8:88::23 port-unreachable (udp [2001:db8:88::23]:53 > [2001:db8:88::21]:40000 data=9)", expect},
		{"IPv6 error out", "icmp fd00:10::2 > 2001:db8:88::21 port-unreachable (udp [2001:db8:88::21]:40000 > [fd00:10::2]:5353 data=9)", expect},
		{"IPv6 fragment", "udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=1240 udplen=3000 mf id={i}", "hold"},
		{"IPv6 fragment without ports", "frag 2001:db8:88::99 > 2001:db8:88::23 proto=17 off=1448 data=48 id={i}", "hold"},
		{"IPv6 datagram", "udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=1240 udplen=1296 mf id={i}, frag 2001:db8:88::21 > 2001:db8:88::23 proto=17 off=1248 data=48 id={i}", "hold"},
		{"IPv6 datagram reversed", "frag 2001:db8:88::21 > 2001:db8:88::23 proto=17 off=1248 data=48 id={i}, udp [2001:db8:88::21]:40000 > [2001:db8:88::23]:53 data=1240 udplen=1296 mf id={i}", expect},
		{"IPv6 pinged", "icmp 2001:db8:88::21 > 2001:db8:88::23 echo-request id=1 data=8", "hold"},
		{"IPv6 hop limit", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 A ttl=1", "drop ttl"},
		{"IPv6 too big", "tcp [2001:db8:88::21]:40000 > [2001:db8:88::23]:80 PA seq=5001 data=1400", "drop too-big"},
		{"full NAT in", "tcp 192.168.88.21:40000 > 192.168.88.23:83 PA seq=5001 ack=7001 data=100", expect},
		{"full NAT out", "tcp 10.0.0.5:83 > 10.0.0.1:40000 PA seq=7001 ack=5001 data=100", expect},
		{"new full NAT", "tcp 192.168.88.21:{i} > 192.168.88.23:83 S seq=1", expect},
		{"new full NAT, port taken", "udp 192.168.88.{j}:40000 > 192.168.88.23:83 data=1", expect},
		{"SYN answered", "tcp 192.168.88.21:{i} > 192.168.88.23:83 S seq=1, tcp 10.0.0.5:83 > 10.0.0.1:{i} SA seq=1 ack=2", expect},
		{"SYN refused", "tcp 192.168.88.21:{i} > 192.168.88.23:83 S seq=1, tcp 10.0.0.5:83 > 10.0.0.1:{i} RA seq=0 ack=2", expect},
		{"full NAT error out", "icmp 10.0.0.5 > 10.0.0.1 port-unreachable (udp 10.0.0.1:40000 > 10.0.0.5:83 data=9)", expect},
		{"IPv6 new full NAT", "udp [2001:db8:88::21]:{i} > [2001:db8:88::23]:83 data=1", expect},
		{"IPv6 RST made", "tcp [2001:db8:88::21]:1 > [2001:db8:88::23]:80 A", "drop no-conn"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := world(t)
			defer s.f.Close()
			const runs = 100
			var batches [runs + 1][]Packet
			for i := range batches {
				for _, text := range strings.Split(strings.NewReplacer("{i}", fmt.Sprint(20000+i), "{j}", fmt.Sprint(100+i)).Replace(test.packet), ", ") {
					b, off := encodePacket(text)
					p := Packet{Data: b, Offload: off, From: conntrack.LinkAddr{2, 0, 0, 0, 0, 9}}
					if (b[0]>>4 == 4 && b[12] == 10 || b[0]>>4 == 6 && b[8] == 0xfd) && test.name != "spoofed" {
						p.In = 1
					}
					batches[i] = append(batches[i], p)
				}
			}
			i := 0
			allocs := testing.AllocsPerRun(runs, func() {
				s.now = s.now.Add(time.Millisecond)
				s.f.Begin(s.now)
				var v Verdict
				for k := range batches[i] {
					v = s.f.Forward(&batches[i][k])
				}
				s.f.Outbox()
				s.f.Sweep(64)
				if i == 0 {
					if got := verdictWords(v); got != test.want {
						t.Fatalf("%s, want %s", got, test.want)
					}
				}
				i++
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

// TestNoAllocsExpiry: neither does the end of connections.
func TestNoAllocsExpiry(t *testing.T) {
	s := world(t)
	defer s.f.Close()
	if n := testing.AllocsPerRun(10, func() {
		s.now = s.now.Add(time.Minute)
		s.f.Begin(s.now)
		for s.f.Sweep(1 << 20) {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s.f.table.Len() == s.f.Stats().MaxConns {
		t.Error("nothing ended")
	}
}

// TestImports: the data plane knows no sockets, no devices and no clock.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			for _, bad := range []string{"vsnat/iface", "x/sys", `"net"`, `"os"`, `"log`, "netlink"} {
				if strings.Contains(i.Path.Value, bad) {
					t.Errorf("%s imports %s", file, i.Path.Value)
				}
			}
		}
	}
}

// verdictWords says what became of a packet: "forward", "drop no-conn".
func verdictWords(v Verdict) string {
	if v.Action == Drop {
		return v.Action.String() + " " + v.Reason.String()
	}
	return v.Action.String()
}
