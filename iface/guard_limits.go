// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// transitLimits says what happens to packets that are not for an address of
// the host when nothing is put in their way: with forwarding off the host
// discards them without a word, with forwarding on it sends them on.
func transitLimits(rules GuardRules) []string {
	var limits []string
	for _, f := range []struct {
		setting string
		is      func(netip.Addr) bool
	}{
		{"net/ipv4/ip_forward", netip.Addr.Is4},
		{"net/ipv6/conf/all/forwarding", netip.Addr.Is6},
	} {
		if setting, err := readSysctl(f.setting); err != nil || setting == "0" {
			continue
		}
		name := strings.ReplaceAll(f.setting, "/", ".")
		const hint = "; set it to 0, or use a guard that can drop (nft)"
		if n := countFunc(rules.Owned, f.is); n > 0 {
			limits = append(limits, fmt.Sprintf("%s is 1: the host also routes what arrives for %d owned addresses%s", name, n, hint))
		}
		if n := countFunc(rules.Marked, func(m GuardMark) bool { return f.is(m.To.Addr()) && !m.To.IsSingleIP() }); n > 0 {
			limits = append(limits, fmt.Sprintf("%s is 1: the host also routes what %d mark rules take%s", name, n, hint))
		}
		servers := countFunc(rules.servers(), f.is)
		inside := countFunc(rules.Inside, func(p netip.Prefix) bool { return f.is(p.Addr()) })
		if servers+inside > 0 {
			limits = append(limits, fmt.Sprintf("%s is 1: the host also forwards, untranslated, what %d real servers and %d inside networks send%s", name, servers, inside, hint))
		}
	}
	for _, m := range rules.Marked {
		if slices.ContainsFunc(rules.Host, m.To.Contains) {
			limits = append(limits, fmt.Sprintf("the host itself answers on its addresses what a mark rule takes, %s; use an address the host does not have, or a guard that can drop (nft)", m))
		}
	}
	if len(rules.SNAT) > 0 {
		limits = append(limits, fmt.Sprintf("the host answers replies to SNAT connections on %d of its addresses with RST or ICMP port unreachable; use an address the host does not have, or a guard that can drop (nft)", len(rules.SNAT)))
	}
	return limits
}

func countFunc[T any](list []T, is func(T) bool) int {
	n := 0
	for _, v := range list {
		if is(v) {
			n++
		}
	}
	return n
}

// readSysctl reads a setting, named as its path below /proc/sys. Settings below
// net are those of the calling thread's namespace.
func readSysctl(path string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b)), err
}

// hasAddr tells whether a sorted list of plain addresses contains a.
func hasAddr(list []netip.Addr, a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(list, a, netip.Addr.Compare)
	return found
}
