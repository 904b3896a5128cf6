// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// BenchmarkForwardEcho is pings of the inside hosts, and the replies: of connections
// that are there, each of another one.
func BenchmarkForwardEcho(b *testing.B) {
	const n = 1024 // whole batches
	for _, kind := range []struct{ name, request, reply string }{
		{"echo4", "icmp 10.0.0.7 > 203.0.113.9 echo-request id=%d", "icmp 203.0.113.9 > 192.168.88.23 echo-reply id=%d"},
		{"echo6", "icmp fd00:10::7 > 2001:db8:113::9 echo-request id=%d", "icmp 2001:db8:113::9 > 2001:db8:88::23 echo-reply id=%d"},
	} {
		b.Run(kind.name, func(b *testing.B) {
			g := newRig(b, n)
			requests, replies := make([]shortPacket, n), make([]shortPacket, n)
			length := 0
			for i := range n {
				request := template(fmt.Sprintf(kind.request, i+1))
				length = copy(requests[i][:], request)
				if v := g.forward(request, 1); v.Action != Forward {
					b.Fatal(v.Action, v.Reason)
				}
				id := icmpHeader(g.buffer[length-icmpHeaderLen:]).id() // as it left
				copy(replies[i][:], template(fmt.Sprintf(kind.reply, id)))
			}
			b.Run(conntrack.Outbound.String(), func(b *testing.B) { g.hits(b, requests, length, 1, 64) })
			b.Run(conntrack.Inbound.String(), func(b *testing.B) { g.hits(b, replies, length, 0, 64) })
		})
	}
}
