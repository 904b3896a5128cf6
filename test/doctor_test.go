// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/doctor"
	"github.com/vsnat/vsnat/test/lab"
)

// doctor runs vsnat doctor in the director's namespace; text is the configuration,
// or "" to have that of the running director.
func (c *cluster) doctor(text string) doctor.Report {
	c.t.Helper()
	args := []string{"doctor", "-o", "json"}
	if text != "" {
		file := filepath.Join(c.t.TempDir(), "doctor.yaml")
		c.must(os.WriteFile(file, []byte(text), 0o600))
		args = append(args, "-c", file)
	}
	var out, said bytes.Buffer
	cmd := c.Director.Command(c.ctx, "vsnat", args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var r doctor.Report
	if e := json.Unmarshal(out.Bytes(), &r); e != nil {
		c.t.Fatalf("%v, %v\n%s%s", err, e, out.Bytes(), said.Bytes())
	}
	if (err != nil) != r.Bad() {
		c.t.Errorf("vsnat doctor: %v, and found %v", err, r.Findings)
	}
	return r
}

// On a host where nothing is wrong nothing is found, before the start and beside
// the director.
func TestDoctorHealthy(t *testing.T) {
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC, lab.HostVIPOnLoopback, lab.HostBare} {
		t.Run(host.String(), func(t *testing.T) {
			inFamilies(t, func(t *testing.T, ipv6 bool) {
				t.Parallel()
				config := lab.Config{Host: host, IPv6: ipv6, Forward: host == lab.HostVIPOnNIC}
				c := &cluster{Cluster: lab.Start(t, config), t: t, ctx: testContext(t)}
				text := site(c.Cluster, "packet")
				if host != lab.HostBare { // where nobody answers for the gateway yet
					if r := c.doctor(text); len(r.Findings) > 0 {
						t.Errorf("before the start: %v", r.Findings)
					}
				}
				c.start(text)
				if r := c.doctor(""); len(r.Findings) > 0 || len(r.Checks) == 0 {
					t.Errorf("beside the director: %v", r.Findings)
				}
			})
		})
	}
}

// Each fault is found by the check that is for it, with what mends it.
func TestDoctorFaults(t *testing.T) {
	onVIP := func(c *cluster, more string) string { return more + site(c.Cluster, "packet") }
	direct := func(c *cluster) string {
		return fmt.Sprintf("services:\n  - tcp: %v\n    servers: [{address: %v, method: route}]\n", c.virtual(80), c.Servers[0].Addr)
	}
	vip := func(c *cluster) netip.Prefix { return netip.PrefixFrom(c.Config.VIP(), 24) }
	for _, fault := range []struct {
		name    string
		config  lab.Config
		plant   func(c *cluster) error
		text    func(c *cluster) string // nil: that of site
		running bool                    // there is a director
		check   string
		says    string // %s: what the test knows
		fix     string
		also    []string // checks that follow from it
	}{
		{
			name: "link down", plant: func(c *cluster) error { return c.Director.SetDown("eth1") },
			check: "links", says: "eth1 has an address, but is down", fix: "ip link set eth1 up", also: []string{"routes", "servers"},
		},
		{
			name: "no carrier", plant: looseCable,
			check: "links", says: "loose has no carrier", fix: "ip link show loose",
		},
		{
			name: "interface that is not there", text: func(c *cluster) string { return onVIP(c, "interfaces: [eth0, eth1, eth7]\n") },
			check: "links", says: "interface eth7 does not exist", fix: "there are eth0, eth1",
		},
		{
			name: "IPv6 switched off", config: lab.Config{IPv6: true}, plant: func(c *cluster) error { return c.Director.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1") },
			check: "links", says: "IPv6 is switched off on eth0", fix: "disable_ipv6=0", also: []string{"gateways"},
		},
		{
			name: "legs of two MTUs", plant: func(c *cluster) error { return c.Director.SetMTU("eth1", 1400) },
			check: "mtu", says: "eth1 takes packets of 1400 bytes, eth0 of 1500", fix: "ip link set dev eth1 mtu 1500",
		},
		{
			name: "server with a smaller MTU", plant: func(c *cluster) error { return c.Servers[1].SetMTU("eth0", 1300) },
			check: "server-mtu", says: "server 10.0.0.3 answers small packets, but none of 1500 bytes", fix: "mtu 1500",
		},
		{
			name: "VIP twice", config: lab.Config{Clients: 2}, plant: func(c *cluster) error { return c.Clients[1].AddAddr("eth0", vip(c)) }, running: true,
			check: "addresses", says: "192.168.88.23 is ours, but", fix: "ip addr flush to 192.168.88.23",
		},
		{
			name: "gateway twice", plant: func(c *cluster) error { return c.Servers[2].AddAddr("eth0", netip.MustParsePrefix("10.0.0.1/24")) },
			check: "addresses", says: "10.0.0.1 is ours, but", fix: "ip addr flush to 10.0.0.1", also: []string{"servers", "gateways", "server-mtu"},
		},
		{
			name: "no way to a server", text: func(c *cluster) string { return strings.Replace(onVIP(c, ""), "10.0.0.3:80", "172.31.0.9:80", 1) },
			check: "routes", says: "there is no way to server 172.31.0.9", fix: "ip route add 172.31.0.9/32",
		},
		{
			name: "host forwards too", config: lab.Config{Forward: true}, text: func(c *cluster) string { return onVIP(c, "guard: none\n") },
			check: "forwarding", says: "the host forwards as well", fix: "sysctl -w net.ipv4.ip_forward=0",
		},
		{
			name: "VIP on the host without guard", config: lab.Config{Host: lab.HostVIPOnNIC}, text: func(c *cluster) string { return onVIP(c, "guard: none\n") },
			check: "guard", says: "the host has 192.168.88.23 itself", fix: "guard: auto",
		},
		{
			name: "program on the port", config: lab.Config{Host: lab.HostVIPOnNIC}, plant: func(c *cluster) error { return c.Director.ServeTCP(80, func(*net.TCPConn) {}) },
			check: "ports", says: "a program of this host listens on", fix: "ss -lnp 'sport = :80'",
		},
		{
			name: "strict rp_filter", plant: func(c *cluster) error { return c.Director.SetSysctl("net/ipv4/conf/all/rp_filter", "1") },
			text:  func(c *cluster) string { return site(c.Cluster, "tun") },
			check: "rp-filter", says: "rp_filter is strict", fix: "rp_filter=2", also: []string{"tun"},
		},
		{
			name: "server away", plant: func(c *cluster) error { return c.Servers[2].SetDown("eth0") }, running: true,
			check: "servers", says: "nobody answers for it on eth1", fix: "ip addr show",
		},
		{
			name: "web server stopped", text: func(c *cluster) string { return strings.Replace(onVIP(c, ""), "10.0.0.4:80", "10.0.0.4:81", 1) },
			check: "servers", says: "server 10.0.0.4:81 refuses connections", fix: "ss -ltn 'sport = :81'",
		},
		{
			name: "firewall on a server", plant: func(c *cluster) error { return dropTCP(c.Servers[0], 80) },
			check: "servers", says: "server 10.0.0.2:80 does not answer connections", fix: "nft list ruleset",
		},
		{
			name: "server address twice", plant: func(c *cluster) error { return c.Servers[2].AddAddr("eth0", netip.MustParsePrefix("10.0.0.2/24")) },
			check: "servers", says: "10.0.0.2 is the address of 2 stations", fix: "ip addr flush to 10.0.0.2",
		},
		{
			name: "wrong gateway", plant: func(c *cluster) error { return reroute(c.Servers[1], net.IPv4(10, 0, 0, 254)) }, running: true,
			check: "gateways", says: "server 10.0.0.3 answers 10.0.0.1, but not 192.168.88.23", fix: "ip route replace default via 10.0.0.1",
		},
		{
			name: "no gateway", plant: func(c *cluster) error { return reroute(c.Servers[1], nil) },
			check: "gateways", says: "server 10.0.0.3 answers 10.0.0.1, but not 192.168.88.23", fix: "ip route replace default via 10.0.0.1",
		},
		{
			name: "direct routing without the address", text: direct,
			check: "direct-routing", says: "server 10.0.0.2 gets packets for 192.168.88.23 as they are, but does not have that address", fix: "ip addr add 192.168.88.23/32 dev lo",
		},
		{
			name: "direct routing, told to the link", text: direct, plant: func(c *cluster) error { return c.Servers[0].AddAddr("lo", netip.PrefixFrom(c.Config.VIP(), 32)) },
			check: "direct-routing", says: "server 10.0.0.2 answers for 192.168.88.23 on eth1", fix: "arp_ignore=1",
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{Cluster: lab.Start(t, fault.config), t: t, ctx: testContext(t)}
			text := site(c.Cluster, "packet")
			if fault.text != nil {
				text = fault.text(c)
			}
			if fault.running {
				c.start(text)
				text = ""
			}
			if fault.plant != nil {
				c.must(fault.plant(c))
			}
			found := false
			for _, f := range c.doctor(text).Findings {
				switch {
				case f.Check == fault.check && strings.Contains(f.Text, fault.says) && strings.Contains(f.Fix, fault.fix):
					found = true
				case f.Check != fault.check && !strings.Contains(strings.Join(fault.also, " "), f.Check):
					t.Errorf("it also found: %+v", f)
				}
			}
			if !found {
				t.Errorf("not found; found was %+v", c.doctor(text).Findings)
			}
		})
	}
}

// looseCable gives the director a link whose other end is down.
func looseCable(c *cluster) error {
	return c.Director.Do(func() error {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "loose"}, PeerName: "nowhere"}
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// reroute gives a node another default gateway, or none.
func reroute(n *lab.Node, gateway net.IP) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		if gateway == nil {
			return netlink.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere})
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: gateway})
	})
}

// dropTCP has a node's firewall drop what comes for a port.
func dropTCP(n *lab.Node, port byte) error {
	return n.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "fault", Family: nftables.TableFamilyIPv4})
		chain := conn.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, port}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return conn.Flush()
	})
}
