// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
)

// The links, and what is reached by them.

func links(e *examination) {
	for _, err := range joined(e.plan.refused) {
		var u *iface.UnservedError
		if errors.As(err, &u) {
			e.find(Failure, u.Hint, fmt.Sprintf("interface %s %s", u.Name, u.Reason))
			continue
		}
		e.find(Failure, "", firstLine(err))
	}
	if len(e.plan.served) == 0 {
		e.find(Failure, "", "no link can be served")
	}
	for _, l := range e.facts.topology.Links {
		switch {
		case !l.Ethernet || l.Loopback:
		case !l.AdminUp && len(l.Addrs) > 0:
			e.find(Warning, "ip link set "+l.Name+" up", fmt.Sprintf("%s has an address, but is down", l.Name))
		case e.plan.serves(l) && !l.Up:
			e.find(Failure, "ip link show "+l.Name, fmt.Sprintf("%s has no carrier: its cable, or the other end, is not there", l.Name))
		}
		for _, o := range e.plan.ours {
			if o.addr.Is6() && e.plan.serves(l) && e.facts.sysctl("net/ipv6/conf/"+l.Name+"/disable_ipv6") == "1" {
				e.find(Failure, "sysctl -w net.ipv6.conf."+l.Name+".disable_ipv6=0", fmt.Sprintf("IPv6 is switched off on %s, and %v is to be served", l.Name, o.addr))
				break
			}
		}
	}
}

// joined takes an error apart that errors.Join made.
func joined(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// offloads looks for what a driver does to frames that cannot be undone.
func offloads(e *examination) {
	for _, l := range e.plan.served {
		if e.facts.lro[l.Name] {
			e.find(Warning, "ethtool -K "+l.Name+" lro off", fmt.Sprintf("%s merges segments for good (LRO): they cannot be passed on as they were", l.Name))
		}
		if e.facts.xdp[l.Name] {
			e.find(Warning, "ip link set dev "+l.Name+" xdp off", fmt.Sprintf("an XDP program on %s sees frames first, and may keep them", l.Name))
		}
	}
}

// mtus compares the links that clients come by to those of the servers.
func mtus(e *examination) {
	front := make(map[string]iface.Link)
	for _, o := range e.plan.ours {
		if o.link.Index != 0 && slices.ContainsFunc(e.plan.cfg.Services, func(s config.Service) bool { return !s.ByMark() && s.Address.Addr() == o.addr }) {
			front[o.link.Name] = o.link
		}
	}
	told := make(map[string]bool)
	for _, s := range e.plan.servers {
		for _, f := range front {
			pair := f.Name + " " + s.link.Name
			if s.link.Index == 0 || f.MTU == s.link.MTU || told[pair] {
				continue
			}
			told[pair] = true
			small, large := f, s.link
			if small.MTU > large.MTU {
				small, large = large, small
			}
			e.find(Warning, fmt.Sprintf("ip link set dev %s mtu %d", small.Name, large.MTU),
				fmt.Sprintf("%s takes packets of %d bytes, %s of %d: whoever sends larger ones depends on ICMP getting through", small.Name, small.MTU, large.Name, large.MTU))
		}
	}
}

// addresses looks for other stations that have an address of ours.
func addresses(e *examination) {
	for _, o := range e.plan.ours {
		for _, mac := range e.answers.stations[place{o.link.Index, o.addr}] {
			if slices.ContainsFunc(e.facts.topology.Links, func(l iface.Link) bool { return l.MAC == mac }) || e.sharedBy(o.addr, mac) {
				continue
			}
			e.findAt(conntrack.LinkAddr(mac).String(), Failure, dropAddress(o.addr),
				fmt.Sprintf("%v is ours, but %s on %s has it too: some clients get there", o.addr, conntrack.LinkAddr(mac), o.link.Name))
		}
	}
}

// dropAddress is the command that takes an address from a host, whatever its link and the
// length of its network.
func dropAddress(a netip.Addr) string {
	if a.Is6() {
		return "ip -6 addr flush to " + a.String()
	}
	return "ip addr flush to " + a.String()
}

// sharedBy reports whether mac is that of a server that has the address itself,
// which is judged by directServers.
func (e *examination) sharedBy(addr netip.Addr, mac [6]byte) bool {
	return slices.ContainsFunc(e.plan.servers, func(s *server) bool {
		return slices.Contains(s.virtual, addr) && slices.Contains(e.answers.stations[s.station()], mac)
	})
}

func routes(e *examination) {
	for _, s := range e.plan.servers {
		if s.link.Index == 0 {
			e.find(Failure, fmt.Sprintf("ip route add %v via ROUTER", netip.PrefixFrom(s.addr, s.addr.BitLen())),
				fmt.Sprintf("there is no way to server %v", s.addr))
		} else if !e.plan.serves(s.link) {
			e.find(Failure, "interfaces: auto", fmt.Sprintf("server %v is reached by %s, which is not served", s.addr, s.link.Name))
		}
	}
}
