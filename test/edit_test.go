// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// A load asks for the page again and again, from several goroutines, and keeps
// some connections open, until the test ends it.
type load struct {
	c      *cluster
	stop   context.CancelFunc // asks no more
	abort  context.CancelFunc // and gives up what was asked
	group  sync.WaitGroup
	pages  atomic.Int64
	mu     sync.Mutex
	failed []error
	held   []net.Conn
}

// startLoad starts a load with a number of held connections to the echo service.
func (c *cluster) startLoad(held int) *load {
	c.t.Helper()
	ctx, stop := context.WithCancel(c.ctx)
	asked, abort := context.WithCancel(c.ctx)
	l := &load{c: c, stop: stop, abort: abort}
	for range held {
		conn, err := c.Client.Dial(ctx, "tcp", c.virtual(lab.EchoPort).String())
		c.must(err)
		c.t.Cleanup(func() { conn.Close() })
		l.held = append(l.held, conn)
	}
	url := fmt.Sprintf("http://%v/", c.virtual(80))
	for range 4 {
		l.group.Add(1)
		go func() {
			defer l.group.Done()
			for ctx.Err() == nil {
				_, err := c.Client.Get(asked, url)
				if asked.Err() != nil {
					return
				}
				if err != nil {
					l.fail(err)
					return
				}
				l.pages.Add(1)
			}
		}()
	}
	c.t.Cleanup(func() { stop(); abort(); l.group.Wait() })
	l.more(10)
	return l
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, err)
}

// more waits until some more pages came.
func (l *load) more(n int64) {
	l.c.t.Helper()
	until := l.pages.Load() + n
	l.c.eventually(fmt.Sprintf("%d pages", until), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.failed) > 0 {
			l.c.t.Fatalf("a request failed: %v", l.failed[0])
		}
		return l.pages.Load() >= until
	})
}

// end stops the load and wants that no request failed and that the held
// connections are alive.
func (l *load) end() {
	l.c.t.Helper()
	l.stop()
	l.group.Wait()
	for _, err := range l.failed {
		l.c.t.Error(err)
	}
	for i, conn := range l.held {
		if err := tryEcho(conn); err != nil {
			l.c.t.Errorf("held connection %d: %v", i+1, err)
		}
	}
}

func TestEdit(t *testing.T) {
	t.Parallel()
	eachFamily(t, lab.Config{}, nil, func(t *testing.T, c *cluster) {
		c.run("servers under load", editServers)
		c.run("services under load", editServices)
		c.run("quiesce", quiesce)
		c.run("reload under load", reloadUnderLoad)
		c.run("bad reload", badReload)
		c.run("many changes at once", manyChanges)
	})
}

// editServers removes, adds and weighs each server in turn, while its
// connections go on.
func editServers(t *testing.T, c *cluster) {
	l := c.startLoad(6)
	vip := c.virtual(80).String()
	for range 2 {
		for i := range c.Servers {
			server := at(c.Servers[i], 80).String()
			// A quiesced server first answers what it has; only then may it go.
			c.vsnat("server", "edit", "tcp", vip, server, "--weight", "0")
			c.eventually("server "+server+" is idle", func() bool { return c.open("tcp", 80, server) == 0 })
			c.vsnat("server", "del", "tcp", vip, server)
			l.more(5)
			c.vsnat("server", "add", "tcp", vip, server, "--weight", "2")
			c.ipvsadm("-e", "-t", vip, "-r", server, "-m", "-w", "1")
			l.more(5)
		}
	}
	// The held ones are on the echo service; its servers are weighed too.
	for i := range c.Servers {
		c.ipvsadm("-e", "-t", c.virtual(lab.EchoPort).String(), "-r", at(c.Servers[i], lab.EchoPort).String(), "-m", "-w", "0")
	}
	l.end()
	for i := range c.Servers {
		c.ipvsadm("-e", "-t", c.virtual(lab.EchoPort).String(), "-r", at(c.Servers[i], lab.EchoPort).String(), "-m", "-w", "1")
	}
}

// open counts the connections of a server that are not closing.
func (c *cluster) open(proto string, port int, server string) (n int) {
	c.t.Helper()
	services, err := c.control.Services(c.ctx)
	c.must(err)
	for _, s := range services {
		if s.Proto != proto || s.Address != c.virtual(port) {
			continue
		}
		for _, v := range s.Servers {
			if v.Address.String() == server {
				n += v.Active
			}
		}
	}
	return n
}

// editServices changes the scheduler and has other services come and go.
func editServices(t *testing.T, c *cluster) {
	l := c.startLoad(6)
	for _, scheduler := range []string{"wrr", "lc", "wlc", "rr"} {
		c.vsnat("service", "edit", "tcp", c.virtual(80).String(), "--scheduler", scheduler)
		other := c.virtual(8088).String()
		c.vsnat("service", "add", "tcp", other)
		c.vsnat("server", "add", "tcp", other, at(c.Servers[0], 80).String())
		l.more(5)
		if page := c.mustGet(c.Client, 8088); page != c.Config.ServerPage(1) {
			t.Errorf("the new service answers %q", page)
		}
		c.vsnat("service", "del", "tcp", other)
		if page, err := c.get(c.Client, 8088); err == nil {
			t.Errorf("the deleted service answers %q", page)
		}
	}
	l.end()
}

// quiesce gives a server weight 0: it keeps its connections and gets no new one.
func quiesce(t *testing.T, c *cluster) {
	port := c.virtual(lab.EchoPort).String()
	server := at(c.Servers[1], lab.EchoPort).String()
	l := c.startLoad(3) // one on each server
	c.vsnat("server", "edit", "tcp", port, server, "--weight", "0")
	for range 6 {
		c.echo(c.dialTCP(lab.EchoPort))
	}
	if n := c.open("tcp", lab.EchoPort, server); n != 1 {
		t.Errorf("the quiesced server has %d connections, want the one it had", n)
	}
	l.end()
	c.vsnat("server", "edit", "tcp", port, server, "--weight", "1")
}

// reloadUnderLoad takes one server out of the file, puts it back, and changes a
// weight and a scheduler; what else is running stays as it is, also what was
// added over the control socket to no file.
func reloadUnderLoad(t *testing.T, c *cluster) {
	before, err := os.ReadFile(c.ConfigFile())
	c.must(err)
	defer func() { c.must(os.WriteFile(c.ConfigFile(), before, 0o600)) }()
	l := c.startLoad(6)
	counted := c.requests(80)

	server, other := at(c.Servers[0], 80).String(), c.Servers[1].Addr.String()
	line := "      - " + server + "\n"
	if c.Config.IPv6 {
		line = fmt.Sprintf("      - %q\n", server)
	}
	without := strings.Replace(strings.Replace(string(before), line, "", 1), `scheduler: "rr"`, "scheduler: wrr", 1)
	for _, text := range []string{without, string(before), without, string(before)} {
		if text == without {
			// Quiesced first, or the requests that it has would rightly fail.
			c.vsnat("server", "edit", "tcp", c.virtual(80).String(), server, "--weight", "0")
			c.eventually("the server is idle", func() bool { return c.open("tcp", 80, server) == 0 })
		}
		c.must(os.WriteFile(c.ConfigFile(), []byte(text), 0o600))
		out := c.vsnat("reload")
		if !strings.Contains(out, server) || !strings.Contains(out, "wrr") || strings.Contains(out, other) {
			t.Errorf("reload says:\n%swant it to name the server %s and the scheduler, nothing else", out, server)
		}
		l.more(5)
	}
	if out := c.vsnat("reload"); strings.Contains(out, server) || strings.Contains(out, other) {
		t.Errorf("a reload of the same file says:\n%s", out)
	}
	if got := c.requests(80); got < counted {
		t.Errorf("the service has counted %d connections, and had %d before the reloads", got, counted)
	}
	l.end()
}

// requests is how many connections a service has counted.
func (c *cluster) requests(port int) uint64 {
	c.t.Helper()
	services, err := c.control.Services(c.ctx)
	c.must(err)
	for _, s := range services {
		if s.Proto == control.TCP && s.Address == c.virtual(port) {
			return s.Stats.Conns
		}
	}
	c.t.Fatalf("no service at port %d", port)
	return 0
}

// badReload has mistakes in the file, by command and by SIGHUP: the running
// state stays, and the message says where the mistake is.
func badReload(t *testing.T, c *cluster) {
	before, err := os.ReadFile(c.ConfigFile())
	c.must(err)
	defer func() { c.must(os.WriteFile(c.ConfigFile(), before, 0o600)) }()
	running := c.vsnat("save")
	l := c.startLoad(3)
	for name, text := range map[string]string{
		"vsnat.yaml:2:": "services:\n  - tcp: 192.168.88.23:99999\n",
		"vsnat.yaml:1:": "servcies: []\n",
		"10.0.0.2:80":   string(before) + "  - from: 10.0.0.2:80\n",
	} {
		c.must(os.WriteFile(c.ConfigFile(), []byte(text), 0o600))
		out, err := c.Director.Command(c.ctx, "vsnat", "reload").CombinedOutput()
		if err == nil || !strings.Contains(string(out), name) {
			t.Errorf("reload of a bad file: %v, says:\n%s\nwant it to name %s", err, out, name)
		}
	}
	c.must(os.Remove(c.ConfigFile()))
	c.must(c.director.Kill(unix.SIGHUP))
	c.eventually("the log tells of the bad reload", func() bool {
		return strings.Contains(c.director.Logs(), "reload refused")
	})
	if now := c.vsnat("save"); now != running {
		t.Errorf("the running state was\n%s\nand is\n%s", running, now)
	}
	l.more(5)
	l.end()
}

// manyChanges are made by eight clients of the control socket at once: a
// thousand, or fewer where each also changes the host's routing, or takes long.
func manyChanges(t *testing.T, c *cluster) {
	const least = 3
	enough := time.Now().Add(10 * time.Second)
	rounds := 32
	if c.io == "tun" {
		rounds = 8
	}
	l := c.startLoad(3)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			key := control.ServiceKey{Proto: control.UDP, Address: c.virtual(5000 + worker)}
			for i := range rounds {
				if i >= least && time.Now().After(enough) {
					break
				}
				server := control.ServerSpec{Address: netip.AddrPortFrom(c.Config.ServerAddr(1+i%3), 5000), Weight: 1}
				edited := server
				edited.Weight = 1 + i
				for _, err := range []error{
					c.control.AddService(c.ctx, control.ServiceSpec{ServiceKey: key, Scheduler: "rr"}),
					c.control.AddServer(c.ctx, key, server),
					c.control.EditServer(c.ctx, key, edited),
					c.control.DeleteService(c.ctx, key),
				} {
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	group.Wait()
	l.end()
	services, err := c.control.Services(c.ctx)
	c.must(err)
	for _, s := range services {
		if s.Proto == control.UDP && s.Address.Port() >= 5000 {
			t.Errorf("service %v is left", s.ServiceKey)
		}
	}
}
