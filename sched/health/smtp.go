// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// smtpCheck is greeted by a mail server (220), says EHLO if it has a name to say,
// and takes its leave.
type smtpCheck struct {
	to    netip.AddrPort
	name  string
	tools Tools
}

// Check implements checker.
func (c *smtpCheck) Check(ctx context.Context) Result {
	conn, err := c.tools.dial(ctx, "tcp", c.to)
	if err != nil {
		return failed(ctx, "connect", err)
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, maxLine)
	greeting, err := smtpReply(r)
	if err != nil {
		return failed(ctx, "greeting", err)
	}
	if !strings.HasPrefix(greeting, "220") {
		return bad("greeting: %s", greeting)
	}
	if c.name != "" {
		if _, err := fmt.Fprintf(conn, "EHLO %s\r\n", c.name); err != nil {
			return failed(ctx, "EHLO", err)
		}
		answer, err := smtpReply(r)
		if err != nil {
			return failed(ctx, "EHLO", err)
		}
		if !strings.HasPrefix(answer, "250") {
			return bad("EHLO: %s", answer)
		}
	}
	_, _ = fmt.Fprintf(conn, "QUIT\r\n")
	_, _ = smtpReply(r) // so that the server logs no broken connection
	return good("%s", greeting)
}

var errLong = errors.New("the server does not come to an end")

// smtpReply reads the lines of one reply, and returns the last (RFC 5321, 4.2.1).
func smtpReply(r *bufio.Reader) (string, error) {
	for range maxLines {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", errLong
		}
		if err != nil {
			return "", err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if len(text) < 4 || text[3] != '-' {
			return text, nil
		}
	}
	return "", errLong
}
