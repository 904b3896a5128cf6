// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"strconv"

	"github.com/vsnat/vsnat/conntrack"
)

// The lines of an FTP control connection that name an endpoint (RFC 959 section
// 4, RFC 2428):
//
//	PORT h1,h2,h3,h4,p1,p2                           client: connect to this
//	EPRT |1|192.0.2.7|40000|                         the same, in either family
//	PASV                                             where do you listen?
//	EPSV                                             the same, in either family
//	227 Entering Passive Mode (h1,h2,h3,h4,p1,p2).   server: here
//	229 Entering Extended Passive Mode (|||40000|)   at this port of mine
//
// The functions below read one line, or the beginning of one, and keep nothing.

// ftpCommand is what a line of the client asks for, as far as we care.
type ftpCommand uint8

const (
	ftpOther ftpCommand = iota
	ftpPort             // PORT or EPRT
	ftpPassive
	ftpExtendedPassive
)

// ftpEndpoint is an endpoint that a line names, and where it stands there.
type ftpEndpoint struct {
	from, to  int // line[from:to] is its text
	addr      conntrack.Addr
	named     bool // there is an address; else it is that of whoever speaks
	port      uint16
	delimiter byte // of the extended notation; 0: h1,h2,h3,h4,p1,p2
}

// ftpFound says whether a line names an endpoint.
type ftpFound uint8

const (
	ftpAbsent ftpFound = iota
	ftpCut             // the line ends in what may be one
	ftpWhole
)

// ftpMaxText is the longest text of an endpoint: |2|, an address of IPv6, |65535|.
const ftpMaxText = 3 + 39 + 7

// readFTPCommand reads a whole line of a client, with the end of line. A PORT or
// EPRT that is not exactly as it has to be asks for nothing.
func readFTPCommand(line []byte) (ftpCommand, ftpEndpoint) {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r' || line[len(line)-1] == ' ') {
		line = line[:len(line)-1]
	}
	if len(line) < 4 {
		return ftpOther, ftpEndpoint{}
	}
	at := 4
	for at < len(line) && line[at] == ' ' {
		at++
	}
	verb := [4]byte{line[0] &^ 0x20, line[1] &^ 0x20, line[2] &^ 0x20, line[3] &^ 0x20}
	switch {
	case string(verb[:]) == "PASV" && len(line) == 4:
		return ftpPassive, ftpEndpoint{}
	case string(verb[:]) == "EPSV" && (len(line) == 4 || at > 4 && len(line) == at+1): // a family, never ALL
		return ftpExtendedPassive, ftpEndpoint{}
	case at == 4:
		return ftpOther, ftpEndpoint{}
	case string(verb[:]) == "PORT":
		if e, _ := readFTPNumbers(line, at); e.to == len(line) {
			return ftpPort, e
		}
	case string(verb[:]) == "EPRT":
		if e, found := readFTPExtended(line, at); found == ftpWhole && e.named && e.to == len(line) {
			return ftpPort, e
		}
	}
	return ftpOther, ftpEndpoint{}
}

// namesFTPEndpoint reports whether a line that has not ended yet is a PORT or EPRT
// that goes on behind the word.
func namesFTPEndpoint(line []byte) bool {
	if len(line) < 6 || line[4] != ' ' {
		return false
	}
	verb := [4]byte{line[0] &^ 0x20, line[1] &^ 0x20, line[2] &^ 0x20, line[3] &^ 0x20}
	return string(verb[:]) == "PORT" || string(verb[:]) == "EPRT"
}

// readFTPReply looks for the endpoint in a reply 227 or 229, or in the beginning
// of one. What stands around it is free: the endpoint of a 227 begins with the
// first number that can be one (RFC 1123 section 4.1.2.6), that of a 229 behind a
// parenthesis.
func readFTPReply(line []byte) (e ftpEndpoint, found ftpFound) {
	extended := len(line) > 2 && line[2] == '9'
	for i := 4; i < len(line); i++ {
		switch {
		case extended && line[i-1] == '(':
			e, found = readFTPExtended(line, i)
		case !extended && isDigit(line[i]) && !isDigit(line[i-1]):
			if e, found = readFTPNumbers(line, i); e.to == len(line) {
				found = ftpCut // the last number may go on
			}
		}
		if found != ftpAbsent {
			return e, found
		}
	}
	if extended && len(line) > 4 && line[len(line)-1] == '(' {
		return e, ftpCut
	}
	return e, ftpAbsent
}

// readFTPNumbers reads h1,h2,h3,h4,p1,p2 at line[at:].
func readFTPNumbers(line []byte, at int) (ftpEndpoint, ftpFound) {
	var n [6]byte
	i := at
	for k := range n {
		if k > 0 {
			if i == len(line) {
				return ftpEndpoint{}, ftpCut
			}
			if line[i] != ',' {
				return ftpEndpoint{}, ftpAbsent
			}
			i++
		}
		v, digits := readNumber(line[i:], 3)
		i += digits
		if v > 255 || digits == 0 && i < len(line) {
			return ftpEndpoint{}, ftpAbsent
		}
		if digits == 0 {
			return ftpEndpoint{}, ftpCut
		}
		n[k] = byte(v)
	}
	if i < len(line) && isDigit(line[i]) {
		return ftpEndpoint{}, ftpAbsent
	}
	port := uint16(n[4])<<8 | uint16(n[5])
	return ftpEndpoint{from: at, to: i, addr: mapped(n[:4]), named: true, port: port}, ftpWhole
}

// readFTPExtended reads |family|address|port| at line[at:], with any delimiter.
// Family and address are both there, or both empty.
func readFTPExtended(line []byte, at int) (ftpEndpoint, ftpFound) {
	if at == len(line) {
		return ftpEndpoint{}, ftpCut
	}
	e := ftpEndpoint{from: at, delimiter: line[at]}
	if e.delimiter < 33 || e.delimiter > 126 || isDigit(e.delimiter) {
		return ftpEndpoint{}, ftpAbsent
	}
	family, i := untilDelimiter(line, at+1, e.delimiter, 1)
	if i < 0 {
		return ftpEndpoint{}, absentOrCut(len(family) <= 1)
	}
	address, i := untilDelimiter(line, i, e.delimiter, 45)
	if i < 0 {
		return ftpEndpoint{}, absentOrCut(len(address) <= 45)
	}
	switch string(family) {
	case "":
		if len(address) > 0 {
			return ftpEndpoint{}, ftpAbsent
		}
	case "1":
		e.addr, e.named = readIPv4Text(address)
	case "2":
		e.addr, e.named = readIPv6Text(address)
		e.named = e.named && !e.addr.Is4()
	}
	if len(family) > 0 && !e.named {
		return ftpEndpoint{}, ftpAbsent
	}
	v, digits := readNumber(line[i:], 5)
	i += digits
	switch {
	case i == len(line):
		return ftpEndpoint{}, ftpCut
	case digits == 0 || v > 65535 || line[i] != e.delimiter:
		return ftpEndpoint{}, ftpAbsent
	}
	e.port, e.to = uint16(v), i+1
	return e, ftpWhole
}

func absentOrCut(cut bool) ftpFound {
	if cut {
		return ftpCut
	}
	return ftpAbsent
}

// untilDelimiter returns the field of at most longest bytes at line[at:] and
// where the next one begins; -1, and what there is of it, if no delimiter ends it.
func untilDelimiter(line []byte, at int, delimiter byte, longest int) (field []byte, next int) {
	for i := at; i < len(line) && i-at <= longest; i++ {
		if line[i] == delimiter {
			return line[at:i], i + 1
		}
	}
	return line[at:min(len(line), at+longest+1)], -1
}

// readNumber reads a decimal number of at most longest digits.
func readNumber(b []byte, longest int) (v, digits int) {
	for digits < len(b) && digits < longest && isDigit(b[digits]) {
		v = v*10 + int(b[digits]-'0')
		digits++
	}
	return v, digits
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// readIPv4Text reads a dotted address. It is netip.ParseAddr without a string,
// and without an error that would have to be made.
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

// appendText writes e, with the address and port that replace its own, in the
// notation in which it was read.
func (e *ftpEndpoint) appendText(b []byte, addr *conntrack.Addr, port uint16) []byte {
	if e.delimiter == 0 {
		for _, v := range addr[12:] {
			b = append(strconv.AppendUint(b, uint64(v), 10), ',')
		}
		b = append(strconv.AppendUint(b, uint64(port>>8), 10), ',')
		return strconv.AppendUint(b, uint64(port&0xff), 10)
	}
	b = append(b, e.delimiter)
	if addr != nil {
		family := byte('2')
		if addr.Is4() {
			family = '1'
		}
		b = append(b, family, e.delimiter)
		b = addr.Netip().AppendTo(b)
	} else {
		b = append(b, e.delimiter)
	}
	b = append(b, e.delimiter)
	b = strconv.AppendUint(b, uint64(port), 10)
	return append(b, e.delimiter)
}
