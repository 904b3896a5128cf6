// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// misroute has a server's default route lead to nobody.
func (c *cluster) misroute(n *lab.Node) {
	c.t.Helper()
	everywhere, nobody := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.254")
	if c.Config.IPv6 {
		everywhere, nobody = netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:10::254")
	}
	c.must(n.AddRoute(everywhere, nobody))
}

// fullNAT is the configuration of a service of one server, at the port that tells its
// clients who they are.
func fullNAT(words string) func(c *lab.Cluster, io string) string {
	return func(c *lab.Cluster, io string) string {
		vip := netip.AddrPortFrom(c.Config.VIP(), lab.WhoPort)
		text := strings.Replace(c.Config.EmptyDirectorConfig(io), "services: []\n", "services:\n", 1)
		for _, proto := range []string{"tcp", "udp"} {
			text += fmt.Sprintf("  - %s: %q\n    scheduler: rr\n    servers:\n      - address: %q\n        %s\n", proto, vip, at(c.Servers[0], lab.WhoPort), words)
		}
		return text
	}
}

// TestFullNAT: a server whose default gateway is another one serves, and sees the local
// address.
func TestFullNAT(t *testing.T) {
	t.Parallel()
	scenario := func(t *testing.T, c *cluster) {
		c.misroute(c.Servers[0])
		c.must(c.Servers[0].ServeHTTP(lab.WhoPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })))
		c.must(c.Servers[0].ServeUDP(lab.WhoPort, func(from net.Addr, _ []byte) []byte { return []byte(from.String()) }))
		gateway := c.Config.Gateway()
		for range 3 {
			page := c.mustGet(c.Client, lab.WhoPort)
			if who, err := netip.ParseAddrPort(page); err != nil || who.Addr() != gateway {
				t.Errorf("the server sees %q, not %v", page, gateway)
			}
		}
		if who := c.whoUDPAt(c.Client, nil, c.virtual(lab.WhoPort)); who.Addr() != gateway {
			t.Errorf("UDP: the server sees %v, not %v", who, gateway)
		}
		conns := c.conns(control.ConnQuery{})
		if len(conns) != 4 || conns[0].Kind != "fullnat" {
			t.Errorf("connections: %+v", conns)
		}
		if out := c.vsnat("server", "list"); !strings.Contains(out, "fullnat") {
			t.Errorf("vsnat server list:\n%s", out)
		}
		server := at(c.Servers[0], lab.WhoPort).String()
		c.ipvsadm("-e", "-t", c.virtual(lab.WhoPort).String(), "-r", server, "-m", "-w", "3")
		if out := c.ipvsadm("-L", "-n"); !strings.Contains(out, "Masq    3") {
			t.Errorf("ipvsadm -L -n:\n%s", out)
		}
		if out := c.vsnat("save"); strings.Count(out, "nat: full") != 2 {
			t.Errorf("vsnat save:\n%s", out)
		}
	}
	eachFamily(t, lab.Config{Servers: 1}, fullNAT("nat: full"), scenario)
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		onPacket(t, lab.Config{Servers: 1, Host: lab.HostBare, IPv6: ipv6}, fullNAT("nat: full"), scenario)
	})
}
