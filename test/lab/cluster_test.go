// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// routed is a cluster in which the director's kernel forwards, and the client
// knows the way to the servers, so that all services can be tried without vsnat.
func routed(t *testing.T, config Config) *Cluster {
	t.Helper()
	config.Forward = true
	c := Start(t, config)
	if !config.Router {
		if err := c.Client.AddRoute(c.Config.Inside(), c.Director.Addr); err != nil {
			t.Fatal(err)
		}
	}
	if c.Router != nil {
		if err := c.Router.AddRoute(c.Config.Inside(), c.Director.Addr); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestServices(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { services(t, Config{}, "10.0.0.2", "10.0.0.3", "10.0.0.4") })
	t.Run("IPv6", func(t *testing.T) { services(t, Config{IPv6: true}, "fd00:10::2", "fd00:10::3", "fd00:10::4") })
}

func services(t *testing.T, config Config, addrs ...string) {
	c := routed(t, config)
	ctx := t.Context()
	for i, n := range c.Servers {
		want := fmt.Sprintf("this is real server %d (%s)", i+1, addrs[i])
		for _, port := range []uint16{80, 8080} {
			got, err := c.Client.Get(ctx, fmt.Sprintf("http://%v/", netip.AddrPortFrom(n.Addr, port)))
			if err != nil || got != want {
				t.Errorf("page: got %q, %v, want %q", got, err, want)
			}
		}
	}

	server := c.Servers[1]
	const size = 3<<20 + 1
	if err := c.Client.Upload(ctx, netip.AddrPortFrom(server.Addr, SinkPort), size); err != nil {
		t.Error(err)
	}
	if err := c.Client.Download(ctx, netip.AddrPortFrom(server.Addr, SourcePort), size); err != nil {
		t.Error(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		echo := netip.AddrPortFrom(server.Addr, EchoPort).String()
		if got := exchange(t, c.Client, network, echo, "hello"); got != "hello" {
			t.Errorf("%s echo: got %q", network, got)
		}
	}

	who := netip.AddrPortFrom(c.Client.Addr, WhoPort).String()
	seen, err := server.Get(ctx, "http://"+who+"/")
	if host, _, _ := net.SplitHostPort(seen); err != nil || host != addrs[1] {
		t.Errorf("client sees %q, %v, want %s", seen, err, addrs[1])
	}
	seen = exchange(t, server, "udp", who, "?")
	if host, _, _ := net.SplitHostPort(seen); host != addrs[1] {
		t.Errorf("client sees %q over UDP, want %s", seen, addrs[1])
	}
}

// exchange sends one message and returns the first answer.
func exchange(t *testing.T, from *Node, network, to, message string) string {
	t.Helper()
	conn, err := from.Dial(t.Context(), network, to)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(conn, message)
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if err != nil {
		t.Errorf("%s: %v", to, err)
	}
	return string(b[:n])
}

// A transfer must fail when a byte is not what was sent, or when the end is early.
func TestTransfersNotice(t *testing.T) {
	c := Start(t, Config{Servers: 1})
	n := c.Servers[0]
	for port, f := range map[int]func(*net.TCPConn){
		2001: func(c *net.TCPConn) { // a sink that mistakes one byte
			d, _ := ReadDigest(io.MultiReader(io.LimitReader(c, 99), strings.NewReader("\x00"), c))
			fmt.Fprintln(c, d)
			c.Close()
		},
		2002: func(c *net.TCPConn) { // a source that sends too little
			io.ReadFull(c, make([]byte, 2))
			io.Copy(c, Stream(999))
			c.Close()
		},
	} {
		if err := n.ServeTCP(port, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Director.Upload(t.Context(), netip.AddrPortFrom(n.Addr, 2001), 1000); err == nil {
		t.Error("an upload with a wrong byte passed")
	}
	if err := c.Director.Download(t.Context(), netip.AddrPortFrom(n.Addr, 2002), 1000); err == nil {
		t.Error("a download without its last byte passed")
	}
}

func TestEveryLinkConnects(t *testing.T) {
	// pairs are who can reach whom without vsnat, by name of the node and address.
	type pair struct{ from, to string }
	for _, row := range []struct {
		name   string
		config Config
		pairs  []pair
	}{
		{"reference", Config{}, []pair{
			{"client", "192.168.88.20"}, {"rs1", "10.0.0.1"}, {"rs3", "10.0.0.1"},
			{"director", "10.0.0.2"}, {"director", "10.0.0.4"}, {"director", "192.168.88.21"}, {"rs1", "10.0.0.3"},
		}},
		{"one server", Config{Servers: 1}, []pair{{"director", "10.0.0.2"}, {"rs1", "10.0.0.1"}}},
		{"VIP on NIC", Config{Host: HostVIPOnNIC}, []pair{{"client", "192.168.88.23"}, {"rs2", "192.168.88.23"}}},
		{"VIP on loopback", Config{Host: HostVIPOnLoopback}, []pair{{"client", "192.168.88.23"}, {"client", "192.168.88.20"}}},
		{"bare", Config{Host: HostBare, Servers: 4}, []pair{{"rs1", "10.0.0.5"}}},
		{"clients", Config{Clients: 3}, []pair{
			{"client", "192.168.88.20"}, {"client3", "192.168.88.20"}, {"client2", "192.168.88.21"}, {"client", "192.168.88.24"},
		}},
		{"one arm", Config{OneArm: true}, []pair{
			{"client", "192.168.88.20"}, {"rs1", "10.0.0.1"}, {"rs2", "10.0.0.4"}, {"director", "10.0.0.3"},
		}},
		{"router", Config{Router: true}, []pair{{"client", "192.168.88.20"}, {"director", "198.51.100.21"}}},
		{"far", Config{Far: true}, []pair{{"far", "192.168.88.20"}, {"director", "203.0.113.9"}, {"far", "192.168.88.21"}}},
		{"far and router", Config{Far: true, Router: true, MTU: 1400}, []pair{{"far", "192.168.88.20"}, {"director", "203.0.113.9"}}},
		{"forwarding", Config{Forward: true}, []pair{{"rs1", "192.168.88.20"}}},
		{"IPv6", Config{IPv6: true}, []pair{
			{"client", "2001:db8:88::20"}, {"rs1", "fd00:10::1"}, {"rs3", "fd00:10::1"},
			{"director", "fd00:10::2"}, {"director", "fd00:10::4"}, {"director", "2001:db8:88::21"}, {"rs1", "fd00:10::3"},
		}},
		{"IPv6, one server", Config{IPv6: true, Servers: 1, MTU: 1280}, []pair{{"director", "fd00:10::2"}, {"rs1", "fd00:10::1"}}},
		{"IPv6, VIP on NIC", Config{IPv6: true, Host: HostVIPOnNIC}, []pair{{"client", "2001:db8:88::23"}, {"rs2", "2001:db8:88::23"}}},
		// The kernel answers solicitations for the addresses of the link only.
		{"IPv6, VIP on loopback", Config{IPv6: true, Host: HostVIPOnLoopback}, []pair{
			{"rs1", "2001:db8:88::23"}, {"client", "2001:db8:88::20"},
		}},
		{"IPv6, bare", Config{IPv6: true, Host: HostBare, Servers: 4}, []pair{{"rs1", "fd00:10::5"}}},
		{"IPv6, clients", Config{IPv6: true, Clients: 3}, []pair{
			{"client3", "2001:db8:88::20"}, {"client2", "2001:db8:88::21"}, {"client", "2001:db8:88::24"},
		}},
		{"IPv6, one arm", Config{IPv6: true, OneArm: true}, []pair{
			{"client", "2001:db8:88::20"}, {"rs1", "fd00:10::1"}, {"rs2", "fd00:10::4"}, {"director", "fd00:10::3"},
		}},
		{"IPv6, router", Config{IPv6: true, Router: true}, []pair{{"client", "2001:db8:88::20"}, {"director", "2001:db8:100::21"}}},
		{"IPv6, far", Config{IPv6: true, Far: true}, []pair{
			{"far", "2001:db8:88::20"}, {"director", "2001:db8:113::9"}, {"far", "2001:db8:88::21"},
		}},
		{"IPv6, far and router", Config{IPv6: true, Far: true, Router: true}, []pair{
			{"far", "2001:db8:88::20"}, {"director", "2001:db8:113::9"},
		}},
		{"IPv6, forwarding", Config{IPv6: true, Forward: true}, []pair{{"rs1", "2001:db8:88::20"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := Start(t, row.config)
			for _, n := range c.Nodes() {
				if err := n.ServeTCP(4000, echo); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range row.pairs {
				from, err := c.Node(p.from)
				if err != nil {
					t.Fatal(err)
				}
				if got := exchange(t, from, "tcp", net.JoinHostPort(p.to, "4000"), "ping"); got != "ping" {
					t.Errorf("%s to %s: got %q", p.from, p.to, got)
				}
			}
		})
	}
}

func TestTheDirectorsKernelDoesNotForward(t *testing.T) {
	for _, config := range []Config{{Servers: 1}, {Servers: 1, IPv6: true}} {
		c := Start(t, config)
		if err := c.Client.AddRoute(c.Config.Inside(), c.Director.Addr); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		page := netip.AddrPortFrom(c.Servers[0].Addr, PagePort).String()
		if conn, err := c.Client.Dial(ctx, "tcp", page); err == nil {
			conn.Close()
			t.Errorf("a connection to %s went through the director", page)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, row := range []struct {
		config Config
		want   string
	}{
		{Config{Servers: -1}, "real servers"},
		{Config{Servers: 201}, "1 to 200"},
		{Config{Clients: 9}, "clients"},
		{Config{MTU: 100}, "MTU 100"},
		{Config{MTU: 1279, IPv6: true}, "1280"},
		{Config{Host: 9}, "unknown"},
		{Config{OneArm: true, Router: true}, "router"},
	} {
		_, err := Build(Place{Dir: t.TempDir()}, row.config)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: got %v, want %q", row.config, err, row.want)
		}
	}
	for h := HostBesideVIP; h <= HostBare; h++ {
		if got, err := ParseHostAddresses(h.String()); err != nil || got != h {
			t.Errorf("%v: read back as %v, %v", h, got, err)
		}
	}
	if _, err := ParseHostAddresses("loo"); err == nil {
		t.Error("loo was read as a place of the VIP")
	}
}

func TestLinksComeAndGo(t *testing.T) {
	for _, config := range []Config{{}, {Servers: 1}, {IPv6: true}, {Servers: 1, IPv6: true}} {
		c := routed(t, config)
		server := c.Servers[0]
		works := func(when string) {
			t.Helper()
			if _, err := c.Client.Get(t.Context(), fmt.Sprintf("http://%v/", netip.AddrPortFrom(server.Addr, PagePort))); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		works("at first")

		if err := errors.Join(server.SetDown("eth0"), server.SetUp("eth0"), c.Routes()); err != nil {
			t.Fatal(err)
		}
		works("after down and up")

		if err := server.SetMTU("eth0", 1280); err != nil {
			t.Fatal(err)
		}
		if i, err := server.Interface("eth0"); err != nil || i.MTU != 1280 {
			t.Errorf("MTU: got %+v, %v", i, err)
		}

		before, err := c.Director.Interface("eth1")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Director.DeleteLink("eth1"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Director.Interface("eth1"); err == nil {
			t.Error("eth1 is still there")
		}
		if err := c.RestoreLink(c.Director, "eth1"); err != nil {
			t.Fatal(err)
		}
		after, err := c.Director.Interface("eth1")
		if err != nil || after.Index == before.Index {
			t.Errorf("eth1: got %+v, %v, want another index than %d", after, err, before.Index)
		}
		works("after delete and restore")
		if err := c.RestoreLink(c.Director, "eth7"); err == nil {
			t.Error("eth7 was restored")
		}
	}
}

func TestCommandsRunInTheirNode(t *testing.T) {
	c := Start(t, Config{Servers: 2})
	out, err := c.Servers[1].Command(t.Context(), "ipvsadm", "-L", "-n").Output()
	if status := exitOf(err); status != 3 {
		t.Errorf("status: got %d (%v), want 3", status, err)
	}
	got := string(out)
	for _, want := range []string{"ipvsadm -L -n ", c.Socket(), "10.0.0.3/24"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	if strings.Contains(got, "10.0.0.2") {
		t.Errorf("got %q, which is another node", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cmd := c.Client.Command(ctx, "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a command went on after its context")
	}
}

func exitOf(err error) int {
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

// Do comes back to where it was, also when it is nested or f leaves by a panic.
func TestDoComesBack(t *testing.T) {
	c := Start(t, Config{Servers: 1})
	place := func() string {
		ns, err := os.Readlink(threadNS)
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	err := c.Client.Do(func() error {
		client := place()
		err := c.Director.Do(func() error {
			if place() == client {
				t.Error("director and client are one namespace")
			}
			return nil
		})
		if place() != client {
			t.Error("not back in the client after the nested call")
		}
		func() {
			defer func() { recover() }()
			c.Director.Do(func() error { panic("leave") })
		}()
		if place() != client {
			t.Error("not back in the client after a panic")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDirectorProcess(t *testing.T) {
	c := Start(t, Config{Servers: 1})
	ctx := t.Context()
	d, err := c.StartDirector(ctx, DirectorOptions{Config: "services: []"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.Logs(), "director log: services: []") {
		t.Errorf("log: %q", d.Logs())
	}
	if _, err := c.StartDirector(ctx, DirectorOptions{}); err == nil {
		t.Error("a second director was started")
	}
	d.Kill(unix.SIGKILL)
	if status, err := d.Wait(ctx); status != 137 || err != nil || d.Running() {
		t.Errorf("after SIGKILL: status %d, %v, running %v", status, err, d.Running())
	}
	if err := d.Stop(); err != nil {
		t.Errorf("stop of an ended director: %v", err)
	}

	// The socket file of the killed one is in the way of the stand-in only.
	os.Remove(c.Socket())
	d, err = c.StartDirector(ctx, DirectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if status, _ := d.Wait(ctx); status != 0 {
		t.Errorf("after SIGTERM: status %d", status)
	}

	os.Remove(c.Socket())
	_, err = c.StartDirector(ctx, DirectorOptions{Config: "bad"})
	if err == nil || !strings.Contains(err.Error(), "status 4") || !strings.Contains(err.Error(), "director log: bad") {
		t.Errorf("a director that ends at once: got %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err = c.StartDirector(short, DirectorOptions{Config: "deaf"}); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("a director that does not answer: got %v", err)
	}
}

func TestCloseLeavesNoFiles(t *testing.T) {
	dir := t.TempDir()
	c, err := Build(Place{Inside: true, Dir: dir}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}
