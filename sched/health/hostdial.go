// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net"
	"strings"
)

// Host is the Dialer that the host itself is: the kernel chooses the address.
type Host struct{}

// DialContext implements Dialer.
func (Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil || !strings.HasPrefix(network, "ip4:") {
		return conn, err
	}
	return messages{conn.(*net.IPConn)}, nil
}

// messages is a raw IPv4 socket that reads without the IP header; of IPv6 the
// kernel never has it.
type messages struct{ *net.IPConn }

func (m messages) Read(b []byte) (int, error) {
	n, _, err := m.IPConn.ReadFrom(b)
	return n, err
}
