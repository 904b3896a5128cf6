// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import "fmt"

// connTitle writes the header lines of a connection listing.
func (p *printer) connTitle() {
	fmt.Fprintln(p.w, "IPVS connection entries")
	if p.View == PersistentView {
		fmt.Fprintf(p.w, "pro expire %-11s %-18s %-18s %-18s %-16s %s\n",
			"state", "source", "virtual", "destination", "pe name", "pe_data")
		return
	}
	fmt.Fprintf(p.w, "pro expire %-11s %-18s %-18s %s\n", "state", "source", "virtual", "destination")
}

// conn writes a connection. The time left is minutes and seconds, rounded down;
// an entry that is over but not yet gone has none left.
func (p *printer) conn(c *Conn) {
	proto := map[string]uint8{"TCP": tcp, "UDP": udp, "SCTP": sctp}[c.Proto]
	left := int(max(c.Expires.Seconds(), 0))
	expire := fmt.Sprintf("%02d:%02d", left/60, left%60)
	client := p.address(c.Client.Addr(), c.Client.Port(), proto)
	virtual := p.address(c.Virtual.Addr(), c.Virtual.Port(), proto)
	server := p.address(c.Server.Addr(), c.Server.Port(), proto)
	if p.View == PersistentView && c.Engine != "" {
		fmt.Fprintf(p.w, "%-3s %-6s %-11s %-18s %-18s %-16s %-18s %s\n",
			c.Proto, expire, c.State, client, virtual, server, c.Engine, c.EngineData)
		return
	}
	fmt.Fprintf(p.w, "%-3s %-6s %-11s %-18s %-18s %s\n", c.Proto, expire, c.State, client, virtual, server)
}
