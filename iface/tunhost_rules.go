// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Places of our rules among those of the host; the table at TUNHost says what
// stands where.
const (
	placeFirstLocal = 0 // where the kernel puts the table local

	placeEarlyLink  = 10
	placeEarlySkip  = 11
	placeEarly      = 20
	placeLocal      = 30
	placeLateLink   = 40
	placeLateSkip   = 41
	placeLate       = 50
	placeEnd        = 60
	placeClosed     = 70
	ruleChangeTries = 5
)

// tunHostRoutes are the rules of one family, before and after the table local,
// that lead into the device, without the detour that restricts them to the served
// links.
func tunHostRoutes(rules TUNHostRules, family int) (early, late []netlink.Rule) {
	for _, s := range rules.Services {
		if hasAddr(rules.Owned, s.Addr) {
			continue
		}
		r := routeRule(family, placeEarly, tunHostTable)
		r.Dst, r.IPProto = hostNet(s.Addr), int(s.Proto)
		if s.Port != 0 {
			r.Dport = netlink.NewRulePortRange(s.Port, s.Port)
		}
		early = append(early, r)
	}
	for _, p := range rules.SNAT {
		if hasAddr(rules.Owned, p.Addr) {
			continue
		}
		for _, ports := range portRanges(p) {
			for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
				r := routeRule(family, placeEarly, tunHostTable)
				r.Dst, r.IPProto, r.Dport = hostNet(p.Addr), proto, ports
				early = append(early, r)
			}
		}
	}
	icmp := unix.IPPROTO_ICMP
	if family == unix.AF_INET6 {
		icmp = unix.IPPROTO_ICMPV6
	}
	for _, addr := range sharedAddrs(rules) {
		r := routeRule(family, placeEarly, tunHostTable)
		r.Dst, r.IPProto = hostNet(addr), icmp
		early = append(early, r)
	}

	marked, quoting := markedRoutes(rules.Marked, family, icmp)
	early, late = append(early, marked...), append(late, quoting...)
	for _, addr := range rules.Owned {
		r := routeRule(family, placeLate, tunHostTable)
		r.Dst = hostNet(addr)
		late = append(late, r)
	}
	sources := slices.Clone(rules.Inside)
	for _, addr := range rules.servers() {
		sources = append(sources, netip.PrefixFrom(addr, addr.BitLen()))
	}
	for _, p := range sorted(sources, comparePrefix) {
		r := routeRule(family, placeLate, tunHostTable)
		r.Src = ruleNet(p)
		late = append(late, r)
	}
	return early, late
}

// lastRulePort is the highest port that a rule can name (fib_rules.h,
// fib_rule_port_range_valid).
const lastRulePort = 65534

// markedRoutes lead what is marked into the device, before the table local since a
// network may hold addresses of the host, and behind it the ICMP errors about it
// to others.
func markedRoutes(marked []GuardMark, family, icmp int) (early, late []netlink.Rule) {
	for _, m := range marked {
		for _, proto := range m.protocols() {
			r := routeRule(family, placeEarly, tunHostTable)
			r.Src, r.Dst, r.IPProto, r.IifName = ruleNet(m.From), ruleNet(m.To), int(proto), m.Link
			if m.Max != 0 {
				r.Dport = netlink.NewRulePortRange(max(m.Min, 1), min(m.Max, lastRulePort))
			}
			early = append(early, r)
		}
		if !m.To.IsSingleIP() {
			r := routeRule(family, placeLate, tunHostTable)
			r.Dst, r.IPProto = ruleNet(m.To), icmp
			late = append(late, r)
		}
	}
	return early, late
}

// ruleNet is a network as a rule names it: the kernel knows no prefix of length 0,
// but a rule that says none matches all.
func ruleNet(p netip.Prefix) *net.IPNet {
	if p.Bits() == 0 {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// portRanges are the ports that are not excepted. A rule cannot say port 0: it
// would mean every port, and is no port that anybody uses.
func portRanges(p GuardPorts) []*netlink.RulePortRange {
	var ends []uint32
	for _, port := range p.Except {
		ends = append(ends, uint32(port))
	}
	ends = append(ends, uint32(p.Max)+1)

	var ranges []*netlink.RulePortRange
	next := max(uint32(p.Min), 1)
	for _, end := range ends {
		if next < end {
			ranges = append(ranges, netlink.NewRulePortRange(uint16(next), uint16(end-1)))
		}
		next = max(next, end+1)
	}
	return ranges
}

// tunHostRules is the whole list of a family. local says whether the table local
// is ours to look up between the two parts; closed are the links that the host did
// not forward from before.
func tunHostRules(rules TUNHostRules, family int, local bool, closed []string) []netlink.Rule {
	early, late := tunHostRoutes(rules, family)
	var list []netlink.Rule
	detour := func(link, skip, place, end int, part []netlink.Rule) {
		for _, name := range rules.Links {
			r := jumpRule(family, link, place)
			r.IifName = name
			list = append(list, r)
		}
		list = append(list, jumpRule(family, skip, end))
		list = append(list, part...)
	}
	if len(early) > 0 {
		detour(placeEarlyLink, placeEarlySkip, placeEarly, placeLocal, early)
		between := actionRule(family, placeLocal, nl.FR_ACT_NOP)
		if local {
			between = routeRule(family, placeLocal, unix.RT_TABLE_LOCAL)
		}
		list = append(list, between)
	}
	if len(late) > 0 {
		detour(placeLateLink, placeLateSkip, placeLate, placeEnd, late)
		list = append(list, actionRule(family, placeEnd, nl.FR_ACT_NOP))
	}
	for _, name := range closed {
		r := actionRule(family, placeClosed, nl.FR_ACT_BLACKHOLE)
		r.IifName = name
		list = append(list, r)
	}
	return list
}

func ourRule(family, place int) netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Protocol = family, place, tunHostProtocol
	return *r
}

func routeRule(family, place, table int) netlink.Rule {
	r := ourRule(family, place)
	r.Table = table
	return r
}

func jumpRule(family, place, to int) netlink.Rule {
	r := ourRule(family, place)
	r.Goto = to
	return r
}

func actionRule(family, place int, action uint8) netlink.Rule {
	r := ourRule(family, place)
	r.Type = action
	return r
}

// firstLocal is the kernel's own rule for the table local.
func firstLocal(family int) netlink.Rule {
	r := routeRule(family, placeFirstLocal, unix.RT_TABLE_LOCAL)
	r.Protocol = unix.RTPROT_KERNEL
	return r
}

func isFirstLocal(r netlink.Rule) bool {
	return r.Priority == placeFirstLocal && r.Table == unix.RT_TABLE_LOCAL && r.Src == nil && r.Dst == nil && r.IifName == ""
}

func isOurLocal(r netlink.Rule) bool {
	return r.Protocol == tunHostProtocol && r.Table == unix.RT_TABLE_LOCAL
}

// ruleKey tells rules apart, whether we made them up or the kernel listed them.
func ruleKey(r netlink.Rule) string {
	ports := "any"
	if r.Dport != nil {
		ports = fmt.Sprint(*r.Dport)
	}
	return fmt.Sprintf("%d from %v to %v iif %s proto %d ports %s goto %d table %d of family %d", r.Priority, r.Src, r.Dst, r.IifName, r.IPProto, ports, max(r.Goto, 0), r.Table, r.Family)
}

func (h *TUNHost) applyRules(rules TUNHostRules) error {
	for _, family := range tunHostFamilies() {
		if err := h.applyFamily(ofFamily(rules, family), family); err != nil {
			return err
		}
	}
	return nil
}

// applyFamily adds before it removes, jumps last and first: a packet meets the
// old rules or the new ones. It looks again afterwards, because the kernel takes
// the first rule that has all attributes named, which may be a stricter one
// than was meant.
func (h *TUNHost) applyFamily(rules TUNHostRules, family int) error {
	closed, err := h.closed(family)
	if err != nil {
		return err
	}
	local := slices.Contains(h.local, family)
	want := tunHostRules(rules, family, local, closed)
	move := local && len(sharedAddrs(rules))+len(rules.Marked) > 0 // what rules before it are for
	for range ruleChangeTries {
		have, err := h.handle.RuleList(family)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		add, remove := ruleChanges(have, want)
		first := slices.ContainsFunc(have, isFirstLocal)
		if len(add)+len(remove) == 0 && (!local || first != move) {
			if !move && h.undo.localMoved(family) {
				h.undo.localBack(family)
				return h.save()
			}
			return nil
		}
		if local && !move && !first {
			add = append([]netlink.Rule{firstLocal(family)}, add...)
		}
		if move && !h.undo.localMoved(family) {
			h.undo.moveLocal(family)
			if err := h.save(); err != nil {
				return err
			}
		}
		if err := addRules(h.handle, add); err != nil {
			return err
		}
		if move && first {
			remove = append([]netlink.Rule{firstLocal(family)}, remove...)
		}
		if err := removeRules(h.handle, remove); err != nil {
			return err
		}
	}
	return errors.New("the rules do not stay as they are made\nhint: another program changes rules at 0 to 70 or of protocol 118")
}

// ruleChanges compares our rules with the host's. What is to be added comes with the
// targets of jumps first, what is to be removed with the jumps first.
func ruleChanges(have, want []netlink.Rule) (add, remove []netlink.Rule) {
	wanted := map[string]bool{}
	for _, r := range want {
		wanted[ruleKey(r)] = true
	}
	present := map[string]bool{}
	for _, r := range have {
		if r.Protocol != tunHostProtocol {
			continue
		}
		key := ruleKey(r)
		if !wanted[key] || present[key] {
			remove = append(remove, r)
		}
		present[key] = true
	}
	for _, r := range want {
		if key := ruleKey(r); !present[key] {
			present[key] = true
			add = append(add, r)
		}
	}
	slices.SortStableFunc(add, func(a, b netlink.Rule) int { return cmp.Compare(b.Priority, a.Priority) })
	slices.SortStableFunc(remove, func(a, b netlink.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	return add, remove
}

func addRules(handle *netlink.Handle, rules []netlink.Rule) error {
	for _, r := range rules {
		if err := handle.RuleAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", ruleKey(r), err)
		}
	}
	return nil
}

func removeRules(handle *netlink.Handle, rules []netlink.Rule) error {
	for _, r := range rules {
		if err := handle.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s: %w", ruleKey(r), err)
		}
	}
	return nil
}

func hostNet(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}
