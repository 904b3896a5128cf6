// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"net/netip"
	"strconv"
	"strings"
)

// An endpoint is HOST[:PORT] as written, read but for the port: a service name
// needs the protocol, which may come in a later word.
type endpoint struct {
	addr     netip.Addr
	port     string
	withPort bool
}

// parseEndpoint reads ADDRESS, ADDRESS:PORT, [IPv6]:PORT, IPv6 or NAME:PORT.
// What is digits only is refused, since it might be meant as a mark.
func parseEndpoint(s string, names Resolver) (endpoint, bool) {
	if strings.Trim(s, "0123456789") == "" {
		return endpoint{}, false
	}
	if strings.HasPrefix(s, "[") {
		host, port, ok := strings.Cut(s[1:], "]:")
		addr, err := netip.ParseAddr(host)
		return endpoint{addr, port, true}, ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() && addr.Zone() == "" {
		return endpoint{addr: addr}, true
	}
	host, port, withPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port, withPort = s[:i], s[i+1:], true
	}
	addr, ok := parseHost(host, names)
	return endpoint{addr, port, withPort}, ok
}

// number is the endpoint's port: a number, or a service name of that protocol.
func (e endpoint) number(proto uint8, names Resolver) (uint16, bool) {
	if n, ok := parseNumber(e.port, 0, 65535); ok {
		return uint16(n), true
	}
	if e.port == "" {
		return 0, false
	}
	return names.Port(e.port, proto)
}

// parseHost reads an IPv4 address or a name that has one.
func parseHost(s string, names Resolver) (netip.Addr, bool) {
	if addr, ok := parseIPv4(s); ok {
		return addr, true
	}
	if strings.Trim(s, "0123456789.") == "" {
		return netip.Addr{}, false // a mistyped address; no name server needs to hear of it
	}
	return names.Host(s)
}

// parseIPv4 reads an address as inet_aton(3) does: one to four numbers, each
// decimal, octal after 0 or hexadecimal after 0x, of which the last fills all the
// bytes that are left. 192.168.88 is 192.168.0.88.
func parseIPv4(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var addr [4]byte
	for i, part := range parts {
		if part == "" || part[0] < '0' || part[0] > '9' || strings.Contains(part, "_") {
			return netip.Addr{}, false
		}
		base := 10
		switch {
		case strings.HasPrefix(part, "0x"), strings.HasPrefix(part, "0X"):
			base, part = 16, part[2:]
		case part[0] == '0':
			base = 8
		}
		bytes := 1
		if i == len(parts)-1 {
			bytes = 4 - i
		}
		n, err := strconv.ParseUint(part, base, 8*bytes)
		if err != nil {
			return netip.Addr{}, false
		}
		for b := range bytes {
			addr[i+b] = byte(n >> (8 * (bytes - 1 - b)))
		}
	}
	return netip.AddrFrom4(addr), true
}

// parsePrefix reads a number as atoi(3) does: what follows it does not matter.
func parsePrefix(s string) (int, bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[end] == '-' || s[end] == '+')) {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	return n, err == nil
}

// parseNumber reads a number as strtol(3) does, which allows blanks and a sign
// before it.
func parseNumber(s string, lowest, highest int64) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 64)
	return n, err == nil && lowest <= n && n <= highest
}
