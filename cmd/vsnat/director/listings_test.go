// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// TestControlConn: what is no connection is told apart, and a template of a mark
// has the protocol that ipvsadm shows.
func TestControlConn(t *testing.T) {
	client := netip.MustParseAddrPort("192.168.88.21:0")
	for _, row := range []struct {
		conn        nat.ConnInfo
		proto, kind string
	}{
		{nat.ConnInfo{Proto: nat.ProtoTCP, State: conntrack.SynRecv}, "tcp", "nat"},
		{nat.ConnInfo{Proto: nat.ProtoTCP, Local: client}, "tcp", "fullnat"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, SNAT: true}, "udp", "snat"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, Template: true, State: conntrack.Assured}, "udp", "template"},
		{nat.ConnInfo{Proto: 0, Template: true}, "ip", "template"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, OnePacket: true}, "udp", "answers"},
	} {
		row.conn.Client = client
		got := controlConn(&row.conn)
		if got.Proto != row.proto || got.Kind != row.kind || got.State != row.conn.State.String() || got.Client != client {
			t.Errorf("%+v: %+v", row.conn, got)
		}
	}
}
