// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net/netip"
)

// tcpCheck makes a connection and ends it with a reset, which leaves nothing of it
// at either end.
type tcpCheck struct {
	to    netip.AddrPort
	tools Tools
}

// Check implements checker.
func (c *tcpCheck) Check(ctx context.Context) Result {
	conn, err := c.tools.dial(ctx, "tcp", c.to)
	if err != nil {
		return failed(ctx, "connect", err)
	}
	if l, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = conn.Close()
	return good("connected")
}
