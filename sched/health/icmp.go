// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"crypto/rand"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// icmpCheck pings.
type icmpCheck struct {
	addr  netip.Addr
	seq   int
	tools Tools
}

// EchoID is the identifier of our pings. It lies where no inside host's echo is
// given one, see package nat.
const EchoID = 62999 // see nat.HeldMax

// Check implements checker. The data of each echo is its own, since all pings of a
// host reach all who listen for them.
func (c *icmpCheck) Check(ctx context.Context) Result {
	network, proto := "ip4:icmp", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if c.addr.Is6() {
		network, proto = "ip6:ipv6-icmp", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	conn, err := c.tools.dial(ctx, network, netip.AddrPortFrom(c.addr, 0))
	if err != nil {
		return failed(ctx, "ping", err)
	}
	defer conn.Close()
	c.seq = (c.seq + 1) & 0xffff
	data := make([]byte, 16)
	if _, err := rand.Read(data); err != nil {
		return impossible("%v", err)
	}
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: EchoID, Seq: c.seq, Data: data}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return impossible("%v", err)
	}
	if _, err := conn.Write(packet); err != nil {
		return failed(ctx, "ping", err)
	}
	answer := make([]byte, 1500)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return failed(ctx, "ping", err)
		}
		m, err := icmp.ParseMessage(proto, answer[:n])
		if err != nil || m.Type != reply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.Seq == c.seq && string(echo.Data) == string(data) {
			return good("answered")
		}
	}
}
