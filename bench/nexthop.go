// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// nextHop returns the link address that packets to a go to, after having the kernel
// find it out.
func nextHop(a netip.Addr) (net.HardwareAddr, error) {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("route to %s: %w", a, err)
	}
	hop := routes[0].Gw
	if hop == nil {
		hop = a.AsSlice()
	}
	conn, err := net.Dial("udp", netip.AddrPortFrom(a, datagramPort).String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for range 100 {
		conn.Write([]byte{0})
		time.Sleep(10 * time.Millisecond)
		neighbours, err := netlink.NeighList(routes[0].LinkIndex, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, n := range neighbours {
			if n.IP.Equal(hop) && len(n.HardwareAddr) == 6 && n.State&netlink.NUD_FAILED == 0 {
				return n.HardwareAddr, nil
			}
		}
	}
	return nil, fmt.Errorf("%s does not answer", hop)
}
