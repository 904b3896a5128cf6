// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/sched"
)

// The order of things. Services, servers and SNAT rules are listed in the order in
// which they were added, and schedulers go through servers in it; what was deleted
// and comes back is at another place.

// Arrange puts what there is into an order: services as named, the servers of
// services[i] as servers[i] has them, oldest first, and SNAT rules by their networks.
// What is not named stays behind what is. A scheduler whose servers are in another
// order than before begins anew.
func (r *Rules) Arrange(services []ServiceKey, servers [][]netip.AddrPort, snats []netip.Prefix) {
	at := ranks(services)
	live := slices.DeleteFunc(slices.Clone(r.services.all), func(s *service) bool { return s == nil })
	slices.SortFunc(live, func(a, b *service) int { return cmp.Compare(a.place, b.place) })
	places := make([]uint64, len(live))
	for i, s := range live {
		places[i] = s.place
	}
	slices.SortStableFunc(live, func(a, b *service) int { return cmp.Compare(at(a.ServiceKey), at(b.ServiceKey)) })
	for i, s := range live {
		s.place = places[i]
	}
	for i, k := range services {
		if s := r.byKey[k]; s != nil {
			s.arrange(servers[i])
		}
	}
	rank := ranks(snats)
	slices.SortStableFunc(r.snats, func(a, b SNATSpec) int { return cmp.Compare(rank(a.From), rank(b.From)) })
}

// arrange puts servers into an order, oldest first; the list is newest first.
func (s *service) arrange(order []netip.AddrPort) {
	rank := ranks(order)
	slices.Reverse(s.servers)
	slices.SortStableFunc(s.servers, func(a, b *server) int { return cmp.Compare(rank(a.sched.Addr), rank(b.sched.Addr)) })
	slices.Reverse(s.servers)
	list := make([]*sched.Server, len(s.servers))
	for i, d := range s.servers {
		list[i] = d.sched
	}
	s.pool.Arrange(list)
}

// ranks returns where things stand in a list; what is not there is behind it.
func ranks[T comparable](list []T) func(T) int {
	at := make(map[T]int, len(list))
	for i, v := range list {
		at[v] = i
	}
	return func(v T) int {
		if i, ok := at[v]; ok {
			return i
		}
		return len(list)
	}
}
