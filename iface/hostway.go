// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// HostWay asks the kernel how the host would reach an address: by which link, and
// from which of its addresses. The error says that it could not.
func HostWay(to netip.Addr) (link int, source netip.Addr, err error) {
	routes, err := netlink.RouteGet(net.IP(to.AsSlice()))
	if err != nil {
		return 0, netip.Addr{}, err
	}
	for _, r := range routes {
		if from, ok := netip.AddrFromSlice(r.Src); ok {
			return r.LinkIndex, from.Unmap(), nil
		}
	}
	return 0, netip.Addr{}, net.UnknownNetworkError(to.String())
}
