// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// agentCheck asks a program on the server how it does, which answers with one line
// and closes, as the agents of HAProxy do. Of its words the last one counts that says
// something of a kind:
//
//	up, ready             good, with the configured weight
//	down, fail, stopped   bad; the rest says why
//	drain, maint          good, with a weight of 0
//	50%                   good, with that share of the configured weight
//	50                    good, with that weight
//
// in letters of either case; what follows a # is for people alone.
type agentCheck struct {
	to    netip.AddrPort
	tools Tools
}

// Check implements checker.
func (c *agentCheck) Check(ctx context.Context) Result {
	conn, err := c.tools.dial(ctx, "tcp", c.to)
	if err != nil {
		return failed(ctx, "connect", err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(io.LimitReader(conn, maxLine)).ReadString('\n')
	if err != nil && !(errors.Is(err, io.EOF) && line != "") {
		return failed(ctx, "answer", err)
	}
	return agentSays(line)
}

// agentSays is the result of an answer.
func agentSays(line string) Result {
	said := strings.TrimSpace(line)
	r := good("%s", said)
	text, _, _ := strings.Cut(strings.ToLower(line), "#")
	known := false
	for _, w := range strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n,", c) }) {
		number, percent := strings.CutSuffix(w, "%")
		n, err := strconv.Atoi(number)
		switch {
		case err == nil && n >= 0 && n <= maxWeight:
			r.Weight, r.Percent = n, percent
		case w == "drain", w == "maint":
			r.Weight, r.Percent = 0, false
		case w == "down", w == "fail", w == "failed", w == "stopped":
			return bad("%s", said)
		case w == "up", w == "ready":
			if r.Weight == NoWeight {
				r.Weight, r.Percent = 100, true
			}
		default:
			continue
		}
		known = true
	}
	if !known {
		return impossible("its answer is not understood: %.60q", line)
	}
	return r
}
