// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// The VIP answers ping, in one piece and in fragments, and servers can ping hosts
// outside.
func TestPing(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		c := lab.Start(t, lab.Config{Far: true, IPv6: ipv6})
		direct(t, c, site(c, "packet", tcp(lab.PagePort)))
		whole := "1472"
		if ipv6 {
			whole = "1452"
		}
		for _, row := range []struct {
			what string
			from *lab.Node
			to   string
			args []string
		}{
			{"the VIP", c.Client, c.Config.VIP().String(), nil},
			{"the VIP, largest packet", c.Client, c.Config.VIP().String(), []string{"-s", whole, "-M", "do"}},
			{"the VIP, in fragments", c.Client, c.Config.VIP().String(), []string{"-s", "4000"}},
			{"the gateway", c.Servers[0], c.Config.Gateway().String(), nil},
			{"from a server outward", c.Servers[0], c.Client.Addr.String(), nil},
			{"from a server outward, in fragments", c.Servers[1], c.Client.Addr.String(), []string{"-s", "4000"}},
			{"from a server to behind the client", c.Servers[2], c.Far.Addr.String(), nil},
		} {
			out, err := try(t, row.from, "ping", append([]string{"-n", "-c", "3", "-i", "0.05", "-W", "2", row.to}, row.args...)...)
			if err != nil || !strings.Contains(out, " 0% packet loss") || strings.Contains(out, "DUP!") {
				t.Errorf("%s: %v\n%s", row.what, err, out)
			}
		}
	})
}

// The director is a hop: traceroute shows it, and what lies behind it. To the
// outside its name is the VIP, as is that of the server behind it.
func TestTraceroute(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		c := lab.Start(t, lab.Config{Servers: 1, Router: true, Far: true, IPv6: ipv6})
		direct(t, c, site(c, "packet", tcp(lab.PagePort)))
		vip, far := c.Config.VIP().String(), c.Far.Addr.String()
		// All hosts on the way know each other then: a probe is sent once.
		for _, to := range []string{vip, far} {
			node := c.Client
			if to == far {
				node = c.Servers[0]
			}
			run(t, node, "ping", "-n", "-c", "1", "-W", "5", to)
		}
		if page, err := c.Client.Get(t.Context(), "http://"+net.JoinHostPort(vip, fmt.Sprint(lab.PagePort))+"/"); err != nil {
			t.Fatalf("the service: %q, %v", page, err)
		}
		outward := []string{c.Config.Gateway().String(), c.Router.Addr.String(), c.Client.Addr.String(), far}
		for _, row := range []struct {
			what string
			from *lab.Node
			args []string
			want []string // the answer of each hop
		}{
			{"to the service", c.Client, []string{"-T", "-p", fmt.Sprint(lab.PagePort), vip}, []string{c.Config.RouterAddr().String(), vip, vip}},
			{"outward by UDP", c.Servers[0], []string{far}, outward},
			{"outward by ICMP", c.Servers[0], []string{"-I", far}, outward},
		} {
			out, err := try(t, row.from, "traceroute", append([]string{"-n", "-q", "1", "-w", "2", "-m", "8"}, row.args...)...)
			if err != nil {
				t.Errorf("%s: %v", row.what, err)
				continue
			}
			var hops []string
			for _, m := range regexp.MustCompile(`(?m)^ *\d+  (\S+)`).FindAllStringSubmatch(out, -1) {
				hops = append(hops, m[1])
			}
			if strings.Join(hops, " ") != strings.Join(row.want, " ") {
				t.Errorf("%s: got %v, want %v\n%s", row.what, hops, row.want, out)
			}
		}
	})
}

// nc speaks TCP with a half-close, UDP, and is refused where no service is.
func TestNetcat(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		for _, way := range ways(t) {
			t.Run(way, func(t *testing.T) { netcat(t, way, ipv6) })
		}
	})
}

func netcat(t *testing.T, way string, ipv6 bool) {
	c := lab.Start(t, lab.Config{IPv6: ipv6})
	direct(t, c, site(c, way, tcp(lab.EchoPort), tcp(lab.SinkPort), udp(lab.EchoPort)))
	vip := c.Config.VIP()
	if got := shell(t, c.Client, fmt.Sprintf("printf hello | nc -N -w 5 %v %d", vip, lab.EchoPort)); got != "hello" {
		t.Errorf("TCP echo: got %q", got)
	}
	got := shell(t, c.Client, fmt.Sprintf("head -c 5000000 /dev/zero | nc -N -w 5 %v %d", vip, lab.SinkPort))
	sum := shell(t, c.Client, "head -c 5000000 /dev/zero | sha256sum | cut -d' ' -f1")
	if want := "5000000 " + sum; got != want {
		t.Errorf("half-close: got %q, want %q", got, want)
	}
	for range 4 {
		if got := shell(t, c.Client, fmt.Sprintf("printf hello | nc -u -W 1 -w 3 %v %d", vip, lab.EchoPort)); got != "hello" {
			t.Errorf("UDP echo: got %q", got)
		}
	}
	got = shell(t, c.Client, fmt.Sprintf("printf x | nc -v -N -w 5 %v 4444 2>&1 || true", vip))
	if !strings.Contains(got, "refused") {
		t.Errorf("a port without a service: got %q, want that it is refused", got)
	}
}

// From a server to the outside, the far side sees the VIP.
func TestNetcatOutward(t *testing.T) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		c := lab.Start(t, lab.Config{Far: true, IPv6: ipv6})
		direct(t, c, site(c, "packet", tcp(lab.PagePort)))
		for _, n := range c.Servers {
			for what, got := range map[string]string{
				"UDP": shell(t, n, fmt.Sprintf("printf x | nc -u -W 1 -w 3 %v %d", c.Far.Addr, lab.WhoPort)),
				"TCP": run(t, n, "curl", "-sS", "--max-time", "10", urlOf(c.Far.Addr, lab.WhoPort)),
			} {
				if from, err := netip.ParseAddrPort(strings.TrimSpace(got)); err != nil || from.Addr() != c.Config.VIP() {
					t.Errorf("%s over %s: the far side sees %q", n.Name, what, got)
				}
			}
		}
	})
}
