// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// What mark rules mean to the host: packets to networks that are to be read, and
// what its own stack must not get.

// fewPorts is up to how many ports of a rule are guarded one by one, which every
// guard can do, and not as a range.
const fewPorts = 16

// markedNetworks lists the networks that rules take packets to.
func markedNetworks(r *nat.Rules) []netip.Prefix {
	var list []netip.Prefix
	for _, m := range r.MarkedTraffic() {
		if !m.To.IsSingleIP() {
			list = append(list, m.To)
		}
	}
	return list
}

// guardMarked adds what rules take, but for what goes to an address that is ours
// alone. Ports of an address of the host, whoever asks for them, are those of a
// service to a guard.
func guardMarked(g *iface.GuardRules, r *nat.Rules, onHost map[netip.Addr]bool) {
	for _, m := range r.MarkedTraffic() {
		if m.To.IsSingleIP() && !onHost[m.To.Addr()] {
			continue
		}
		ports := int(m.MaxPort) - int(m.MinPort) + 1
		if !m.To.IsSingleIP() || m.From.Bits() > 0 || m.Link != "" || ports > fewPorts {
			g.Marked = append(g.Marked, iface.GuardMark{
				Proto: m.Proto, From: m.From, To: m.To, Min: m.MinPort, Max: m.MaxPort, Link: m.Link,
			})
			continue
		}
		for _, proto := range m.Protocols() {
			for i := range ports { // port 0 is all, to a guard too
				g.Services = append(g.Services, iface.GuardService{Proto: proto, Addr: m.To.Addr(), Port: m.MinPort + uint16(i)})
			}
		}
	}
}

// guardServers adds where real servers serve.
func guardServers(g *iface.GuardRules, r *nat.Rules) {
	for _, p := range r.ServerPorts() {
		switch {
		case p.Min == p.Max:
			g.Servers = append(g.Servers, iface.GuardService{Proto: p.Proto, Addr: p.Addr, Port: p.Min})
		case p.Min == 1 && p.Max == 65535:
			g.Servers = append(g.Servers, iface.GuardService{Proto: p.Proto, Addr: p.Addr})
		default:
			g.ServerPorts = append(g.ServerPorts, iface.GuardRange{Proto: p.Proto, Addr: p.Addr, Min: p.Min, Max: p.Max})
		}
	}
}

// linksUnseen tells of rules that name a link, which nobody sees behind a TUN
// device.
func linksUnseen(r *nat.Rules) (problems []string) {
	for _, m := range r.Marks() {
		if m.Link != "" {
			problems = append(problems, fmt.Sprintf("%s: matches nothing, since with io: tun all packets come by one device", m))
		}
	}
	return problems
}
