// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetUp switches a link of the node on. Routes that were on it do not come back
// by themselves; see Cluster.Routes.
func (n *Node) SetUp(link string) error {
	return n.change("up", link, n.links.LinkSetUp)
}

// SetDown switches a link of the node off, which removes the routes on it.
func (n *Node) SetDown(link string) error {
	return n.change("down", link, n.links.LinkSetDown)
}

// SetMTU sets the MTU of a link of the node, in bytes of an IP packet. The other
// end of the link keeps its own.
func (n *Node) SetMTU(link string, mtu int) error {
	return n.change(fmt.Sprintf("mtu %d", mtu), link, func(l netlink.Link) error {
		return n.links.LinkSetMTU(l, mtu)
	})
}

// SwitchOff gives a command of ethtool that takes a value the value 0, for example
// ETHTOOL_STXCSUM (include/uapi/linux/ethtool.h, struct ethtool_value).
func (n *Node) SwitchOff(link string, command uint32) error {
	value := struct{ command, data uint32 }{command: command}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], link)
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("node %s: link %s: ethtool command %#x: %w", n.Name, link, command, err)
	}
	return nil
}

// DeleteLink removes a link of the node, and with it the other end.
func (n *Node) DeleteLink(link string) error {
	return n.change("delete", link, n.links.LinkDel)
}

// Interface returns what the node's kernel says about one of its links. The
// index and the MAC of a link change when it is made anew.
func (n *Node) Interface(link string) (*net.Interface, error) {
	var i *net.Interface
	err := n.Do(func() (err error) {
		i, err = net.InterfaceByName(link)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: link %s: %w", n.Name, link, err)
	}
	return i, nil
}

// AddAddr gives a link of the node an address.
func (n *Node) AddAddr(link string, addr netip.Prefix) error {
	return n.change(addr.String(), link, func(l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // usable at once, whatever the settings are
		}
		return n.links.AddrAdd(l, a)
	})
}

// DelAddr takes an address from a link of the node.
func (n *Node) DelAddr(link string, addr netip.Prefix) error {
	return n.change("without "+addr.String(), link, func(l netlink.Link) error {
		return n.links.AddrDel(l, &netlink.Addr{IPNet: ipNet(addr)})
	})
}

// AddRoute adds a route of the node, or replaces the one to the same network.
func (n *Node) AddRoute(to netip.Prefix, via netip.Addr) error {
	route := &netlink.Route{Gw: net.IP(via.AsSlice())}
	if to.Bits() > 0 {
		route.Dst = ipNet(to)
	}
	if err := n.links.RouteReplace(route); err != nil {
		return fmt.Errorf("node %s: route %v via %v: %w", n.Name, to, via, err)
	}
	return nil
}

// hasLinkLocal reports whether a link of the node has a link-local IPv6 address that
// can be used.
func (n *Node) hasLinkLocal(link string) bool {
	l, err := n.links.LinkByName(link)
	if err != nil {
		return false
	}
	addrs, err := n.links.AddrList(l, netlink.FAMILY_V6)
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
	})
}

// forget removes what the node knows about the MACs of IPv6 addresses.
func (n *Node) forget(addrs []netip.Prefix) error {
	known, err := n.links.NeighList(0, netlink.FAMILY_V6)
	if err != nil {
		return fmt.Errorf("node %s: neighbours: %w", n.Name, err)
	}
	for _, k := range known {
		if !slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return k.IP.Equal(a.Addr().AsSlice()) }) {
			continue
		}
		if err := n.links.NeighDel(&k); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("node %s: neighbour %v: %w", n.Name, k.IP, err)
		}
	}
	return nil
}

// change applies f to a link by its name and says what failed.
func (n *Node) change(what, link string, f func(netlink.Link) error) error {
	l, err := n.links.LinkByName(link)
	if err == nil {
		err = f(l)
	}
	if err != nil {
		return fmt.Errorf("node %s: link %s: %s: %w", n.Name, link, what, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   net.IP(p.Addr().AsSlice()),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}
