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
	part := TUNHostRules{Links: rules.Links}
	for _, a := range rules.Owned {
		if is(a) {
			part.Owned = append(part.Owned, a)
		}
	}
	for _, s := range rules.Services {
		if is(s.Addr) {
			part.Services = append(part.Services, s)
		}
	}
	for _, s := range rules.Servers {
		if is(s.Addr) {
			part.Servers = append(part.Servers, s)
		}
	}
	for _, p := range rules.Inside {
		if is(p.Addr()) {
			part.Inside = append(part.Inside, p)
		}
	}
	for _, p := range rules.SNAT {
		if is(p.Addr) {
			part.SNAT = append(part.SNAT, p)
		}
	}
	return part
}

// asks tells whether rules ask for anything.
func asks(r TUNHostRules) bool {
	return len(r.Owned)+len(r.Services)+len(r.Servers)+len(r.Inside)+len(r.SNAT) > 0
}

// sharedAddrs are the addresses of the host that services or SNAT ports of ours
// are on.
func sharedAddrs(rules TUNHostRules) []netip.Addr {
	var list []netip.Addr
	for _, s := range rules.Services {
		list = append(list, s.Addr)
	}
	for _, p := range rules.SNAT {
		list = append(list, p.Addr)
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return hasAddr(rules.Owned, a) })
	return sorted(list, netip.Addr.Compare)
}
