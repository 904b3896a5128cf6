// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestMarks has both web ports of the VIP, each of which has a service of its own,
// as one service by mark: the classic use of marks (FAULTS 115).
func TestMarks(t *testing.T) {
	t.Parallel()
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC, lab.HostBare} {
		t.Run(fmt.Sprintf("VIP %v", host), func(t *testing.T) {
			eachFamily(t, lab.Config{Host: host, Forward: true}, markSite, func(t *testing.T, c *cluster) {
				c.run("two ports in turn", twoPortsInTurn)
				c.run("one answer", oneAnswer)
				c.run("an address of its own", markedAlone)
				c.run("before the address", markBeforeAddress)
				c.run("persistent", marksPersistent)
				c.run("rules change under load", marksChange)
			})
		})
	}
}

// markName is the word for a service by mark, and option what ipvsadm calls mark 1.
func (c *cluster) markName() (name string, option []string) {
	if c.Config.IPv6 {
		return control.Mark6, []string{"-f", "1", "-6"}
	}
	return control.Mark, []string{"-f", "1"}
}

// withMarks is site with a service by mark 1 in front of all servers, and rules.
func withMarks(c *lab.Cluster, io string, rules ...string) string {
	var b strings.Builder
	name := control.Mark
	if c.Config.IPv6 {
		name = control.Mark6
	}
	fmt.Fprintf(&b, "  - %s: 1\n    scheduler: rr\n    servers:\n", name)
	for _, n := range c.Servers {
		fmt.Fprintf(&b, "      - %q\n", n.Addr)
	}
	text := strings.Replace(site(c, io), "snat:\n", b.String()+"snat:\n", 1) + "marks:\n"
	for _, r := range rules {
		text += "  - {mark: 1, " + r + "}\n"
	}
	return text
}

func markSite(c *lab.Cluster, io string) string {
	to := fmt.Sprintf("to: %q", c.Config.VIP())
	return withMarks(c, io, to+", proto: tcp, ports: 80", to+", proto: tcp, ports: 8080")
}

// twoPortsInTurn shares one turn between the ports, and shows it to ipvsadm.
func twoPortsInTurn(t *testing.T, c *cluster) {
	for i := range 9 {
		port := 80 + i%2*8000
		if got, want := c.mustGet(c.Client, port), c.Config.ServerPage(3-i%3); got != want {
			t.Errorf("request %d, to port %d: %q, want %q", i+1, port, got, want)
		}
	}
	if got := c.ipvsadm("-L", "-n"); !strings.Contains(got, "FWM  1 ") || !strings.Contains(got, netip.AddrPortFrom(c.Servers[0].Addr, 0).String()+" ") {
		t.Errorf("ipvsadm lists\n%s", got)
	}
}

// markedAlone makes an address the director's by a rule alone: it is found, pinged
// and served.
func markedAlone(t *testing.T, c *cluster) {
	addr := netip.MustParseAddr("192.168.88.99")
	if c.Config.IPv6 {
		addr = netip.MustParseAddr("2001:db8:88::99")
	}
	c.vsnat("mark", "add", "1", "--to", addr.String(), "--proto", "tcp", "--ports", "80")
	page, err := c.Client.Get(c.ctx, fmt.Sprintf("http://%v/", netip.AddrPortFrom(addr, 80)))
	if err != nil || !strings.Contains(page, "this is real server") {
		t.Errorf("%q, %v", page, err)
	}
	c.mustPing(c.Client, addr, 4, 56)
	c.vsnat("mark", "del", "1", "--to", addr.String(), "--proto", "tcp", "--ports", "80")
}

// rule gives or takes the mark of a port of the VIP.
func (c *cluster) rule(word string, port int) {
	c.t.Helper()
	c.vsnat("mark", word, "1", "--to", c.Config.VIP().String(), "--proto", "tcp", "--ports", fmt.Sprint(port))
}

// markBeforeAddress: the services of the ports come into their own when the mark
// goes.
func markBeforeAddress(t *testing.T, c *cluster) {
	before := c.requests(80)
	c.mustGet(c.Client, 80)
	if got := c.requests(80); got != before {
		t.Errorf("the service of the address was asked %d times beside that of the mark", got-before)
	}
	c.rule("del", 80)
	c.mustGet(c.Client, 80)
	if got := c.requests(80); got != before+1 {
		t.Errorf("without the rule the service of the address was asked %d times, want once", got-before)
	}
	c.rule("add", 80)
	c.mustGet(c.Client, 80)
	if got := c.requests(80); got != before+1 {
		t.Errorf("with the rule again the service of the address was asked")
	}
}

// marksPersistent: a client stays with its server, whichever of the ports it asks.
func marksPersistent(t *testing.T, c *cluster) {
	_, option := c.markName()
	edit := append([]string{"-E"}, option...)
	c.ipvsadm(append(edit, "-s", "rr", "-p", "60")...)
	first := c.mustGet(c.Client, 80)
	for i := range 4 {
		port := 80 + i%2*8000
		if got := c.mustGet(c.Client, port); got != first {
			t.Errorf("port %d: %q after %q", port, got, first)
		}
	}
	c.ipvsadm(append(edit, "-s", "rr")...)
	if got := c.mustGet(c.Client, 80); got == first {
		t.Errorf("without persistence the next is %q again", got)
	}
}

// marksChange edits rules and the service while it is asked. Without its rule the
// port is the other service's, and nobody notices.
func marksChange(t *testing.T, c *cluster) {
	name, _ := c.markName()
	l := c.startLoad(3)
	for i := range 4 {
		c.rule("del", 8080)
		l.more(5)
		c.rule("del", 80)
		l.more(5)
		c.rule("add", 80)
		c.vsnat("service", "edit", name, "1", "--scheduler", []string{"wlc", "rr"}[i%2])
		c.vsnat("server", "edit", name, "1", c.Servers[1].Addr.String(), "--weight", fmt.Sprint(i%2))
		l.more(5)
		c.rule("add", 8080)
	}
	l.end()
}

// TestMarkByLink has rules that name a link: one that packets do not come by, one
// that they do, and that one when it is gone and made again.
func TestMarkByLink(t *testing.T) {
	t.Parallel()
	configure := func(c *lab.Cluster, io string) string {
		return withMarks(c, io, fmt.Sprintf("to: %q, proto: tcp, ports: 80, interface: eth1", c.Config.VIP()))
	}
	eachFamily(t, lab.Config{}, configure, func(t *testing.T, c *cluster) {
		if c.io == "tun" {
			health, err := c.control.Health(c.ctx)
			c.must(err)
			if len(health.Problems) != 1 || !strings.Contains(health.Problems[0], "by eth1: matches nothing") {
				t.Errorf("the problems are %q", health.Problems)
			}
			return
		}
		before := c.requests(80)
		c.mustGet(c.Client, 80)
		if got := c.requests(80); got != before+1 {
			t.Errorf("with a rule for eth1 the service of the address was asked %d times, want once", got-before)
		}
		c.vsnat("mark", "add", "1", "--to", c.Config.VIP().String(), "--proto", "tcp", "--ports", "80", "--interface", "eth0")
		c.mustGet(c.Client, 80)
		old := c.link("eth0")
		c.must(c.Director.DeleteLink("eth0"))
		c.eventually("the director sees it gone", func() bool { return c.link("eth0").Name == "" })
		c.must(c.RestoreLink(c.Director, "eth0"))
		c.eventually("the director serves the new one", func() bool {
			l := c.link("eth0")
			return l.Serving && l.Index != old.Index
		})
		c.mustGet(c.Client, 80)
		if got := c.requests(80); got != before+1 {
			t.Errorf("with a rule for eth0 the service of the address was asked %d times", got-before-1)
		}
	})
}

// TestMarkedNetwork has a network routed to the director, of which one port is a
// service's: the host has none of its addresses, forwards nothing or everything,
// or has all of them.
func TestMarkedNetwork(t *testing.T) {
	t.Parallel()
	for _, h := range []struct {
		name    string
		forward bool
		local   bool
	}{{"forwards nothing", false, false}, {"forwards", true, false}, {"has the network", true, true}} {
		t.Run("the host "+h.name, func(t *testing.T) {
			configure := func(c *lab.Cluster, io string) string {
				to := markedNetwork(c)
				if err := c.Client.AddRoute(to, c.Config.VIP()); err != nil {
					t.Fatal(err)
				}
				if h.local {
					if err := makeLocal(c.Director, to); err != nil {
						t.Fatal(err)
					}
				}
				return withMarks(c, io, fmt.Sprintf("to: %q, proto: tcp, ports: 80", to), fmt.Sprintf("to: %q, proto: udp", to))
			}
			// One worker: several can't have such a rule beside SNAT from everywhere.
			eachFamily(t, lab.Config{Forward: h.forward, Workers: 1}, configure, func(t *testing.T, c *cluster) {
				c.run("in turn", networkInTurn)
				c.run("datagrams", networkDatagrams)
				c.run("one answer", func(t *testing.T, c *cluster) { networkAnswers(t, c, h.local) })
				c.run("SNAT beside it", func(t *testing.T, c *cluster) { snatPeer(t, c, c.Client) })
			})
		})
	}
}

func markedNetwork(c *lab.Cluster) netip.Prefix {
	if c.Config.IPv6 {
		return netip.MustParsePrefix("2001:db8:99::/64")
	}
	return netip.MustParsePrefix("198.18.0.0/24")
}

// makeLocal has a node take a whole network for its own addresses.
func makeLocal(n *lab.Node, to netip.Prefix) error {
	return n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
			Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
		})
	})
}

// inNetwork is a port of the n-th address of the marked network.
func (c *cluster) inNetwork(n, port int) netip.AddrPort {
	b := markedNetwork(c.Cluster).Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(port))
}

// networkInTurn asks forty addresses, and each answers as itself. The client has a
// port for each: to a server all of them are one, and a port used again would meet
// what it remembers of the connection before.
func networkInTurn(t *testing.T, c *cluster) {
	for i := range 40 {
		local := &net.TCPAddr{Port: keptPort + 100 + i}
		conn, err := c.Client.DialFrom(c.ctx, "tcp", local, c.inNetwork(10+i, 80).String())
		c.must(err)
		conn.SetDeadline(time.Now().Add(limit / 4))
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(conn)
		c.must(err)
		conn.Close()
		if want := c.Config.ServerPage(3 - i%3); !strings.Contains(string(answer), want) {
			t.Errorf("request %d: %q, want %q in it", i+1, answer, want)
		}
	}
}

// networkDatagrams go both ways, whole and in fragments.
func networkDatagrams(t *testing.T, c *cluster) {
	for i, size := range []int{0, 1000, 8 << 10} {
		conn, err := c.Client.Dial(c.ctx, "udp", c.inNetwork(60+i, lab.EchoPort).String())
		c.must(err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(limit / 4))
		c.exchange(conn, 5, size)
	}
}

// networkAnswers counts what comes back for one packet of each kind. What is not
// marked is the host's, and nobody says that he has an address of the network.
func networkAnswers(t *testing.T, c *cluster, local bool) {
	w := c.capture(c.Client, "eth0")
	const firstPort = 22_000 // none that the client's kernel gives a connection
	tests := []struct {
		name, proto string
		port        int
		want        answers
	}{
		{"SYN to the service", "tcp", 80, answers{synAck: 1}},
		{"datagram to the service", "udp", lab.EchoPort, answers{udp: 1}},
	}
	if local {
		tests = append(tests, struct {
			name, proto string
			port        int
			want        answers
		}{"SYN to a port of the host", "tcp", 81, answers{rst: 1}})
	}
	for i, test := range tests {
		from := firstPort + uint16(i)
		if test.proto == "udp" {
			conn, err := c.Client.ListenPacket("udp", fmt.Sprintf(":%d", from))
			c.must(err)
			defer conn.Close()
		}
		c.probeTo(w, test.proto, from, c.inNetwork(5, test.port), 64)
	}
	asker := net.HardwareAddr{2, 0, 0, 0, 0, 78}
	if !local { // whose host may answer, as Linux does
		w.send(c.question(asker, c.Config.ClientAddr(77), c.inNetwork(5, 0).Addr()))
	}
	for i, test := range tests {
		w.wait(1, test.name, func(p gopacket.Packet) bool { return answeredPort(p) == firstPort+uint16(i) })
	}
	time.Sleep(settle)
	for i, test := range tests {
		all := w.answersFromAll(firstPort + uint16(i))
		if got := w.answersTo(c.inNetwork(5, 0).Addr(), firstPort+uint16(i)); got != test.want || all != test.want {
			t.Errorf("%s: the client got %+v from there and %+v in all, want %+v", test.name, got, all, test.want)
		}
	}
	if got := w.seen(func(p gopacket.Packet) bool { _, ok := answerTo(p, asker); return ok }); len(got) > 0 {
		t.Errorf("asked for an address of the network, somebody has it: %v", got)
	}
}

// answersFromAll is answersTo whoever they are from.
func (w *wire) answersFromAll(port uint16) (a answers) {
	for _, p := range w.seen(func(p gopacket.Packet) bool { return answeredPort(p) == port }) {
		a.count(p, source(p))
	}
	return a
}
