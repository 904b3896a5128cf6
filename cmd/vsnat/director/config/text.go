// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// From a text of the file to a value. Each returns the value, or what is
// wrong with the text and a hint.

// complaint is why a text is not a value; its zero value is no complaint.
type complaint struct{ message, hint string }

func (c complaint) ok() bool { return c == complaint{} }

func complain(hint, format string, args ...any) complaint {
	return complaint{fmt.Sprintf(format, args...), hint}
}

// complaintOf is a refusal of the control protocol as a complaint.
func complaintOf(err error) complaint {
	var e *control.Error
	if errors.As(err, &e) {
		return complaint{e.Message, e.Hint}
	}
	return complaint{}
}

const endpointHint = "write address:port, for example 192.0.2.1:80 or \"[2001:db8::1]:80\""

// noPort as the port of an address without one means that it must have one.
const noPort = -1

// parseEndpoint reads address:port, with missing as the port of an address that
// has none. Port 0 is a port here.
func parseEndpoint(s string, missing int) (netip.AddrPort, complaint) {
	host, port, colon := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.Contains(s[:i], ":") || strings.Contains(s, "]:") {
		host, port, colon = s[:i], s[i+1:], true
	}
	if inside, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inside, "]"); !ok {
			return netip.AddrPort{}, complain(endpointHint, "%.60q has a bracket that is never closed", s)
		}
	}
	addr, bad := parseAddress(host)
	if !bad.ok() {
		return netip.AddrPort{}, bad
	}
	if !colon {
		if missing == noPort {
			return netip.AddrPort{}, complain(endpointHint, "%.60q has no port", s)
		}
		return netip.AddrPortFrom(addr, uint16(missing)), complaint{}
	}
	n, bad := parsePort(port, 0)
	return netip.AddrPortFrom(addr, n), bad
}

// parseAddress reads an IP address; IPv4 in IPv6 form becomes IPv4.
func parseAddress(s string) (netip.Addr, complaint) {
	addr, err := netip.ParseAddr(s)
	if err == nil {
		return addr.Unmap(), complaint{}
	}
	hint := "an IPv4 address is four numbers of 0 to 255, without leading zeros"
	switch {
	case s == "":
		hint = endpointHint
	case strings.Contains(s, ":"):
		hint = "IPv6 addresses with a port go into brackets and quotes: \"[2001:db8::1]:80\""
	case strings.Trim(s, "0123456789./") != "":
		hint = "write the address: names are not looked up, since what they mean may change"
	}
	return netip.Addr{}, complain(hint, "%.60q is not an IP address", s)
}

func parsePort(s string, lowest uint64) (uint16, complaint) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < lowest {
		return 0, complain("a port is a number of 1 to 65535", "%.60q is not a port", s)
	}
	return uint16(n), complaint{}
}

// parsePorts reads lowest-highest, or one port.
func parsePorts(s string) (lowest, highest uint16, bad complaint) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	lowest, bad = parsePort(strings.TrimSpace(low), 1)
	if !bad.ok() {
		return 0, 0, bad
	}
	highest, bad = parsePort(strings.TrimSpace(high), 1)
	if !bad.ok() {
		return 0, 0, bad
	}
	return lowest, highest, complaint{}
}

// parsePrefix reads address/length, address/netmask or an address alone; the
// address keeps the bits behind the mask.
func parsePrefix(s string) (netip.Prefix, complaint) {
	host, mask, slash := strings.Cut(s, "/")
	addr, bad := parseAddress(host)
	if !bad.ok() {
		return netip.Prefix{}, bad
	}
	if !slash {
		return netip.PrefixFrom(addr, addr.BitLen()), complaint{}
	}
	if strings.Contains(mask, ".") {
		return parseNetmask(s, addr, mask)
	}
	n, err := strconv.ParseUint(mask, 10, 8)
	if err != nil || int(n) > addr.BitLen() {
		return netip.Prefix{}, complain(fmt.Sprintf("write address/length with a length of 0 to %d", addr.BitLen()), "%.60q has no prefix length behind the slash", s)
	}
	return netip.PrefixFrom(addr, int(n)), complaint{}
}

// parseNetmask is the old notation, 10.0.0.0/255.255.255.0.
func parseNetmask(s string, addr netip.Addr, mask string) (netip.Prefix, complaint) {
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() || !addr.Is4() {
		return netip.Prefix{}, complain("write address/length, for example 10.0.0.0/24", "%.60q has no netmask behind the slash", s)
	}
	b := m.As4()
	word := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	ones := bits.LeadingZeros32(^word)
	if word<<ones != 0 {
		return netip.Prefix{}, complain("a netmask is ones followed by zeros, as 255.255.255.0; better write address/length", "the netmask %s has holes", mask)
	}
	return netip.PrefixFrom(addr, ones), complaint{}
}

// parseInt reads a number of min to max, with _ between digits if that helps.
func parseInt(s string, lowest, highest int) (int, complaint) {
	n, err := strconv.Atoi(strings.ReplaceAll(s, "_", ""))
	if err != nil || n < lowest || n > highest {
		return 0, complain(fmt.Sprintf("a whole number of %d to %d", lowest, highest), "%.40q is not possible here", s)
	}
	return n, complaint{}
}

const timeoutHint = "whole seconds from 1 to 2678400 (31 days), or a duration such as 90s, 15m or 2h30m"

// parseTimeout reads seconds, or a duration in Go's notation.
func parseTimeout(s string) (control.Duration, complaint) {
	d, err := time.ParseDuration(s)
	if n, whole := strconv.ParseInt(s, 10, 32); whole == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < time.Second || d > MaxTimeout || d%time.Second != 0 {
		return 0, complain(timeoutHint, "%.40q is not a timeout", s)
	}
	return control.Duration(d), complaint{}
}

// parseMode reads the mode of the socket file, in octal as chmod does.
func parseMode(s string) (fs.FileMode, complaint) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 12)
	mode := fs.FileMode(n)
	if err != nil || mode != 0o600 && mode != 0o660 {
		return 0, complain("0600: root and the director's own user; 0660: also the group", "the socket can't have mode %.20q", s)
	}
	return mode, complaint{}
}
