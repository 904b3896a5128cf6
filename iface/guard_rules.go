// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// GuardRules says which packets arriving on the served links the host's own
// stack must not get. The order of its lists and repetitions have no meaning.
// ARP and neighbour discovery are never touched (but for what is sent to an owned
// address alone, and means us), nor are frames for another
// MAC address (the host ignores them, and a macvlan on the link needs them) or
// frames with a VLAN tag (they belong to another link).
type GuardRules struct {
	// Links are names of the served links. One that does not exist is left
	// out until the next Apply.
	Links []string

	// Owned are addresses of ours that the host does not have: everything to
	// them is dropped for the host.
	Owned []netip.Addr

	// Services are ours on addresses the host has. Later fragments carry no
	// port and stay: the host never completes such a datagram and says
	// nothing about it.
	Services []GuardService

	// Servers are the real servers. Their replies (source address and port,
	// to a destination that is not the host's) and ICMP errors from their
	// addresses are dropped for the host.
	Servers []GuardService

	// ServerPorts are real servers that serve at ranges of ports.
	ServerPorts []GuardRange

	// Marked is what mark rules take, where nothing above says so: on addresses
	// the host has, and of what the host would forward. Later fragments stay as
	// those to Services do; in transit the host forwards them.
	Marked []GuardMark

	// Inside are the SNAT source networks: what they send to destinations
	// that are not the host's, nor broadcast, multicast or link-local, is
	// dropped for the host.
	Inside []netip.Prefix

	// SNAT are the ports of host-owned SNAT addresses that are ours.
	SNAT []GuardPorts

	// Host are the host's own addresses on all of its links: never dropped
	// unless a list above says so.
	Host []netip.Addr
}

// GuardService names an endpoint. Proto is the IP protocol number (TCP, UDP or
// SCTP). Port is in host byte order; 0 means every port of the address.
type GuardService struct {
	Proto uint8
	Addr  netip.Addr
	Port  uint16
}

// String writes "tcp 192.0.2.7:80".
func (s GuardService) String() string {
	return protoName(s.Proto) + " " + netip.AddrPortFrom(s.Addr, s.Port).String()
}

// GuardPorts are the TCP, UDP and SCTP ports Min to Max, both included, of an address
// except the listed ones.
type GuardPorts struct {
	Addr     netip.Addr
	Min, Max uint16
	Except   []uint16
}

// Normal returns a copy of the rules with every list sorted, without
// repetitions, IPv4 addresses as such and prefixes masked. It refuses addresses
// that are no addresses, protocols without ports and empty port ranges.
func (r GuardRules) Normal() (GuardRules, error) {
	for _, s := range slices.Concat(r.Services, r.Servers) {
		if _, ok := portProtocols()[s.Proto]; !ok {
			return GuardRules{}, fmt.Errorf("guard: protocol %d of %s has no ports\nhint: use tcp, udp or sctp", s.Proto, s.Addr)
		}
		if !s.Addr.IsValid() {
			return GuardRules{}, fmt.Errorf("guard: an endpoint of port %d without an address", s.Port)
		}
	}
	for _, a := range slices.Concat(r.Owned, r.Host) {
		if !a.IsValid() {
			return GuardRules{}, fmt.Errorf("guard: an invalid address among %d owned and %d of the host", len(r.Owned), len(r.Host))
		}
	}
	for _, p := range r.Inside {
		if !p.IsValid() {
			return GuardRules{}, fmt.Errorf("guard: an invalid inside network")
		}
	}
	for _, p := range r.SNAT {
		if !p.Addr.IsValid() || p.Min > p.Max {
			return GuardRules{}, fmt.Errorf("guard: SNAT ports %d to %d of %s are no range", p.Min, p.Max, p.Addr)
		}
	}

	if err := r.checkMarks(); err != nil {
		return GuardRules{}, err
	}

	n := GuardRules{
		Links:    sorted(r.Links, strings.Compare),
		Owned:    sorted(mapped(r.Owned, plainAddr), netip.Addr.Compare),
		Services: sorted(mapped(r.Services, plainService), compareService),
		Servers:  sorted(mapped(r.Servers, plainService), compareService),
		Marked:   sorted(mapped(r.Marked, plainMark), compareMark),
		Inside:   sorted(mapped(r.Inside, plainPrefix), comparePrefix),
		Host:     sorted(mapped(r.Host, plainAddr), netip.Addr.Compare),

		ServerPorts: sorted(mapped(r.ServerPorts, plainRange), compareRange),
	}
	for _, p := range r.SNAT {
		p.Addr = plainAddr(p.Addr)
		p.Except = slices.DeleteFunc(sorted(p.Except, cmp.Compare[uint16]), func(port uint16) bool {
			return port < p.Min || port > p.Max
		})
		n.SNAT = append(n.SNAT, p)
	}
	slices.SortFunc(n.SNAT, comparePorts)
	n.SNAT = slices.CompactFunc(n.SNAT, func(a, b GuardPorts) bool { return comparePorts(a, b) == 0 })
	return n, nil
}

// Equal reports whether both rules mean the same. Invalid rules equal nothing.
func (r GuardRules) Equal(o GuardRules) bool {
	a, errA := r.Normal()
	b, errB := o.Normal()
	return errA == nil && errB == nil && reflect.DeepEqual(a, b)
}

// portProtocols are the protocols whose header begins with source and
// destination port.
func portProtocols() map[uint8]string {
	return map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
}

func protoName(proto uint8) string {
	if name, ok := portProtocols()[proto]; ok {
		return name
	}
	return fmt.Sprintf("protocol %d", proto)
}

// sorted returns a sorted copy without repetitions; nil for an empty list, so
// that normal forms compare deeply.
func sorted[T any](list []T, compare func(a, b T) int) []T {
	if len(list) == 0 {
		return nil
	}
	out := slices.Clone(list)
	slices.SortFunc(out, compare)
	return slices.CompactFunc(out, func(a, b T) bool { return compare(a, b) == 0 })
}

func mapped[T any](list []T, f func(T) T) []T {
	out := make([]T, 0, len(list))
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}

func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func plainService(s GuardService) GuardService {
	s.Addr = plainAddr(s.Addr)
	return s
}

func plainPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

func compareService(a, b GuardService) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func comparePorts(a, b GuardPorts) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max), slices.Compare(a.Except, b.Except))
}
