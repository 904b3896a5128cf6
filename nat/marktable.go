// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Mark rules as packets meet them. Only the first packet of a connection looks
// for its mark; all others are found by their addresses.
//
// Rules to a single address of ours are looked for among those of that address,
// all others, the wide ones, are tried one after the other. So ten thousand
// virtual addresses with a rule each cost a first packet no more than one.
//
// What a real server sends is not for wide rules. It could not be translated, as
// there is no address of ours in it that the server would answer to; and what a
// transparent proxy fetches would come back to it.

// A markTable is the mark rules of a snapshot. The zero value has none.
type markTable struct {
	rules []markRule // those to single addresses by address, then the wide ones; the order within is theirs
	byOwn []markSpan // parts of rules, by index in ownTable.entries
	wide  int        // where the wide ones begin
	nets  []markNet  // between which packets may be ours although their destination is no address of ours
}

type markSpan struct{ from, to int32 }

// A markRule is a rule for one family.
type markRule struct {
	from, to prefix
	links    uint64 // a bit for each port index that packets may come in by
	min, max uint16
	proto    uint8  // 0: every protocol that has services
	order    uint32 // of rules that match, the lowest counts
	service  int32  // slot of the service with the mark, -1: there is none
}

type markNet struct{ from, to prefix }

// newMarkTable needs the addresses, services and ports of the snapshot.
func (r *Rules) newMarkTable(s *snapshot) markTable {
	var t markTable
	if len(r.marks) == 0 {
		return t
	}
	byOwn := make([][]markRule, len(s.own.entries))
	var wide []markRule
	known := make(map[markNet]bool)
	r.eachMark(func(order int, m MarkRule, v *service) {
		lo, hi := m.ports()
		rule := markRule{
			from: newPrefix(m.From), to: newPrefix(m.To), min: lo, max: hi, proto: m.Proto,
			order: uint32(order), service: -1,
		}
		for i := range s.ports {
			if m.Link == "" || s.ports[i].Name == m.Link {
				rule.links |= 1 << i
			}
		}
		if v != nil {
			rule.service = int32(v.slot)
		}
		if own := s.own.find(&rule.to.addr); own >= 0 && m.To.IsSingleIP() {
			byOwn[own] = append(byOwn[own], rule)
			return
		}
		wide = append(wide, rule)
		if net := (markNet{rule.from, rule.to}); v != nil && !known[net] {
			known[net] = true
			t.nets = append(t.nets, net)
		}
	})
	for _, rules := range byOwn {
		from := int32(len(t.rules))
		t.rules = append(t.rules, rules...)
		t.byOwn = append(t.byOwn, markSpan{from, int32(len(t.rules))})
	}
	t.wide = len(t.rules)
	t.rules = append(t.rules, wide...)
	return t
}

// between reports whether an address is one that wide rules make packets from
// src ours to.
func (t *markTable) between(src, dst *conntrack.Addr) bool {
	for i := range t.nets {
		if t.nets[i].to.contains(dst) && t.nets[i].from.contains(src) {
			return true
		}
	}
	return false
}

// firstRule returns the first of rules that matches a packet.
func firstRule(rules []markRule, p *Packet, t *conntrack.Tuple) *markRule {
	for i := range rules {
		m := &rules[i]
		if t.Dst.Port >= m.min && t.Dst.Port <= m.max && (m.proto == 0 || m.proto == t.Proto) &&
			m.links>>(p.In%MaxPorts)&1 != 0 && m.to.contains(&t.Dst.Addr) && m.from.contains(&t.Src.Addr) {
			return m
		}
	}
	return nil
}

// marked returns the slot of the service that the first packet of a connection
// belongs to by its mark, or -1. own is the index of its destination among our
// addresses, or -1.
func (f *Forwarder) marked(p *Packet, h *parsed, own int32) int32 {
	t := &f.snap.marks
	if len(t.rules) == 0 || h.kind == kindEcho {
		return -1
	}
	var rule *markRule
	if own >= 0 {
		span := t.byOwn[own]
		rule = firstRule(t.rules[span.from:span.to], p, &h.tuple)
	}
	if t.wide < len(t.rules) && f.snap.inner.find(&h.tuple.Src.Addr) < 0 {
		wide := firstRule(t.rules[t.wide:], p, &h.tuple)
		if wide != nil && (rule == nil || wide.order < rule.order) {
			rule = wide
		}
	}
	if rule == nil || own < 0 && !f.hasHost(&h.tuple.Dst.Addr) {
		return -1
	}
	return rule.service
}

// hasHost reports whether a may be the address of one host beyond us.
func (f *Forwarder) hasHost(a *conntrack.Addr) bool {
	return forwardable(a) && !f.hops.lookup(&f.snap.routes, a).broadcast
}
