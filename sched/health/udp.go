// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// udpCheck sends a datagram and looks at the first answer, from a port of its own
// each time. Without an expected one any will do.
type udpCheck struct {
	to     netip.AddrPort
	send   pattern
	expect pattern
	tools  Tools
}

func newUDPCheck(t Target, tools Tools) (*udpCheck, error) {
	c := &udpCheck{to: t.Endpoint(), tools: tools}
	var err error
	if c.send, err = parsePattern(t.Send, false); err != nil {
		return nil, err
	}
	c.expect, err = parsePattern(t.Expect, true)
	c.expect.rest = c.expect.rest || t.Expect == ""
	return c, err
}

// Check implements checker.
func (c *udpCheck) Check(ctx context.Context) Result {
	conn, err := c.tools.dial(ctx, "udp", c.to)
	if err != nil {
		return failed(ctx, "send", err)
	}
	defer conn.Close()
	if _, err := conn.Write(c.send.bytes); err != nil {
		return failed(ctx, "send", err)
	}
	answer := make([]byte, maxDatagram)
	n, err := conn.Read(answer)
	if err != nil {
		return failed(ctx, "answer", err) // port unreachable is "connection refused"
	}
	if !c.expect.matches(answer[:n]) {
		return bad("an answer of %d bytes that is not the expected one: %x", n, answer[:min(n, 32)])
	}
	return good("answered, %d bytes", n)
}

const maxDatagram = 65535

// A pattern is bytes of a datagram, some of which may be any.
type pattern struct {
	bytes []byte
	any   []bool // parallel: this byte may be any
	rest  bool   // what follows may be any
}

// parsePattern reads text as it is, or after "hex:" pairs of hexadecimal digits
// with blanks between them as one likes. With wildcards, ?? stands there for any
// byte, and * at the end, in either, for any rest.
func parsePattern(text string, wildcards bool) (p pattern, err error) {
	digits, isHex := strings.CutPrefix(text, "hex:")
	if wildcards {
		digits, p.rest = strings.CutSuffix(digits, "*")
	}
	if !isHex {
		p.bytes = []byte(digits)
		p.any = make([]bool, len(p.bytes))
		return p, nil
	}
	digits = strings.Join(strings.Fields(digits), "")
	for ; len(digits) >= 2; digits = digits[2:] {
		pair := digits[:2]
		if wildcards && pair == "??" {
			p.bytes, p.any = append(p.bytes, 0), append(p.any, true)
			continue
		}
		b, err := hex.DecodeString(pair)
		if err != nil {
			return p, fmt.Errorf("%q is no pair of hexadecimal digits", pair)
		}
		p.bytes, p.any = append(p.bytes, b[0]), append(p.any, false)
	}
	if digits != "" {
		return p, fmt.Errorf("%q is half a byte", digits)
	}
	if len(p.bytes) > 1400 {
		return p, fmt.Errorf("%d bytes do not fit into one packet", len(p.bytes))
	}
	return p, nil
}

func (p *pattern) matches(b []byte) bool {
	if len(b) < len(p.bytes) || len(b) > len(p.bytes) && !p.rest {
		return false
	}
	if bytes.Equal(b[:len(p.bytes)], p.bytes) {
		return true
	}
	for i := range p.bytes {
		if !p.any[i] && b[i] != p.bytes[i] {
			return false
		}
	}
	return true
}
