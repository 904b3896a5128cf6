// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
)

// applySettings first writes down what it is going to change.
func (h *TUNHost) applySettings(rules GuardRules) error {
	all, err := readSysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return err
	}
	// The kernel takes the higher number of "all" and the device: 0 is off, 1
	// strict, 2 loose.
	filter := "0"
	if n, err := strconv.Atoi(all); err != nil || n > 0 {
		filter = "2"
	}
	device := "net/ipv4/conf/" + h.device
	want := map[string]string{
		device + "/forwarding": "1", device + "/accept_local": "1",
		device + "/rp_filter": filter, device + "/send_redirects": "0",
	}
	for _, link := range rules.Links {
		want["net/ipv4/conf/"+link+"/forwarding"] = "1"
		if len(rules.Owned) > 0 {
			want["net/ipv4/neigh/"+link+"/proxy_delay"] = "0"
		}
	}

	var errs []error
	for path := range h.undo.Settings {
		if _, keep := want[path]; !keep {
			errs = append(errs, h.undo.restore(path))
		}
	}
	for path, value := range want {
		now, err := readSysctl(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, known := h.undo.Settings[path]; !known && now != value {
			h.undo.Settings[path] = tunHostSetting{Before: now, Ours: value}
		}
	}
	errs = append(errs, h.save())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for path, value := range want {
		if now, err := readSysctl(path); err == nil && now == value {
			continue
		}
		errs = append(errs, writeSysctl(path, value))
	}
	if filter != "0" {
		errs = append(errs, h.addDummy())
	}
	return errors.Join(errs...)
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

func (h *TUNHost) applyRoute(GuardRules) error {
	link, err := h.handle.LinkByName(h.device)
	if err != nil {
		return err
	}
	return h.handle.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Table: tunHostTable, Protocol: tunHostProtocol,
		Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	})
}

func (h *TUNHost) applyProxies(rules GuardRules) error {
	var want []tunHostProxy
	for _, link := range rules.Links {
		for _, addr := range rules.Owned {
			want = append(want, tunHostProxy{Link: link, Addr: addr})
		}
	}
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
