// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
)

// What the servers' answers mean.

// asked goes through the servers that could be asked.
func (e *examination) asked(judge func(*server, *serverAnswers)) {
	for _, s := range e.plan.servers {
		if a := e.answers.servers[s.addr]; a != nil {
			judge(s, a)
		}
	}
}

// answering looks whether each server is there, once, and serves.
func answering(e *examination) {
	e.asked(func(s *server, a *serverAnswers) {
		macs := e.answers.stations[s.station()]
		switch {
		case len(macs) == 0 && s.hop == s.addr:
			e.findAt(s.addr.String(), Failure, "ip addr show", fmt.Sprintf("server %v does not say that it is there: nobody answers for it on %s", s.addr, s.link.Name))
			return
		case len(macs) == 0:
			e.findAt(s.hop.String(), Failure, "ip addr show", fmt.Sprintf("server %v is behind %v, which does not answer on %s", s.addr, s.hop, s.link.Name))
			return
		case len(macs) > 1:
			var names []string
			for _, m := range macs {
				names = append(names, conntrack.LinkAddr(m).String())
			}
			e.findAt("the one that is not "+s.hop.String(), Failure, dropAddress(s.hop), fmt.Sprintf("%v is the address of %d stations: %s", s.hop, len(macs), strings.Join(names, ", ")))
		}
		if !s.masked || !s.inside.IsValid() {
			return
		}
		if !a.heardInside() {
			e.findAt(s.addr.String(), Failure, "nft list ruleset", fmt.Sprintf("server %v answers neither ping nor connections of %v", s.addr, s.inside))
			return
		}
		for _, p := range s.ports {
			if p.Proto != control.TCP {
				continue
			}
			switch a.inside.ports[p.Address.Port()] {
			case refused:
				e.findAt(s.addr.String(), Failure, fmt.Sprintf("ss -ltn 'sport = :%d'", p.Address.Port()), fmt.Sprintf("server %v refuses connections: nobody listens there", p.Address))
			case silent:
				e.findAt(s.addr.String(), Failure, "nft list ruleset", fmt.Sprintf("server %v does not answer connections, although the host is there: a firewall?", p.Address))
			}
		}
	})
	for _, s := range e.plan.servers {
		if s.link.Index == 0 || !s.masked {
			continue
		}
		if !e.facts.permitted() {
			e.find(Unknown, "sudo vsnat doctor", "the servers were not asked: only root may")
			return
		}
		if !s.inside.IsValid() {
			e.find(Unknown, "vsnat run -c FILE", fmt.Sprintf("server %v was not asked: this host has no address in its network, and no director runs that has", s.addr))
		}
	}
}

// gateways looks for servers that answer by somebody else.
func gateways(e *examination) {
	e.asked(func(s *server, a *serverAnswers) {
		if !s.masked || !s.outside.IsValid() || !a.heardInside() || a.heardOutside() {
			return
		}
		gateway := s.inside
		e.findAt(s.addr.String(), Failure, fmt.Sprintf("ip route replace default via %v", gateway),
			fmt.Sprintf("server %v answers %v, but not %v: its answers go elsewhere, its gateway is not %v", s.addr, s.inside, s.outside, gateway))
	})
}

// serverMTUs looks for servers that do not take what their link takes here.
func serverMTUs(e *examination) {
	e.asked(func(s *server, a *serverAnswers) {
		if s.masked && a.inside.echo && !a.inside.large {
			e.findAt(s.addr.String(), Failure, fmt.Sprintf("ip link set dev LINK mtu %d", s.link.MTU),
				fmt.Sprintf("server %v answers small packets, but none of %d bytes, the MTU of %s: large ones are lost on the way", s.addr, s.link.MTU, s.link.Name))
		}
	})
}

// directServers looks whether servers that get packets as they are have the
// virtual address, and keep it to themselves.
func directServers(e *examination) {
	e.asked(func(s *server, a *serverAnswers) {
		for _, vip := range s.virtual {
			own := e.answers.stations[s.station()]
			if slices.ContainsFunc(e.answers.stations[place{s.link.Index, vip}], func(m [6]byte) bool { return slices.Contains(own, m) }) {
				e.findAt(s.addr.String(), Failure, "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
					fmt.Sprintf("server %v answers for %v on %s: clients get to it past the director", s.addr, vip, s.link.Name))
			}
			if a.heardInside() && !a.virtual[vip] {
				e.findAt(s.addr.String(), Failure, fmt.Sprintf("ip addr add %v dev lo", netip.PrefixFrom(vip, vip.BitLen())),
					fmt.Sprintf("server %v gets packets for %v as they are, but does not have that address", s.addr, vip))
			}
		}
	})
}
