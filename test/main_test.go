// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

func TestMain(m *testing.M) {
	// Each test has a cluster of its own, and most of its time is the kernel's, who
	// builds that: more at once than there are processors keep these busy. -parallel
	// says otherwise.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(lab.MainBuilt(m, "../cmd/vsnat"))
}

// sources are what the program is built from. go test must not take a result from
// its cache after one of them has changed, which it can't know otherwise: it
// notes the files that a test looks at.
var sources = sync.OnceFunc(func() {
	for _, dir := range []string{"../cmd", "../conntrack", "../iface", "../nat", "../sched", "../go.mod"} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, "_test.go") {
				os.Stat(path)
			}
			return err
		})
	}
})

// limit ends a test that hangs. On a machine with time nothing takes a quarter as long.
const limit = 90 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	sources()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// A cluster is a lab cluster with its director, in a test.
type cluster struct {
	*lab.Cluster
	t        *testing.T
	ctx      context.Context
	io       string
	director *lab.DirectorProcess
	control  *control.Client
}

// workersVariable names how many workers all directors have that a test says nothing of.
const workersVariable = "VSNAT_TEST_WORKERS"

// withWorkers has a director with as many workers as the environment says.
func withWorkers(t *testing.T, config lab.Config) lab.Config {
	t.Helper()
	if n := os.Getenv(workersVariable); n != "" && config.Workers == 0 {
		var err error
		if config.Workers, err = strconv.Atoi(n); err != nil {
			t.Fatalf("%s: %v", workersVariable, err)
		}
	}
	return config
}

// eachFamily runs scenarios on the clusters of eachIO, in IPv4 and in IPv6.
func eachFamily(t *testing.T, config lab.Config, configure func(c *lab.Cluster, io string) string, scenarios func(t *testing.T, c *cluster)) {
	inFamilies(t, func(t *testing.T, ipv6 bool) {
		config.IPv6 = ipv6
		eachIO(t, config, configure, scenarios)
	})
}

// inFamilies runs a test once for each.
func inFamilies(t *testing.T, f func(t *testing.T, ipv6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

// eachIO runs scenarios on a cluster with a director, once for each way of input
// and output, the two side by side. configure returns the configuration file; nil stands for site.
func eachIO(t *testing.T, config lab.Config, configure func(c *lab.Cluster, io string) string, scenarios func(t *testing.T, c *cluster)) {
	if configure == nil {
		configure = site
	}
	ways := []string{"packet", "tun"}
	if config.Host == lab.HostBare {
		ways = ways[:1] // the host could route nothing: see TestTUNRefused
	}
	for _, io := range ways {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			c := &cluster{Cluster: lab.Start(t, withWorkers(t, config)), t: t, ctx: testContext(t), io: io}
			text := configure(c.Cluster, io)
			if err := tunForbidden(); io == "tun" && err != nil {
				assertTUNRefused(t, c, text, err)
				return
			}
			c.start(text)
			scenarios(t, c)
		})
	}
}

// onPacket is eachIO for what io: tun can't do, or leaves to the host.
func onPacket(t *testing.T, config lab.Config, configure func(c *lab.Cluster, io string) string, scenarios func(t *testing.T, c *cluster)) {
	if configure == nil {
		configure = site
	}
	c := &cluster{Cluster: lab.Start(t, withWorkers(t, config)), t: t, ctx: testContext(t), io: "packet"}
	c.start(configure(c.Cluster, c.io))
	scenarios(t, c)
}

// start starts the director; its log is shown if the test fails.
func (c *cluster) start(text string) {
	c.t.Helper()
	d, err := c.StartDirector(c.ctx, lab.DirectorOptions{Config: text})
	if err != nil {
		c.t.Fatal(err)
	}
	c.director, c.control = d, control.NewClient(c.Socket())
	c.t.Cleanup(func() {
		if c.t.Failed() {
			logs := d.Logs()
			c.t.Logf("director:\n%s", logs[max(0, len(logs)-8000):])
		}
	})
}

// in makes c report to a sub-test.
func (c *cluster) in(t *testing.T) *cluster {
	sub := *c
	sub.t, sub.ctx = t, testContext(t)
	return &sub
}

// run runs a scenario as a sub-test.
func (c *cluster) run(name string, f func(t *testing.T, c *cluster)) {
	c.t.Run(name, func(t *testing.T) { f(t, c.in(t)) })
}

// must ends the test at an error.
func (c *cluster) must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

// vsnat runs a command of the program in the director's namespace and returns
// what it printed.
func (c *cluster) vsnat(args ...string) string {
	c.t.Helper()
	return c.command("vsnat", args...)
}

func (c *cluster) ipvsadm(args ...string) string {
	c.t.Helper()
	return c.command("ipvsadm", args...)
}

func (c *cluster) command(name string, args ...string) string {
	c.t.Helper()
	out, err := c.Director.Command(c.ctx, name, args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// get fetches the page at a port of the VIP.
func (c *cluster) get(n *lab.Node, port int) (string, error) {
	return n.Get(c.ctx, fmt.Sprintf("http://%v/", c.virtual(port)))
}

// mustGet is get without an error.
func (c *cluster) mustGet(n *lab.Node, port int) string {
	c.t.Helper()
	page, err := c.get(n, port)
	c.must(err)
	return page
}

// virtual is a port of the VIP.
func (c *cluster) virtual(port int) netip.AddrPort {
	return netip.AddrPortFrom(c.Config.VIP(), uint16(port))
}

// at is a port of a node.
func at(n *lab.Node, port int) netip.AddrPort { return netip.AddrPortFrom(n.Addr, uint16(port)) }

// conns lists the connections that q selects.
func (c *cluster) conns(q control.ConnQuery) []control.Conn {
	c.t.Helper()
	page, err := c.control.Conns(c.ctx, q)
	c.must(err)
	return page.Conns
}

// drops returns how many packets were dropped, by reason.
func (c *cluster) drops() map[string]uint64 {
	c.t.Helper()
	s, err := c.control.Stats(c.ctx)
	c.must(err)
	return s.Drops
}

// eventually polls until ok, for as long as a slow machine may need.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for !ok() {
		if c.ctx.Err() != nil {
			c.t.Fatalf("not in time: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// site is the configuration most tests use: the reference cluster's service on
// port 80 and SNAT, and one service for each of the servers' other ports.
func site(c *lab.Cluster, io string) string {
	var b strings.Builder
	for _, s := range []struct {
		proto string
		port  int
	}{{"tcp", 7}, {"udp", 7}, {"tcp", 9}, {"tcp", 19}, {"tcp", 8080}} {
		vip := netip.AddrPortFrom(c.Config.VIP(), uint16(s.port))
		fmt.Fprintf(&b, "  - %s: %q\n    scheduler: rr\n    servers:\n", s.proto, vip)
		for _, n := range c.Servers {
			fmt.Fprintf(&b, "      - %q\n", at(n, s.port))
		}
	}
	return strings.Replace(c.Config.DirectorConfig("rr", io), "snat:\n", b.String()+"snat:\n", 1)
}

// tunForbidden returns why /dev/net/tun can't be opened, or nil.
func tunForbidden() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// assertTUNRefused starts a director that can't have its device.
func assertTUNRefused(t *testing.T, c *cluster, text string, why error) {
	t.Helper()
	_, err := c.StartDirector(c.ctx, lab.DirectorOptions{Config: text})
	if err == nil {
		t.Fatalf("the director started, although /dev/net/tun can't be opened: %v", why)
	}
	for _, want := range []string{"/dev/net/tun", why.Error()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the director's refusal does not say %q:\n%v", want, err)
		}
	}
}
