// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/conntrack"
)

// Mark rules as they are configured. iptables gives a packet a mark for IPVS to
// find its service by; we see packets before netfilter does, and give the marks
// ourselves. How packets are matched is in marktable.go.
//
// What a rule makes ours depends on To. A single address is then an address of
// ours, as that of a service is: answered for, and owned if the host does not
// have it. A network is none: who in it answers ARP is its owner's business, and
// packets to it are ours if somebody has routed them here.

// maxLinkName is the longest name of a link (IFNAMSIZ, which counts a zero byte).
const maxLinkName = 15

// AddMark adds a rule, behind those that are there: of several that match a
// packet the first counts.
func (r *Rules) AddMark(m MarkRule) error {
	if err := checkMark(m); err != nil {
		return err
	}
	for _, other := range r.marks {
		mark := other.Mark
		if other.Mark = m.Mark; other == m {
			return fmt.Errorf("%w: what it matches gets mark %d", ErrMarkExists, mark)
		}
	}
	r.marks = append(r.marks, m)
	return nil
}

// notMarked refuses an address of ours for a server, which would be taken for a
// forger of it.
func (r *Rules) notMarked(server netip.Addr) error {
	for _, m := range r.marks {
		if m.To.IsSingleIP() && m.To.Addr() == server {
			return fmt.Errorf("%w: server %s is the destination of a rule: %s", ErrInvalid, server, m)
		}
	}
	return nil
}

// DelMark deletes a rule, which is to be given as it was added. Connections stay,
// and go on if their packets are still ours: their virtual address is that of a
// service or an SNAT rule too, or another rule is about it.
func (r *Rules) DelMark(m MarkRule) error {
	i := slices.Index(r.marks, m)
	if i < 0 {
		return ErrNoMark
	}
	r.marks = slices.Delete(r.marks, i, i+1)
	return nil
}

// Marks returns the rules in the order in which they count.
func (r *Rules) Marks() []MarkRule { return slices.Clone(r.marks) }

func checkMark(m MarkRule) error {
	switch {
	case m.Mark == 0:
		return fmt.Errorf("%w: mark 0 is that of packets without a mark", ErrInvalid)
	case m.Proto != 0 && m.Proto != ProtoTCP && m.Proto != ProtoUDP && m.Proto != ProtoSCTP:
		return fmt.Errorf("%w: protocol %d has no services", ErrInvalid, m.Proto)
	case m.MinPort > m.MaxPort || m.MaxPort != 0 && m.MinPort == 0:
		return fmt.Errorf("%w: port range %d-%d", ErrInvalid, m.MinPort, m.MaxPort)
	case len(m.Link) > maxLinkName || strings.ContainsAny(m.Link, "/ \t\n"):
		return fmt.Errorf("%w: %q is no name of a link", ErrInvalid, m.Link)
	}
	for _, side := range []struct {
		what string
		net  netip.Prefix
	}{{"source", m.From}, {"destination", m.To}} {
		if side.net == (netip.Prefix{}) {
			continue
		}
		if err := checkMarkNet(side.what, side.net); err != nil {
			return err
		}
	}
	if m.From.IsValid() && m.To.IsValid() && m.From.Addr().Is4() != m.To.Addr().Is4() {
		return fmt.Errorf("%w: source %s is not of the family of the destination %s", ErrInvalid, m.From, m.To)
	}
	return nil
}

func checkMarkNet(what string, p netip.Prefix) error {
	switch {
	case !p.IsValid() || p.Addr().Is4In6():
		return fmt.Errorf("%w: %s %s is not a network", ErrInvalid, what, p)
	case p != p.Masked():
		return fmt.Errorf("%w: %s has host bits set; the network is %s", ErrInvalid, p, p.Masked())
	case p.IsSingleIP():
		return checkUnicast(what, p.Addr())
	case p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast():
		return fmt.Errorf("%w: %s %s is not a network that packets are forwarded to", ErrInvalid, what, p)
	}
	return nil
}

// String is "mark 1 tcp from 192.0.2.0/24 to 10.0.0.1/32 ports 80-81 by eth0";
// what the rule does not say is left out.
func (m MarkRule) String() string {
	s := fmt.Sprintf("mark %d", m.Mark)
	if m.Proto != 0 {
		s += " " + protoName(m.Proto)
	}
	if m.From.IsValid() {
		s += " from " + m.From.String()
	}
	if m.To.IsValid() {
		s += " to " + m.To.String()
	}
	switch {
	case m.MaxPort == 0:
	case m.MinPort == m.MaxPort:
		s += fmt.Sprintf(" port %d", m.MinPort)
	default:
		s += fmt.Sprintf(" ports %d-%d", m.MinPort, m.MaxPort)
	}
	if m.Link != "" {
		s += " by " + m.Link
	}
	return s
}

// everywhere are the networks that a rule without a destination means.
var everywhere = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// markKey is the key of a mark's service of a family.
func markKey(mark uint32, four bool) ServiceKey {
	if four {
		return ServiceKey{Mark: mark, Addr: netip.IPv4Unspecified()}
	}
	return ServiceKey{Mark: mark, Addr: netip.IPv6Unspecified()}
}

// eachMark yields the rules in the order in which they count, once for each
// family that they are for, with both networks set and the service that has the
// mark, or nil.
func (r *Rules) eachMark(yield func(order int, m MarkRule, s *service)) {
	for order, m := range r.marks {
		for _, all := range everywhere {
			one := m
			if !one.From.IsValid() {
				one.From = all
			}
			if !one.To.IsValid() {
				one.To = all
			}
			four := all.Addr().Is4()
			if one.From.Addr().Is4() == four && one.To.Addr().Is4() == four {
				yield(order, one, r.byKey[markKey(m.Mark, four)])
			}
		}
	}
}

// MarkedTraffic lists what rules take to services that there are, in the order in
// which they count. From and To are always set; a rule for both families is two.
func (r *Rules) MarkedTraffic() []MarkRule {
	var list []MarkRule
	r.eachMark(func(_ int, m MarkRule, s *service) {
		if s != nil {
			list = append(list, m)
		}
	})
	return list
}

// Protocols are those of the packets that a rule is for.
func (m *MarkRule) Protocols() []uint8 {
	if m.Proto != 0 {
		return []uint8{m.Proto}
	}
	return []uint8{ProtoTCP, ProtoUDP, ProtoSCTP}
}

// ports are those of the destination that a rule is for.
func (m *MarkRule) ports() (lo, hi uint16) {
	if m.MaxPort == 0 {
		return 1, 65535
	}
	return m.MinPort, m.MaxPort
}

// reservedByMarks is the largest number of ports that a rule keeps from being
// handed out. A rule for more of them, such as that for the data connections of
// passive FTP, would leave an SNAT rule to the same address none: there a new
// connection to a port that is handed out is the service's all the same, and
// those of the port's holder are in the table.
const reservedByMarks = 1024

// reserveMarked takes the ports of mark rules from those that may be handed out.
func (r *Rules) reserveMarked(own *ownTable, list []portReserve) {
	for _, m := range r.MarkedTraffic() {
		if !m.To.IsSingleIP() {
			continue
		}
		lo, hi := m.ports()
		if int(hi)-int(lo) >= reservedByMarks {
			continue
		}
		addr := conntrack.AddrFrom(m.To.Addr())
		p := &list[own.find(&addr)] // it is ours, see Ours
		for _, proto := range m.Protocols() {
			for port := int(lo); port <= int(hi); port++ {
				p.add(proto, uint16(port))
			}
		}
	}
}
