// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// sortServices puts services and their servers in the tool's order.
func sortServices(services []ServiceEntry) {
	mergeSort(services, func(a, b *ServiceEntry) int {
		return cmp.Or(
			cmp.Compare(a.Mark, b.Mark),
			compareFamily(a.ipv6(), b.ipv6()),
			cmp.Compare(a.Proto, b.Proto),
			compareAddr(a.Addr, b.Addr),
			cmp.Compare(a.Port, b.Port),
		)
	})
	for i := range services {
		mergeSort(services[i].Servers, func(a, b *ServerEntry) int {
			return cmp.Or(
				compareFamily(a.Addr.Is6(), b.Addr.Is6()),
				compareAddr(a.Addr, b.Addr),
				cmp.Compare(a.Port, b.Port),
			)
		})
	}
}

func compareFamily(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// compareAddr compares as the tool does: by the sign of the 32-bit difference, of
// IPv6 addresses in the first 32 bits that differ. 192.168.88.23 thus stands before
// 10.0.0.1. Addresses around the world can come before each other in a circle,
// which is why this file has its own sort.
func compareAddr(a, b netip.Addr) int {
	if !a.IsValid() || !b.IsValid() {
		return 0 // services by mark
	}
	x, y := a.As16(), b.As16()
	for i := 0; i < len(x); i += 4 {
		if d := int32(binary.BigEndian.Uint32(x[i:]) - binary.BigEndian.Uint32(y[i:])); d != 0 {
			return int(d)
		}
	}
	return 0
}

// mergeSort is the C library's qsort(3) step by step, so that the result is the
// tool's even where compare has circles.
func mergeSort[E any](s []E, compare func(a, b *E) int) {
	if len(s) < 2 {
		return
	}
	left, right := append([]E(nil), s[:len(s)/2]...), append([]E(nil), s[len(s)/2:]...)
	mergeSort(left, compare)
	mergeSort(right, compare)
	for i := range s {
		if len(right) == 0 || len(left) > 0 && compare(&left[0], &right[0]) <= 0 {
			s[i], left = left[0], left[1:]
		} else {
			s[i], right = right[0], right[1:]
		}
	}
}
