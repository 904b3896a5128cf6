// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// The kernel has rules, routes, proxy entries and settings once for each family
// of addresses; this is what tells them apart.

// tunHostFamilies are those that the kernel has.
func tunHostFamilies() []int {
	families := []int{unix.AF_INET}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		families = append(families, unix.AF_INET6)
	}
	return families
}

// familyOf is the kernel's number for the family of an address.
func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ofFamily is the part of normal rules that has addresses of a family.
func ofFamily(rules TUNHostRules, family int) TUNHostRules {
	is := func(a netip.Addr) bool { return familyOf(a) == family }
	return TUNHostRules{
		Links:       rules.Links,
		Owned:       those(rules.Owned, is),
		Host:        those(rules.Host, is),
		Services:    those(rules.Services, func(s GuardService) bool { return is(s.Addr) }),
		Servers:     those(rules.Servers, func(s GuardService) bool { return is(s.Addr) }),
		ServerPorts: those(rules.ServerPorts, func(p GuardRange) bool { return is(p.Addr) }),
		SNAT:        those(rules.SNAT, func(p GuardPorts) bool { return is(p.Addr) }),
		Inside:      those(rules.Inside, func(p netip.Prefix) bool { return is(p.Addr()) }),
		Marked:      those(rules.Marked, func(m GuardMark) bool { return is(m.To.Addr()) }),
	}
}

// those are the ones of a list that something holds for.
func those[T any](list []T, holds func(T) bool) (some []T) {
	for _, v := range list {
		if holds(v) {
			some = append(some, v)
		}
	}
	return some
}

// asks tells whether rules ask for anything.
func asks(r TUNHostRules) bool {
	return len(r.Owned)+len(r.Services)+len(r.Servers)+len(r.ServerPorts)+len(r.Inside)+len(r.SNAT)+len(r.Marked) > 0
}

// sharedAddrs are the addresses of the host that services or SNAT ports of ours
// are on, or that are in marked networks.
func sharedAddrs(rules TUNHostRules) []netip.Addr {
	var list []netip.Addr
	for _, s := range rules.Services {
		list = append(list, s.Addr)
	}
	for _, p := range rules.SNAT {
		list = append(list, p.Addr)
	}
	for _, a := range rules.Host {
		if a.IsGlobalUnicast() && slices.ContainsFunc(rules.Marked, func(m GuardMark) bool { return m.To.Contains(a) }) {
			list = append(list, a)
		}
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return hasAddr(rules.Owned, a) })
	return sorted(list, netip.Addr.Compare)
}
