// SPDX-License-Identifier: Apache-2.0

package iface

// Whether an owned IPv6 address is somebody's already (RFC 4862). The kernel asks for
// us: it is told that the address is a neighbour's that is wanted, and whoever has it
// answers. Otherwise as in neighbour_claim.go: an address is answered for from the
// beginning, with a proxy entry, which never overrides what others know; what is
// taken is left alone, and asked for again.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunHostClaim is how far we are with an owned address on a link.
type tunHostClaim struct {
	state ownership
	quiet bool // it was taken: not answered for before it is held
	next  time.Time
	mac   [6]byte // of who has it, if taken
}

// TakenAddress is an owned address that another station on a link has.
type TakenAddress struct {
	Link string
	Addr netip.Addr
	MAC  [6]byte
}

// Taken lists the owned IPv6 addresses that are not claimed, because other stations
// have them, by link and address.
func (h *TUNHost) Taken() (list []TakenAddress) {
	for p, c := range h.claims {
		if c.quiet {
			list = append(list, TakenAddress{p.Link, p.Addr, c.mac})
		}
	}
	slices.SortFunc(list, func(a, b TakenAddress) int {
		return compareProxy(tunHostProxy{a.Link, a.Addr}, tunHostProxy{b.Link, b.Addr})
	})
	return list
}

// Claim asks whether owned IPv6 addresses are taken, and gives up or takes up what
// turned out by now. To be called every second or so.
func (h *TUNHost) Claim(now time.Time) error {
	neighbours := make(map[string][]netlink.Neigh) // of links, read once
	changed := false
	var errs []error
	for p, c := range h.claims {
		if c.state == held || now.Before(c.next) && c.state != probed {
			continue
		}
		if c.state != probed {
			c.state, c.next = probed, now.Add(probeTime)
			errs = append(errs, h.askFor(p))
			continue
		}
		list, read := neighbours[p.Link]
		if !read {
			var err error
			if list, err = h.neighboursOn(p.Link); err != nil {
				errs = append(errs, err)
				continue
			}
			neighbours[p.Link] = list
		}
		switch mac, found := whoHas(list, p.Addr); {
		case found:
			*c = tunHostClaim{state: taken, quiet: true, mac: mac, next: now.Add(takenTime)}
			changed = true
		case !now.Before(c.next):
			changed = changed || c.quiet
			*c = tunHostClaim{state: held}
		}
	}
	if changed {
		errs = append(errs, h.applyProxies(h.rules))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tun host %s: claim addresses: %w", h.device, err)
	}
	return nil
}

// claim keeps what is known of the proxies that were there before, and leaves out
// those that are somebody else's.
func (h *TUNHost) claim(proxies []tunHostProxy, owned []netip.Addr) []tunHostProxy {
	old := h.claims
	h.claims = make(map[tunHostProxy]*tunHostClaim)
	return slices.DeleteFunc(proxies, func(p tunHostProxy) bool {
		if p.Addr.Is4() || !hasAddr(owned, p.Addr) {
			return false
		}
		c := old[p]
		if c == nil {
			c = &tunHostClaim{}
		}
		h.claims[p] = c
		return c.quiet
	})
}

// askFor has the kernel look for a neighbour with an address, anew.
func (h *TUNHost) askFor(p tunHostProxy) error {
	link, err := h.handle.LinkByName(p.Link)
	if err != nil {
		return nil // the next Apply leaves it out
	}
	entry := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET6, IP: p.Addr.AsSlice()}
	_ = h.handle.NeighDel(entry) // of an earlier question; there may be none
	entry.Flags, entry.HardwareAddr = netlink.NTF_USE, make(net.HardwareAddr, 6)
	if err := h.handle.NeighSet(entry); err != nil {
		return fmt.Errorf("ask for %s on %s: %w", p.Addr, p.Link, err)
	}
	return nil
}

func (h *TUNHost) neighboursOn(name string) ([]netlink.Neigh, error) {
	link, err := h.handle.LinkByName(name)
	if err != nil {
		return nil, nil // the next Apply leaves it out
	}
	list, err := h.handle.NeighList(link.Attrs().Index, unix.AF_INET6)
	if err != nil {
		return nil, fmt.Errorf("list the neighbours on %s: %w", name, err)
	}
	// Two links of ours may be on one, and answer each other.
	links, err := h.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return slices.DeleteFunc(list, func(n netlink.Neigh) bool {
		return slices.ContainsFunc(links, func(l netlink.Link) bool { return slices.Equal(l.Attrs().HardwareAddr, n.HardwareAddr) })
	}), nil
}

// whoHas finds who has answered for an address.
func whoHas(list []netlink.Neigh, addr netip.Addr) (mac [6]byte, found bool) {
	const answered = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP); ok && a == addr && n.State&answered != 0 && len(n.HardwareAddr) == 6 {
			return [6]byte(n.HardwareAddr), true
		}
	}
	return mac, false
}
