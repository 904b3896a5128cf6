// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestKill ends a director under load in each of its ways, with the VIP beside
// and on the host: what it took from the host is back, and the next director
// serves.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC} {
		for name, signal := range map[string]unix.Signal{
			"SIGTERM": unix.SIGTERM,
			"SIGKILL": unix.SIGKILL,
			"panic":   unix.SIGQUIT, // the Go runtime prints its stacks and ends, as for a panic
		} {
			t.Run(fmt.Sprintf("%s, VIP %v", name, host), func(t *testing.T) {
				inFamilies(t, func(t *testing.T, ipv6 bool) {
					for _, io := range []string{"packet", "tun"} {
						t.Run(io, func(t *testing.T) {
							t.Parallel()
							killUnderLoad(t, lab.Config{Host: host, IPv6: ipv6}, signal, io)
						})
					}
				})
			})
		}
	}
}

func killUnderLoad(t *testing.T, config lab.Config, signal unix.Signal, io string) {
	if err := tunForbidden(); io == "tun" && err != nil {
		return // TestTUNRefused has it
	}
	c := &cluster{Cluster: lab.Start(t, withWorkers(t, config)), t: t, ctx: testContext(t), io: io}
	c.settle()
	before := c.hostState()
	c.start(site(c.Cluster, io))
	held := c.dialTCP(lab.EchoPort)
	c.echo(held)
	l := c.startLoad(0)
	if during := c.hostState(); maps.Equal(before, during) {
		t.Error("the running director shows nowhere in the host's state: the comparison is blind")
	}

	c.must(c.director.Kill(signal))
	status, err := c.director.Wait(c.ctx)
	c.must(err)
	l.stop()
	l.abort()
	l.group.Wait()
	graceful := signal == unix.SIGTERM
	if graceful != (status == 0) {
		t.Errorf("the director's status is %d", status)
	}

	// The kernel, or who removes what it does not, comes a moment after the end.
	different := "?"
	for end := time.Now().Add(limit / 8); different != "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		different = differences(before, c.hostState())
	}
	if different != "" {
		t.Errorf("the host has changed:\n%s", different)
	}
	if _, err := os.Stat(c.Socket()); graceful && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the control socket is left: %v", err)
	}

	c.start(site(c.Cluster, io))
	roundRobin(t, c)
	c.must(c.director.Stop())
	if different := differences(before, c.hostState()); different != "" {
		t.Errorf("after the second director the host has changed:\n%s", different)
	}
}

// settle waits until the director's links are running: the kernel says so a
// moment after they are up.
func (c *cluster) settle() {
	c.t.Helper()
	c.eventually("the director's links run", func() bool {
		for _, link := range []string{"eth0", "eth1"} {
			if nic, err := c.Director.Interface(link); err != nil || nic.Flags&net.FlagRunning == 0 {
				return false
			}
		}
		return true
	})
}

// hostState is what a director could have changed of its host: packet filter,
// links, addresses, routes of all tables, rules, proxy neighbours, settings.
func (c *cluster) hostState() map[string]string {
	c.t.Helper()
	state := make(map[string]string)
	put := func(kind, key string, value any) { state[kind+" "+key] = fmt.Sprint(value) }
	c.must(c.Director.Do(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := nft.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			put("nft table", table.Name, table.Family)
		}

		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			put("link", a.Name, []any{a.Index, a.HardwareAddr, a.MTU, a.Flags, a.Promisc, a.Allmulti, a.MasterIndex, a.TxQLen})
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, addr := range addrs {
				put("address", a.Name+" "+addr.IPNet.String(), addr.Flags)
			}
			qdiscs, err := netlink.QdiscList(l)
			if err != nil {
				return err
			}
			for _, q := range qdiscs {
				put("qdisc", a.Name+" "+q.Type(), q.Attrs().Handle)
			}
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			put("route", r.String(), "")
		}
		for version, family := range map[string]int{"ipv4": netlink.FAMILY_V4, "ipv6": netlink.FAMILY_V6} {
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range rules {
				put(version+" rule", r.String(), "")
			}
			proxies, err := netlink.NeighProxyList(0, family)
			if err != nil {
				return err
			}
			for _, n := range proxies {
				put("proxy", n.String(), "")
			}
			if err := settings("/proc/sys/net/"+version, put); err != nil {
				return err
			}
		}
		return nil
	}))
	return state
}

// settings puts all values below a directory of /proc/sys.
func settings(dir string, put func(kind, key string, value any)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a link that has just gone
		}
		if err != nil || d.IsDir() {
			return err
		}
		if value, err := os.ReadFile(path); err == nil { // some are only written
			put("sysctl", path, string(value))
		}
		return nil
	})
}

// differences lists what one state has and the other has not.
func differences(before, after map[string]string) string {
	var list []string
	for key, value := range before {
		if now, ok := after[key]; !ok {
			list = append(list, "gone: "+key+" "+value)
		} else if now != value {
			list = append(list, fmt.Sprintf("changed: %s: %q to %q", key, value, now))
		}
	}
	for key, value := range after {
		if _, ok := before[key]; !ok {
			list = append(list, "new: "+key+" "+value)
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// TestRestart: connections of a director that was killed end with a reset, whichever end
// speaks, so that nobody waits; new ones are served at once.
func TestRestart(t *testing.T) {
	t.Parallel()
	const pushPort = 2111
	config := func(c *lab.Cluster, io string) string {
		push := fmt.Sprintf("  - tcp: %q\n    scheduler: rr\n    servers: [%q]\nsnat:\n",
			netip.AddrPortFrom(c.Config.VIP(), pushPort), at(c.Servers[0], pushPort))
		return strings.Replace(site(c, io), "snat:\n", push, 1)
	}
	eachFamily(t, lab.Config{}, config, func(t *testing.T, c *cluster) {
		held := c.dialTCP(lab.EchoPort)
		c.echo(held)
		ends := make(chan *net.TCPConn, 1)
		c.must(c.Servers[0].ServeTCP(pushPort, func(conn *net.TCPConn) { ends <- conn; <-c.t.Context().Done(); conn.Close() }))
		fmt.Fprint(c.dialTCP(pushPort), "x")
		pushes := <-ends
		pushes.SetDeadline(time.Now().Add(limit / 2))
		if _, err := io.ReadFull(pushes, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		c.must(c.director.Kill(unix.SIGKILL))
		_, err := c.director.Wait(c.ctx)
		c.must(err)
		c.start(config(c.Cluster, c.io))
		roundRobin(t, c)
		fmt.Fprint(pushes, "y")
		if _, err := pushes.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a server of a connection of the dead director: %v, want a reset", err)
		}
		if err := tryEcho(held); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection of the dead director: %v, want a reset", err)
		}
		if n := len(c.conns(control.ConnQuery{Service: c.virtual(lab.EchoPort)})); n != 0 {
			t.Errorf("it has %d entries in the new director", n)
		}
	})
}
