// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// checkedPort is where the servers of these tests have pages that can be stopped.
const checkedPort = 8082

// A site that can be stopped and started, as a server's web server.
type page struct {
	c      *cluster
	n      int // of the server, from 1
	port   int
	server *http.Server
}

// servePage starts the web server of server n, whose page is its number.
func (c *cluster) servePage(n int) *page {
	c.t.Helper()
	p := &page{c: c, n: n, port: checkedPort}
	p.start()
	c.t.Cleanup(p.stop)
	return p
}

func (p *page) start() {
	l, err := p.c.Servers[p.n-1].Listen("tcp", fmt.Sprintf(":%d", p.port))
	p.c.must(err)
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, p.n) })}
	p.server.SetKeepAlivesEnabled(false)
	go p.server.Serve(l)
}

func (p *page) stop() { p.server.Close() }

// checked is a configuration with a service whose servers are checked.
func checked(c *lab.Cluster, io, more string) string { return checkedAt(c, io, checkedPort, more) }

// checkedAt has the servers serve at a port.
func checkedAt(c *lab.Cluster, io string, port int, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - tcp: %q\n%s    servers:\n", fmt.Sprint(at(&lab.Node{Addr: c.Config.VIP()}, checkedPort)), more)
	for _, n := range c.Servers {
		fmt.Fprintf(&b, "      - %q\n", at(n, port))
	}
	return strings.Replace(c.Config.DirectorConfig("rr", io), "snat:\n", b.String()+"snat:\n", 1)
}

// A fetch is one request and what came of it.
type fetch struct {
	at   time.Time // when it began
	page string
	err  error
}

// A flow asks for the page at a rate, from several sides, and keeps what came of it.
type flow struct {
	c     *cluster
	stop  func()
	group sync.WaitGroup
	mu    sync.Mutex
	done  []fetch
}

// flow starts a load of perSecond requests a second, if the machine can.
func (c *cluster) flow(perSecond int) *flow {
	c.t.Helper()
	const sides = 20
	stop := make(chan struct{})
	f := &flow{c: c, stop: sync.OnceFunc(func() { close(stop) })}
	url := fmt.Sprintf("http://%v/", c.virtual(checkedPort))
	for range sides {
		f.group.Go(func() {
			tick := time.NewTicker(sides * time.Second / time.Duration(perSecond))
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				r := fetch{at: time.Now()}
				r.page, r.err = c.Client.Get(c.ctx, url)
				f.mu.Lock()
				f.done = append(f.done, r)
				f.mu.Unlock()
			}
		})
	}
	c.t.Cleanup(f.end)
	return f
}

func (f *flow) end() { f.stop(); f.group.Wait() }

// between counts the requests that began in a span of time, by page; failed ones are
// under "".
func (f *flow) between(from, to time.Time) map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := make(map[string]int)
	for _, r := range f.done {
		if r.at.Before(from) || !r.at.Before(to) {
			continue
		}
		if r.err != nil {
			r.page = ""
		}
		n[r.page]++
	}
	return n
}

// states are those of the checks, by server.
func (c *cluster) states() (states []string) {
	c.t.Helper()
	list, err := c.control.Checks(c.ctx)
	c.must(err)
	for _, k := range list {
		states = append(states, k.State)
	}
	return states
}

func (c *cluster) untilStates(want ...string) {
	c.t.Helper()
	c.eventually("states "+strings.Join(want, " "), func() bool { return fmt.Sprint(c.states()) == fmt.Sprint(want) })
}

// since is when the check of server n has come to its state, by the director's clock.
func (c *cluster) since(n int) time.Time {
	c.t.Helper()
	list, err := c.control.Checks(c.ctx)
	c.must(err)
	return list[n-1].Since
}

// enough waits until so many requests have come to their end that began from a time on,
// and counts them.
func (f *flow) enough(from time.Time, least int) (n map[string]int) {
	f.c.t.Helper()
	f.c.eventually("more requests", func() bool {
		n = f.between(from, time.Now())
		all := 0
		for _, k := range n {
			all += k
		}
		return all >= least
	})
	return n
}

// TestServerStops has a web server stopped under load, and started again: clients see
// no error once it is known, and it takes its share gradually. A server without a
// listener refuses at once; so checks may take long enough for no other to fail.
func TestServerStops(t *testing.T) {
	const slow = 2 * time.Second
	configure := func(c *lab.Cluster, io string) string {
		return checked(c, io, fmt.Sprintf(`    scheduler: wlc
    check: {type: http /, interval: 1s, timeout: 1s, recheck: 100ms, rise: 2, fall: 2, hold-down: 0s}
    slow-start: %v
`, slow))
	}
	scenario := func(t *testing.T, c *cluster) {
		pages := []*page{c.servePage(1), c.servePage(2), c.servePage(3)}
		c.untilStates("up", "up", "up")
		load := c.flow(400)
		load.enough(time.Time{}, 20)

		stopped := time.Now()
		pages[1].stop()
		c.untilStates("up", "down", "up")
		known := time.Now()
		if took := c.since(2).Sub(stopped); took > 15*time.Second {
			t.Errorf("it was known %v after the stop", took)
		}
		if n := load.enough(known, 100); n[""] > 0 || n["2"] > 0 || n["1"] == 0 || n["3"] == 0 {
			t.Errorf("from %v after the stop on: %v requests by page", known.Sub(stopped), n)
		}
		if got := c.ipvsadm("-L", "-n"); !strings.Contains(got, at(c.Servers[1], checkedPort).String()+strings.Repeat(" ", 29-len(at(c.Servers[1], checkedPort).String()))) || !strings.Contains(got, "Masq    0 ") {
			t.Errorf("no weight of 0 in\n%s", got)
		}
		if got := c.vsnat("save"); strings.Contains(got, "weight") {
			t.Errorf("the weight is saved that the server has for being down:\n%s", got)
		}

		// How it comes back can be told if enough was asked for in the beginning of that.
		var early, late map[string]int
		sum := func(n map[string]int) int { return n[""] + n["1"] + n["2"] + n["3"] }
		for try := 1; sum(early) < 30; try++ {
			if try > 5 {
				t.Fatalf("%v in the %v after the start", early, slow/4)
			}
			if try > 1 {
				pages[1].stop()
				c.untilStates("up", "down", "up")
			}
			pages[1].start()
			c.untilStates("up", "up", "up")
			rose := c.since(2)
			late = load.enough(rose.Add(slow), 100)
			early = load.between(rose, rose.Add(slow/4))
		}
		load.end()
		if early[""] > 0 || late[""] > 0 {
			t.Errorf("failed requests after the start: %v, %v", early, late)
		}
		share := func(n map[string]int) float64 { return float64(n["2"]) / float64(sum(n)) }
		if share(early) >= share(late) || share(late) < 0.2 {
			t.Errorf("its share did not grow: %v, then %v", early, late)
		}
	}
	t.Run("IPv4", func(t *testing.T) { t.Parallel(); eachIO(t, lab.Config{}, configure, scenario) })
	t.Run("IPv6", func(t *testing.T) { t.Parallel(); onPacket(t, lab.Config{IPv6: true}, configure, scenario) })
}

// TestReloadUnderChecks: reloads under load lose no request, and no check forgets.
func TestReloadUnderChecks(t *testing.T) {
	t.Parallel()
	const reloads = 100
	const check = "{type: http, interval: 300ms, timeout: 300ms, fall: 50}"
	configure := func(c *lab.Cluster, io string) string {
		return checked(c, io, "    scheduler: rr\n    check: "+check+"\n")
	}
	eachIO(t, lab.Config{}, configure, func(t *testing.T, c *cluster) {
		for n := range 3 {
			c.servePage(n + 1)
		}
		c.untilStates("up", "up", "up")
		before, err := c.control.Checks(c.ctx)
		c.must(err)
		load := c.flow(400)
		text, err := os.ReadFile(c.ConfigFile())
		c.must(err)
		other := strings.Replace(string(text), "scheduler: rr\n    check:", "scheduler: wlc\n    slow-start: 1s\n    panic: 20%\n    check:", 1)
		for i := range reloads {
			use := string(text)
			if i%2 == 0 {
				use = other
			}
			c.must(os.WriteFile(c.ConfigFile(), []byte(use), 0o600))
			r, err := c.control.Reload(c.ctx)
			c.must(err)
			if len(r.Changes) == 0 {
				t.Fatal("a reload changed nothing")
			}
		}
		end := time.Now()
		load.end()
		if n := load.between(time.Time{}, end); n[""] > 0 || n["1"] == 0 {
			t.Errorf("requests by page: %v", n)
		}
		after, err := c.control.Checks(c.ctx)
		c.must(err)
		for i, k := range after {
			if !k.Since.Equal(before[i].Since) || k.Good < before[i].Good || k.State != "up" {
				t.Errorf("check of %s: %+v, was %+v", k.Server, k, before[i])
			}
		}

		// The first script of all may come with a reload.
		script := strings.Replace(string(text), check, "{type: script, command: /bin/true}", 1)
		c.must(os.WriteFile(c.ConfigFile(), []byte(script), 0o600))
		_, err = c.control.Reload(c.ctx)
		c.must(err)
		c.eventually("scripts that were run", func() bool {
			list, err := c.control.Checks(c.ctx)
			c.must(err)
			return !slices.ContainsFunc(list, func(k control.Check) bool { return k.Type != "script" || k.Good == 0 })
		})
	})
}

// TestServerGone: a server that is taken out for having failed takes its connections
// with it, in good order, and nobody else's; and while none is left another stands in
// (FAULTS 88, 92).
func TestServerGone(t *testing.T) {
	t.Parallel()
	configure := func(c *lab.Cluster, io string) string {
		// The check is of another port, whose end is not that of the connections.
		return checkedAt(c, io, lab.EchoPort, fmt.Sprintf(`    scheduler: rr
    check: {type: tcp, port: %d, interval: 1s, timeout: 1s, recheck: 100ms, rise: 1, fall: 2, hold-down: 0s}
    on-check-failed: remove
    sorry: %q
`, checkedPort+1, fmt.Sprint(at(c.Servers[0], 80))))
	}
	eachIO(t, lab.Config{}, configure, func(t *testing.T, c *cluster) {
		var pulses []*page
		for n := range 3 {
			p := &page{c: c, n: n + 1, port: checkedPort + 1}
			p.start()
			t.Cleanup(p.stop)
			pulses = append(pulses, p)
		}
		c.untilStates("up", "up", "up")
		held := make(map[string]net.Conn) // by server
		for len(held) < 3 {
			conn := c.dialTCP(checkedPort)
			c.echo(conn)
			for _, k := range c.conns(control.ConnQuery{Service: c.virtual(checkedPort)}) {
				if k.Client.String() == conn.LocalAddr().String() {
					held[k.Server.Addr().String()] = conn
				}
			}
		}

		pulses[1].stop()
		gone := held[c.Servers[1].Addr.String()]
		gone.SetReadDeadline(time.Now().Add(limit / 2))
		if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection of the server that is out: %v, want a reset", err)
		}
		for _, n := range []int{0, 2} {
			if err := tryEcho(held[c.Servers[n].Addr.String()]); err != nil {
				t.Errorf("a connection of server %d: %v", n+1, err)
			}
		}

		pulses[0].stop()
		pulses[2].stop()
		c.eventually("the sorry server stands in", func() bool {
			page, err := c.get(c.Client, checkedPort)
			return err == nil && page == c.Config.ServerPage(1)
		})
		if got := c.problems(); !strings.Contains(got, "no server is usable, "+at(c.Servers[0], 80).String()+" stands in") {
			t.Errorf("status does not say so: %s", got)
		}
		back := time.Now()
		pulses[1].start()
		c.untilStates("down", "up", "down")
		if took := time.Since(back); took > 15*time.Second {
			t.Errorf("it served %v after its return", took)
		}
		c.echo(c.dialTCP(checkedPort))
	})
}

// problems are those that the director tells of.
func (c *cluster) problems() string {
	c.t.Helper()
	h, err := c.control.Health(c.ctx)
	c.must(err)
	return strings.Join(h.Problems, "; ")
}
