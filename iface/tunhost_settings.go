// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forwardingAll6 is the setting without which no link forwards IPv6; the kernel
// hands its value on to all of them.
const forwardingAll6 = "net/ipv6/conf/all/forwarding"

// earlyDemux is, for both families, whether a packet is matched with the host's sockets
// before it is routed.
const earlyDemux = "net/ipv4/ip_early_demux"

func forwarding4(link string) string { return "net/ipv4/conf/" + link + "/forwarding" }
func forwarding6(link string) string { return "net/ipv6/conf/" + link + "/forwarding" }

// wantedSetting is a setting of the kernel and what it must be.
type wantedSetting struct{ path, value string }

// applySettings first writes down what it is going to change.
func (h *TUNHost) applySettings(rules TUNHostRules) error {
	var want []wantedSetting
	dummy := false
	if part := ofFamily(rules, unix.AF_INET); asks(part) {
		filter, err := sourceFilter()
		if err != nil {
			return err
		}
		dummy = filter != "0"
		want = h.settings4(part, filter)
	}
	if part := ofFamily(rules, unix.AF_INET6); asks(part) {
		list, err := h.settings6(part)
		if err != nil {
			return err
		}
		want = append(want, list...)
	}
	if asks(rules) {
		want = append(want, wantedSetting{earlyDemux, "0"})
	}

	var errs []error
	for path := range h.undo.Settings {
		if !slices.ContainsFunc(want, func(s wantedSetting) bool { return s.path == path }) {
			errs = append(errs, h.undo.restore(path))
		}
	}
	for _, s := range want {
		now, err := readSysctl(s.path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, known := h.undo.Settings[s.path]; !known && now != s.value {
			h.undo.Settings[s.path] = tunHostSetting{Before: now, Ours: s.value}
		}
	}
	errs = append(errs, h.save())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range want {
		if now, err := readSysctl(s.path); err == nil && now == s.value {
			continue
		}
		errs = append(errs, writeSysctl(s.path, s.value))
	}
	if dummy {
		errs = append(errs, h.addDummy())
	}
	return errors.Join(errs...)
}

// sourceFilter is the rp_filter that the device is to have. The kernel takes the
// higher number of "all" and the device: 0 is off, 1 strict, 2 loose.
func sourceFilter() (string, error) {
	all, err := readSysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(all); err != nil || n > 0 {
		return "2", nil
	}
	return "0", nil
}

func (h *TUNHost) settings4(rules TUNHostRules, filter string) []wantedSetting {
	device := "net/ipv4/conf/" + h.device
	want := []wantedSetting{
		{forwarding4(h.device), "1"}, {device + "/accept_local", "1"},
		{device + "/rp_filter", filter}, {device + "/send_redirects", "0"},
	}
	for _, link := range rules.Links {
		want = append(want, wantedSetting{forwarding4(link), "1"})
		if len(rules.Owned) > 0 {
			want = append(want, wantedSetting{"net/ipv4/neigh/" + link + "/proxy_delay", "0"})
		}
	}
	return want
}

// settings6 has accept_ra before forwarding: the kernel forgets the routes from
// routers when that is switched on.
func (h *TUNHost) settings6(rules TUNHostRules) ([]wantedSetting, error) {
	links, err := h.otherLinks()
	if err != nil {
		return nil, err
	}
	var want []wantedSetting
	for _, link := range links {
		path := "net/ipv6/conf/" + link + "/accept_ra"
		_, ours := h.undo.Settings[path]
		if now, err := readSysctl(path); err == nil && (ours || now == "1") {
			want = append(want, wantedSetting{path, "2"})
		}
	}
	if now, err := readSysctl(forwardingAll6); err == nil && now != "1" {
		h.undo.Forwarded6 = nil
		for _, link := range append(links, "default") {
			if now, err := readSysctl(forwarding6(link)); err == nil && now == "1" {
				h.undo.Forwarded6 = append(h.undo.Forwarded6, link)
			}
		}
	}
	want = append(want, wantedSetting{forwardingAll6, "1"})
	if len(rules.Owned)+len(sharedAddrs(rules)) > 0 {
		want = append(want, wantedSetting{"net/ipv6/conf/all/proxy_ndp", "1"})
		for _, link := range rules.Links {
			want = append(want, wantedSetting{"net/ipv6/neigh/" + link + "/proxy_delay", "0"})
		}
	}
	return want, nil
}

// otherLinks are the names of all links but lo and the device.
func (h *TUNHost) otherLinks() ([]string, error) {
	links, err := h.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		if a := l.Attrs(); a.Name != h.device && a.Flags&net.FlagLoopback == 0 {
			names = append(names, a.Name)
		}
	}
	return sorted(names, strings.Compare), nil
}

// closed are the links whose packets of a family the host did not forward before
// we had it do so. IPv6 has one switch for all of them.
func (h *TUNHost) closed(family int) ([]string, error) {
	links, err := h.otherLinks()
	if family == unix.AF_INET6 {
		if _, ours := h.undo.Settings[forwardingAll6]; !ours {
			return nil, err
		}
		return links, err
	}
	return slices.DeleteFunc(links, func(link string) bool {
		_, ours := h.undo.Settings[forwarding4(link)]
		return !ours
	}), err
}

// addDummy gives the device an address; see __fib_validate_source, no_addr.
func (h *TUNHost) addDummy() error {
	link, err := h.handle.LinkByName(h.device)
	if err == nil {
		err = h.handle.AddrReplace(link, dummyAddr())
	}
	if err != nil {
		return fmt.Errorf("dummy address of the device: %w", err)
	}
	return nil
}

func (h *TUNHost) removeDummy() {
	if link, err := h.handle.LinkByName(h.device); err == nil {
		_ = h.handle.AddrDel(link, dummyAddr()) // it may not be there
	}
}

func dummyAddr() *netlink.Addr {
	return &netlink.Addr{IPNet: hostNet(netip.AddrFrom4([4]byte{192, 0, 0, 8})), Scope: int(netlink.SCOPE_HOST)}
}

func (h *TUNHost) applyRoute(rules TUNHostRules) error {
	link, err := h.handle.LinkByName(h.device)
	if err != nil {
		return err
	}
	for family, all := range map[int]netip.Addr{unix.AF_INET: netip.IPv4Unspecified(), unix.AF_INET6: netip.IPv6Unspecified()} {
		if !asks(ofFamily(rules, family)) {
			continue
		}
		err := h.handle.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Table: tunHostTable, Protocol: tunHostProtocol, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: all.AsSlice(), Mask: net.CIDRMask(0, all.BitLen())},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// applyProxies has the served links answer for owned addresses. In IPv6 also for
// those of the host that ICMPv6 is taken of: an address answers only on the link
// that has it, and what tells the kernel to look for neighbour discovery among
// what it routes is such an entry (ip6_forward).
func (h *TUNHost) applyProxies(rules TUNHostRules) error {
	addrs := slices.Concat(rules.Owned, sharedAddrs(ofFamily(rules, unix.AF_INET6)))
	var want []tunHostProxy
	for _, link := range rules.Links {
		for _, addr := range addrs {
			want = append(want, tunHostProxy{Link: link, Addr: addr})
		}
	}
	want = h.claim(want, rules.Owned)
	var errs []error
	before := h.undo.Proxies
	for _, p := range before {
		if !slices.Contains(want, p) {
			errs = append(errs, p.remove(h.handle))
		}
	}
	h.undo.Proxies = want
	errs = append(errs, h.save())
	for _, p := range want {
		errs = append(errs, p.add(h.handle))
	}
	return errors.Join(errs...)
}
