// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	udpTitle  = regexp.MustCompile(`^## (UDP|-o,) (\w+)(?: ([\d,]+))?: `)
	udpServer = regexp.MustCompile(`^(?:([\d.]+)->)?(?:rs)?(\d)(?:\(|$)`)
)

// UDP flows are never active, and with -o each datagram is a flow that is over at
// once. Here the servers had been added in the order .4 .3 .2, and are called 1 for
// .2 and so on.
func TestRecordedUDP(t *testing.T) {
	b, err := os.ReadFile("testdata/ipvs/udp.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines, replayed := strings.Split(string(b), "\n"), 0
	for i, line := range lines {
		m := udpTitle.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		replayed++
		t.Run(line, func(t *testing.T) {
			r := newReplay(t, m[2])
			if m[3] == "" {
				m[3] = "1,1,1"
			}
			r.weights(m[3], "4,3,2")
			want := strings.ReplaceAll(strings.TrimPrefix(lines[i+1], "@ "), "(answer from ", "(")
			var got []string
			for n, word := range strings.Fields(want) {
				w := udpServer.FindStringSubmatch(word)
				if w == nil {
					t.Fatalf("unreadable: %s", word)
				}
				client := netip.MustParseAddr("192.168.88.21")
				if w[1] != "" {
					client = netip.MustParseAddr(w[1])
				}
				s := r.pool.Schedule(&Request{Proto: 17, Client: netip.AddrPortFrom(client, uint16(6000+n))})
				if s == nil {
					t.Fatal("refused")
				}
				s.ConnOpened()
				if m[1] == "-o," {
					s.ConnClosedInactive()
				}
				if got = append(got, fmt.Sprint(s.Addr.Addr().As4()[3]-1)); got[len(got)-1] != w[2] {
					t.Fatalf("datagram %d: %v, want %s of %s", n, got, w[2], want)
				}
			}
		})
	}
	if replayed != 8 {
		t.Errorf("%d passages, want 8", replayed)
	}
}
