// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// ftpSite is site with a service of FTP. The first server is no server of it: it is
// a client on the servers' link.
func ftpSite(c *lab.Cluster, io string) string {
	text := fmt.Sprintf("  - tcp: \"%v\"\n    scheduler: rr\n    helper: ftp\n    servers:\n", at(&lab.Node{Addr: c.Config.VIP()}, ftpControlPort))
	for _, n := range c.Servers[1:] {
		text += fmt.Sprintf("      - %q\n", at(n, ftpControlPort))
	}
	return strings.Replace(site(c, io), "snat:\n", text+"snat:\n", 1)
}

// TestFTP transfers files both ways over data connections of every kind, with the VIP
// on no host and on the director's.
func TestFTP(t *testing.T) {
	t.Parallel()
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC} {
		t.Run("VIP "+host.String(), func(t *testing.T) {
			eachFamily(t, lab.Config{Host: host}, ftpSite, func(t *testing.T, c *cluster) {
				for _, n := range c.Servers[1:] {
					c.serveFTP(n)
				}
				modes := []string{"EPSV", "EPRT"}
				if !c.Config.IPv6 {
					modes = append(modes, "PASV", "PORT")
				}
				for _, mode := range modes {
					c.run(mode, func(t *testing.T, c *cluster) { ftpBothWays(t, c, c.Client, mode) })
					c.run(mode+", hairpin", func(t *testing.T, c *cluster) { ftpBothWays(t, c, c.Servers[0], mode) })
				}
				c.run("all on one connection", func(t *testing.T, c *cluster) { ftpAll(t, c, modes) })
				c.run("with the server", ftpSameServer)
				if n := c.drops()["helper"]; n != 0 {
					t.Errorf("%d segments were dropped by the helper", n)
				}
			})
		})
	}
}

// ftpBothWays has two control connections, one to each server, side by side.
func ftpBothWays(t *testing.T, c *cluster, client *lab.Node, mode string) {
	const size = 3 << 20
	a, b := c.dialFTP(client), c.dialFTP(client)
	if a.server == b.server {
		t.Fatalf("both connections are to %s", a.server)
	}
	for _, f := range []*ftpClient{a, b} {
		c.must(f.fetch(mode, size))
		c.must(f.store(mode, size))
	}
}

// ftpAll transfers many small files on one control connection, so that what was
// edited is edited many times over.
func ftpAll(t *testing.T, c *cluster, modes []string) {
	f := c.dialFTP(c.Client)
	for i := range 40 {
		mode := modes[i%len(modes)]
		if i%2 == 0 {
			c.must(f.fetch(mode, int64(i*1000)))
		} else {
			c.must(f.store(mode, int64(i*1000)))
		}
	}
}

// ftpSameServer looks at the entries of a control and of its data connection.
func ftpSameServer(t *testing.T, c *cluster) {
	f := c.dialFTP(c.Client)
	open, err := f.announce("EPSV")
	c.must(err)
	server, err := c.Node(f.server)
	c.must(err)
	list := func(state string) (found []control.Conn) {
		for _, e := range c.conns(control.ConnQuery{Proto: control.TCP, State: state}) {
			if e.Client.Addr() == c.Client.Addr && e.Server.Addr() == server.Addr && e.Virtual.Port() != ftpControlPort {
				found = append(found, e)
			}
		}
		return found
	}
	if waiting := list("LISTEN"); len(waiting) != 1 || waiting[0].Client.Port() != 0 {
		t.Errorf("waited for: %+v", waiting)
	}
	if got := c.ipvsadm("-L", "-n", "-c"); !strings.Contains(got, "LISTEN ") {
		t.Errorf("ipvsadm lists:\n%s", got)
	}
	c.must(f.text.PrintfLine("RETR 10"))
	data, err := open()
	c.must(err)
	defer data.Close()
	if come := list("LISTEN"); len(come) != 0 {
		t.Errorf("still waited for: %+v", come)
	}
}

// TestFTPWithoutSNAT has no rule for what the servers open themselves: an active
// data connection is none of those.
func TestFTPWithoutSNAT(t *testing.T) {
	t.Parallel()
	configure := func(c *lab.Cluster, io string) string {
		text, _, _ := strings.Cut(ftpSite(c, io), "snat:\n")
		return text
	}
	eachFamily(t, lab.Config{Host: lab.HostVIPOnNIC}, configure, func(t *testing.T, c *cluster) {
		for _, n := range c.Servers[1:] {
			c.serveFTP(n)
		}
		for _, mode := range []string{"EPRT", "EPSV"} {
			c.run(mode, func(t *testing.T, c *cluster) { ftpBothWays(t, c, c.Client, mode) })
		}
	})
}
