// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Addresses as text. net/netip reads them too, from a string and with an error that
// would have to be made for each that is none.

// readIPv4Text reads a dotted address.
func readIPv4Text(b []byte) (conntrack.Addr, bool) {
	var a [4]byte
	i := 0
	for k := range a {
		if k > 0 {
			if i == len(b) || b[i] != '.' {
				return conntrack.Addr{}, false
			}
			i++
		}
		v, digits := readNumber(b[i:], 3)
		if digits == 0 || v > 255 || digits > 1 && b[i] == '0' {
			return conntrack.Addr{}, false
		}
		a[k] = byte(v)
		i += digits
	}
	return mapped(a[:]), i == len(b)
}

// readIPv6Text reads an address of IPv6 in any of its forms (RFC 4291 section
// 2.2), without a zone.
func readIPv6Text(b []byte) (a conntrack.Addr, ok bool) {
	gap, n := -1, 0 // where "::" stands, and bytes of a that are read
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if n == len(a) {
			return a, false
		}
		v, digits := readHex(b)
		if digits == 0 {
			return a, false
		}
		if digits < len(b) && b[digits] == '.' {
			v4, good := readIPv4Text(b)
			if !good || n > len(a)-4 {
				return a, false
			}
			n += copy(a[n:], v4[12:])
			break
		}
		a[n], a[n+1] = byte(v>>8), byte(v)
		n += 2
		if b = b[digits:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return a, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return a, false
			}
			gap, b = n, b[1:]
		}
	}
	if gap < 0 {
		return a, n == len(a)
	}
	if n == len(a) {
		return a, false
	}
	moved := copy(a[len(a)-(n-gap):], a[gap:n])
	clear(a[gap : len(a)-moved])
	return a, true
}

// readHex reads a number of at most four hexadecimal digits.
func readHex(b []byte) (v, digits int) {
	for digits < len(b) && digits < 4 {
		c := b[digits] | 0x20
		switch {
		case isDigit(b[digits]):
			v = v<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | int(c-'a'+10)
		default:
			return v, digits
		}
		digits++
	}
	return v, digits
}
