// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"

	"github.com/vsnat/vsnat/conntrack"
)

// Mark rules as packets meet them. Only the first packet of a connection looks
// for its mark; all others are found by their addresses.
//
// Rules are looked for by their destination, once for each length of prefix that
// there is, and those to one destination are tried one after the other. So ten
// thousand virtual addresses with a rule each cost a first packet no more than one.
//
// What a real server sends is not for wide rules, those to a network. It could not
// be translated, as there is no address of ours in it that the server would answer
// to; and what a transparent proxy fetches would come back to it.

// A markTable is the mark rules of a snapshot. The zero value has none.
type markTable struct {
	lengths []uint8    // of destinations, each once
	index   []int32    // into spans by hash of the destination, -1 free
	spans   []markSpan // one for each destination
	rules   []markRule // by destination, then in the order in which they count
	wide    bool       // a rule to a network has a service
}

type markSpan struct {
	to         prefix
	first, end int32 // of its rules
}

// A markRule is a rule for one family.
type markRule struct {
	from     prefix
	links    uint64 // a bit for each port index that packets may come in by
	min, max uint16
	proto    uint8  // 0: every protocol that has services
	wide     bool   // to a network
	order    uint32 // of rules that match, the lowest counts
	service  int32  // slot of the service with the mark, -1: there is none
}

// newMarkTable needs the services and ports of the snapshot.
func (r *Rules) newMarkTable(s *snapshot) markTable {
	var t markTable
	if len(r.marks) == 0 {
		return t
	}
	known := make(map[prefix]int)
	var lists [][]markRule
	r.eachMark(func(order int, m MarkRule, v *service) {
		lo, hi := m.ports()
		rule := markRule{from: newPrefix(m.From), min: lo, max: hi, proto: m.Proto, wide: !m.To.IsSingleIP(), order: uint32(order), service: -1}
		for i := range s.ports {
			if m.Link == "" || s.ports[i].Name == m.Link {
				rule.links |= 1 << i
			}
		}
		if v != nil {
			rule.service = int32(v.slot)
			t.wide = t.wide || rule.wide
		}
		to := newPrefix(m.To)
		i, ok := known[to]
		if !ok {
			i = len(lists)
			known[to] = i
			t.spans, lists = append(t.spans, markSpan{to: to}), append(lists, nil)
		}
		lists[i] = append(lists[i], rule)
	})

	t.index = make([]int32, tableSize(len(t.spans)))
	for i := range t.index {
		t.index[i] = -1
	}
	var lengths [129]bool
	for i := range t.spans {
		span := &t.spans[i]
		span.first = int32(len(t.rules))
		t.rules = append(t.rules, lists[i]...)
		span.end = int32(len(t.rules))
		at := hashPrefix(&span.to) & uint64(len(t.index)-1)
		for t.index[at] >= 0 {
			at = (at + 1) & uint64(len(t.index)-1)
		}
		t.index[at] = int32(i)
		if bits := span.to.bits; !lengths[bits] {
			lengths[bits] = true
			t.lengths = append(t.lengths, bits)
		}
	}
	return t
}

func hashPrefix(p *prefix) uint64 { return mix(hashAddr(&p.addr), uint64(p.bits)|1<<63) }

// prefixOf returns the network of a length that holds a; ok is false if it would
// hold both families.
func prefixOf(a *conntrack.Addr, bits uint8) (p prefix, ok bool) {
	if bits < 96 && a.Is4() {
		return p, false
	}
	p = prefix{addr: *a, bits: bits}
	if hi, lo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]); bits < 64 {
		binary.BigEndian.PutUint64(p.addr[:8], hi&^(^uint64(0)>>bits))
		binary.BigEndian.PutUint64(p.addr[8:], 0)
	} else if bits < 128 {
		binary.BigEndian.PutUint64(p.addr[8:], lo&^(^uint64(0)>>(bits-64)))
	}
	return p, true
}

// to returns the rules to the network of a length that holds a.
func (t *markTable) to(a *conntrack.Addr, bits uint8) []markRule {
	p, ok := prefixOf(a, bits)
	if !ok {
		return nil
	}
	mask := uint64(len(t.index) - 1)
	for at := hashPrefix(&p) & mask; t.index[at] >= 0; at = (at + 1) & mask {
		if span := &t.spans[t.index[at]]; span.to == p {
			return t.rules[span.first:span.end]
		}
	}
	return nil
}

// between reports whether wide rules may make a packet from src to dst ours.
func (t *markTable) between(src, dst *conntrack.Addr) bool {
	if !t.wide {
		return false
	}
	for _, bits := range t.lengths {
		rules := t.to(dst, bits)
		for i := range rules {
			if m := &rules[i]; m.wide && m.service >= 0 && m.from.contains(src) {
				return true
			}
		}
	}
	return false
}

// find returns the rule that gives a packet its mark, or nil. Those to a network
// do not count if narrow is set.
func (t *markTable) find(p *Packet, k *conntrack.Tuple, narrow bool) *markRule {
	var found *markRule
	for _, bits := range t.lengths {
		rules := t.to(&k.Dst.Addr, bits)
		for i := range rules {
			m := &rules[i]
			if found != nil && m.order > found.order {
				break
			}
			if (m.proto == 0 || m.proto == k.Proto) && k.Dst.Port >= m.min && k.Dst.Port <= m.max &&
				m.links>>(p.In%MaxPorts)&1 != 0 && m.from.contains(&k.Src.Addr) && !(narrow && m.wide) {
				found = m
				break
			}
		}
	}
	return found
}

// marked returns the slot of the service that the first packet of a connection
// belongs to by its mark, or -1. own is the index of its destination among our
// addresses, or -1.
func (f *Forwarder) marked(p *Packet, t *conntrack.Tuple, own int32) int32 {
	marks := &f.snap.marks
	if len(marks.rules) == 0 || t.Proto == protoICMP || t.Proto == protoICMPv6 {
		return -1
	}
	m := marks.find(p, t, f.snap.inner.find(&t.Src.Addr) >= 0)
	if m == nil || own < 0 && !f.hasHost(&t.Dst.Addr) {
		return -1
	}
	return m.service
}

// hasHost reports whether a may be the address of one host beyond us.
func (f *Forwarder) hasHost(a *conntrack.Addr) bool {
	return forwardable(a) && !f.hops.lookup(&f.snap.routes, a).broadcast
}
