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

// ftpMaxText is the longest text of an endpoint that we write: |2|, an address of IPv6,
// |65535|. What is read may have its address in a form of 45 bytes.
const ftpMaxText = 3 + 39 + 7

// ftpBehind is how much of what stands behind an endpoint may have to be kept until it
// is whole.
const ftpBehind = 6

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

// mayNameEndpoint says where in a line of a client that has not ended yet the endpoint
// of a PORT or EPRT begins; -1 if there is none, or what there is of it can't become
// one, with the little that may stand behind it.
func mayNameEndpoint(line []byte) int {
	if len(line) < 6 || line[4] != ' ' {
		return -1
	}
	at := 5
	for at < len(line) && line[at] == ' ' {
		at++
	}
	if at == len(line) {
		return -1
	}
	verb := [4]byte{line[0] &^ 0x20, line[1] &^ 0x20, line[2] &^ 0x20, line[3] &^ 0x20}
	var e ftpEndpoint
	found := ftpAbsent
	switch string(verb[:]) {
	case "PORT":
		e, found = readFTPNumbers(line, at)
	case "EPRT":
		e, found = readFTPExtended(line, at)
	}
	switch found {
	case ftpAbsent:
		return -1
	case ftpWhole:
		rest := line[e.to:]
		if len(rest) > ftpBehind {
			return -1
		}
		for _, c := range rest {
			if c != ' ' && c != '\r' {
				return -1
			}
		}
	}
	return at
}

// seekFTPReply looks for the endpoint of a 227, or of a 229 if extended, in text, which
// stands behind the byte before in a line, and may end before the line does. What
// stands around it is free: the endpoint of a 227 begins with the first number that
// can be one (RFC 1123 section 4.1.2.6), that of a 229 behind a parenthesis. Where
// found is ftpCut, e.from says where it may begin.
//
// One that can't be an endpoint any more holds no beginning of another one: so a line
// can be read in pieces.
func seekFTPReply(extended bool, before byte, text []byte) (e ftpEndpoint, found ftpFound) {
	for i, c := range text {
		if extended && before == '(' || !extended && isDigit(c) && !isDigit(before) {
			if e, found = readFTPReply(extended, text, i); found != ftpAbsent {
				return e, found
			}
		}
		before = c
	}
	return e, ftpAbsent
}

// readFTPReply reads the endpoint of a 227, or of a 229, at text[at:].
func readFTPReply(extended bool, text []byte, at int) (e ftpEndpoint, found ftpFound) {
	if extended {
		e, found = readFTPExtended(text, at)
	} else if e, found = readFTPNumbers(text, at); found == ftpWhole && e.to == len(text) {
		found = ftpCut // the last number may go on
	}
	e.from = at
	return e, found
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

// readFTPExtended reads |family|address|port| at line[at:], with any delimiter but a
// parenthesis. Family and address are both there, or both empty.
func readFTPExtended(line []byte, at int) (ftpEndpoint, ftpFound) {
	e := ftpEndpoint{from: at, delimiter: line[at]}
	if e.delimiter < 33 || e.delimiter > 126 || e.delimiter == '(' || isDigit(e.delimiter) {
		return ftpEndpoint{}, ftpAbsent
	}
	family, i, found := untilDelimiter(line, at+1, e.delimiter, 1, isDigit)
	if found != ftpWhole {
		return ftpEndpoint{}, found
	}
	address, i, found := untilDelimiter(line, i, e.delimiter, 45, isAddress)
	if found != ftpWhole {
		return ftpEndpoint{}, found
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

// untilDelimiter returns the field of at most longest bytes at line[at:], all of a
// kind, and where the next one begins.
func untilDelimiter(line []byte, at int, delimiter byte, longest int, kind func(byte) bool) (field []byte, next int, found ftpFound) {
	for i := at; i < len(line); i++ {
		switch {
		case line[i] == delimiter:
			return line[at:i], i + 1, ftpWhole
		case i-at == longest || !kind(line[i]):
			return nil, 0, ftpAbsent
		}
	}
	return nil, 0, ftpCut
}

func isAddress(c byte) bool {
	return isDigit(c) || c == '.' || c == ':' || c|0x20 >= 'a' && c|0x20 <= 'f'
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
