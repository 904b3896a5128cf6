// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// GuardMark is a part of the traffic that mark rules take: packets of one family,
// to our MAC alone, by source, destination, protocol, destination port and link.
// If To is more than one address, what Servers and ServerPorts send is not part of it.
type GuardMark struct {
	Proto    uint8 // 0: TCP, UDP and SCTP
	From, To netip.Prefix
	Min, Max uint16 // both included; both 0: every port
	Link     string // "": all
}

// String writes "tcp from 192.0.2.0/24 to 203.0.113.0/24 port 80-81 by eth0".
func (m GuardMark) String() string {
	s := "any protocol"
	if m.Proto != 0 {
		s = protoName(m.Proto)
	}
	if m.From.Bits() > 0 {
		s += " from " + m.From.String()
	}
	s += " to " + m.To.String()
	switch {
	case m.Max == 0:
	case m.Min == m.Max:
		s += fmt.Sprintf(" port %d", m.Min)
	default:
		s += fmt.Sprintf(" port %d-%d", m.Min, m.Max)
	}
	if m.Link != "" {
		s += " by " + m.Link
	}
	return s
}

// GuardRange are ports of an address, both ends included.
type GuardRange struct {
	Proto    uint8
	Addr     netip.Addr
	Min, Max uint16
}

// checkMarks refuses what Normal does not bring into a form.
func (r GuardRules) checkMarks() error {
	for _, m := range r.Marked {
		_, ports := portProtocols()[m.Proto]
		switch {
		case m.Proto != 0 && !ports:
			return fmt.Errorf("guard: marked protocol %d has no ports\nhint: use tcp, udp or sctp", m.Proto)
		case !m.From.IsValid() || !m.To.IsValid():
			return fmt.Errorf("guard: a mark without networks")
		case m.Min > m.Max:
			return fmt.Errorf("guard: marked ports %d to %d are no range", m.Min, m.Max)
		}
	}
	for _, p := range r.ServerPorts {
		_, ports := portProtocols()[p.Proto]
		if !ports || !p.Addr.IsValid() || p.Min > p.Max {
			return fmt.Errorf("guard: protocol %d, ports %d to %d of the server %s are no range", p.Proto, p.Min, p.Max, p.Addr)
		}
	}
	return nil
}

func plainMark(m GuardMark) GuardMark {
	m.From, m.To = plainPrefix(m.From), plainPrefix(m.To)
	return m
}

func plainRange(p GuardRange) GuardRange {
	p.Addr = plainAddr(p.Addr)
	return p
}

func compareMark(a, b GuardMark) int {
	return cmp.Or(comparePrefix(a.To, b.To), comparePrefix(a.From, b.From), cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max), strings.Compare(a.Link, b.Link))
}

// compareRange has those next to each other that differ by address only.
func compareRange(a, b GuardRange) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max), a.Addr.Compare(b.Addr))
}

// servers are the addresses of all real servers, of both families.
func (r GuardRules) servers() []netip.Addr {
	var list []netip.Addr
	for _, s := range r.Servers {
		list = append(list, s.Addr)
	}
	for _, p := range r.ServerPorts {
		list = append(list, p.Addr)
	}
	return sorted(list, netip.Addr.Compare)
}

// protocols are those of a mark's packets.
func (m GuardMark) protocols() []uint8 {
	if m.Proto != 0 {
		return []uint8{m.Proto}
	}
	return []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}
}
