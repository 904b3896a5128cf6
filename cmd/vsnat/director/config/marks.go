// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Rules that give packets a mark: from the file, and what each must be.

// marks returns the rules, and the addresses that they make the director's with
// the place of the first one that does.
func (p reader) marks(list []rawMark) (out []control.MarkSpec, single map[netip.Addr]Position) {
	single = make(map[netip.Addr]Position)
	var places []Position
	for i := range list {
		raw := &list[i]
		if raw.At.Line == 0 {
			continue
		}
		known := len(p.list)
		m := p.mark(raw)
		if len(p.list) > known {
			continue
		}
		p.faults(markFaults(m), map[string]text{
			"mark": raw.Mark, "proto": raw.Proto, "from": raw.From, "to": raw.To, "ports": raw.Ports, "interface": raw.Interface,
		}, raw.At)
		for j, other := range out {
			mark := other.Mark
			if other.Mark = m.Mark; other == m {
				p.add(raw.At, "remove one of them: the first counts", "what this rule matches gets mark %d in %s already", mark, places[j].from(raw.At))
				break
			}
		}
		if _, known := single[m.To.Addr()]; m.To.IsSingleIP() && !known {
			single[m.To.Addr()] = raw.At
		}
		out, places = append(out, m), append(places, raw.At)
	}
	return out, single
}

// mark reads the texts of one rule.
func (p reader) mark(raw *rawMark) control.MarkSpec {
	var m control.MarkSpec
	var bad complaint
	if !raw.Mark.given() {
		p.add(raw.At, "add mark: the number that a service by mark has", "a rule needs the mark that it gives")
	} else {
		key, err := control.ParseKey(control.Mark, raw.Mark.value)
		p.accept(raw.Mark, complaintOf(err))
		m.Mark = key.Mark
	}
	m.Proto, m.Interface = raw.Proto.value, raw.Interface.value
	for _, n := range []struct {
		from text
		to   *netip.Prefix
	}{{raw.From, &m.From}, {raw.To, &m.To}} {
		if n.from.given() {
			*n.to, bad = parsePrefix(n.from.value)
			p.accept(n.from, bad)
		}
	}
	if raw.Ports.given() {
		m.MinPort, m.MaxPort, bad = parsePorts(raw.Ports.value)
		p.accept(raw.Ports, bad)
	}
	return m
}

// CheckMark returns a *control.Error if spec can't be a rule that gives a mark.
func CheckMark(spec control.MarkSpec) error { return refusal(markFaults(spec)) }

func markFaults(m control.MarkSpec) []fault {
	var list []fault
	if m.Mark == 0 {
		list = append(list, fault{"mark", "a rule needs the mark that it gives", "a mark is a number of 1 to 4294967295"})
	}
	known := slices.DeleteFunc(slices.Clone(protocols), func(p string) bool { return control.ServiceKey{Proto: p}.ByMark() })
	list = append(list, wordFaults("proto", m.Proto, known...)...)
	for _, n := range []struct {
		key string
		net netip.Prefix
	}{{"from", m.From}, {"to", m.To}} {
		switch a := n.net.Addr(); {
		case n.net == netip.Prefix{}:
		case !n.net.IsValid() || a.Is4In6() || n.net != n.net.Masked():
			list = append(list, fault{n.key, fmt.Sprintf("%s has bits set behind its mask", n.net), maskHint(n.net)})
		case n.net.IsSingleIP():
			list = append(list, addressFaults(n.key, "a packet", a)...)
		case a.IsMulticast() || a.IsLoopback():
			list = append(list, fault{n.key, fmt.Sprintf("%s is not a network of unicast hosts", n.net), "for example " + n.key + ": 192.0.2.0/24"})
		}
	}
	if m.From.IsValid() && m.To.IsValid() && m.From.Addr().Is4() != m.To.Addr().Is4() {
		list = append(list, fault{"to", fmt.Sprintf("%s is not of the address family of %s", m.To, m.From), "a packet is IPv4 or IPv6: write two rules"})
	}
	if m.MinPort > m.MaxPort || m.MinPort == 0 && m.MaxPort != 0 {
		list = append(list, fault{"ports", fmt.Sprintf("ports %d-%d are not a range", m.MinPort, m.MaxPort), "write lowest-highest, for example 80-81"})
	}
	if len(m.Interface) > 15 || strings.ContainsAny(m.Interface, "/*?[ \t:") {
		list = append(list, fault{"interface", fmt.Sprintf("%.40q is not the name of a link", m.Interface), "name one link, such as eth0"})
	}
	return list
}
