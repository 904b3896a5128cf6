// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// out reports whether server n takes no connections for what clients see.
func (c *cluster) out(n int) bool {
	return strings.Contains(c.problems(), fmt.Sprintf("server %s of", at(c.Servers[n-1], checkedPort))+" "+
		control.ServiceKey{Proto: control.TCP, Address: c.virtual(checkedPort)}.String()+" is out")
}

// TestPassive has a server stop under 1,000 requests a second, without a check: it is out
// for what the clients see, and back when it serves again. The others never see an error.
// How soon it is out (well within a second on a machine that has time) is logged; what
// fails is only a time that no load explains.
func TestPassive(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"the web server stops", "the host is off"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			onPacket(t, lab.Config{}, func(c *lab.Cluster, io string) string { return checked(c, io, "    scheduler: rr\n") }, func(t *testing.T, c *cluster) {
				pages := []*page{c.servePage(1), c.servePage(2), c.servePage(3)}
				f := c.flow(1000)
				c.eventually("pages", func() bool { return len(f.between(time.Time{}, time.Now())) == 3 })
				stopped := time.Now()
				if how == "the host is off" {
					c.must(c.Servers[1].SetDown("eth0"))
				} else {
					pages[1].stop()
				}
				c.eventually("it is out", func() bool { return c.out(2) })
				out := time.Now()
				if t.Logf("it was out after %v", out.Sub(stopped)); out.Sub(stopped) > 10*time.Second {
					t.Error("that is too late")
				}
				c.eventually("pages of the others", func() bool { n := f.between(out, time.Now()); return n["1"] > 50 && n["3"] > 50 })
				again := time.Now()
				if how == "the host is off" {
					c.must(c.Servers[1].SetUp("eth0"))
					c.must(c.Routes())
				} else {
					pages[1].start()
				}
				c.eventually("it is back", func() bool { return f.between(again, time.Now())["2"] > 0 })
				back := time.Now()
				f.end()
				if n := f.between(out, back)[""]; n > 0 {
					t.Errorf("%d requests failed that began after it was out", n)
				}
			})
		})
	}
}

// TestWrongGateway has a server whose default route leads elsewhere: it is named, and with
// nat: auto it serves.
func TestWrongGateway(t *testing.T) {
	t.Parallel()
	scenario := func(t *testing.T, c *cluster) {
		c.misroute(c.Servers[0])
		page, err := c.get(c.Client, lab.PagePort)
		c.must(err)
		if page != c.Config.ServerPage(1) {
			t.Errorf("page %q", page)
		}
		server, gateway := c.Servers[0].Addr, c.Config.Gateway()
		command := "ip route replace default via "
		if c.Config.IPv6 {
			command = "ip -6 route replace default via "
		}
		want := fmt.Sprintf("%s answers elsewhere: its gateway is not %s; on %s: %s%s", server, gateway, server, command, gateway)
		if got := c.problems(); !strings.Contains(got, want) {
			t.Errorf("problems:\n%s\nwant\n%s", got, want)
		}
		if log := c.director.Logs(); strings.Count(log, "server answers elsewhere") != 1 || !strings.Contains(log, command+gateway.String()) {
			t.Errorf("log:\n%s", log)
		}
		services, err := c.control.Services(c.ctx)
		c.must(err)
		if !slices.ContainsFunc(services[0].Servers, func(s control.Server) bool { return s.FullNAT }) {
			t.Errorf("servers: %+v", services[0].Servers)
		}
	}
	configure := func(c *lab.Cluster, io string) string {
		server := fmt.Sprintf("%q", at(c.Servers[0], lab.PagePort))
		if !c.Config.IPv6 {
			server = at(c.Servers[0], lab.PagePort).String()
		}
		return strings.Replace(c.Config.DirectorConfig("rr", io), "      - "+server+"\n", "      - {address: "+server+", nat: auto}\n", 1)
	}
	eachFamily(t, lab.Config{Servers: 1}, configure, scenario)
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		onPacket(t, lab.Config{Servers: 1, Host: lab.HostBare, IPv6: ipv6}, configure, scenario)
	})
}
