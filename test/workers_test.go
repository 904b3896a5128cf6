// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/test/lab"
)

// TestWorkers loads three workers with all kinds of packets at once, from several clients:
// none may meet a connection that is another's. With io: packet the kernel brings each to
// its worker, so that none is handed over either; with io: tun the first of a connection
// are.
func TestWorkers(t *testing.T) {
	config := lab.Config{Workers: 3, Clients: 4}
	eachFamily(t, config, nil, func(t *testing.T, c *cluster) {
		c.run("mixed load", mixedLoad)
		c.run("persistence", workersPersistence)
		c.run("the answers of full NAT", workersHairpin)
	})
}

func mixedLoad(t *testing.T, c *cluster) {
	l := c.startLoad(6)
	for i, n := range c.Clients {
		for _, size := range []int{1, 1000, 8 << 10} {
			conn, err := n.Dial(c.ctx, "udp", c.virtual(lab.EchoPort).String())
			c.must(err)
			c.exchange(conn, 3, size)
			conn.Close()
		}
		if page, err := n.Get(c.ctx, fmt.Sprintf("http://%v/", c.virtual(80))); err != nil || !strings.Contains(page, "this is real server") {
			t.Errorf("client %d: %q, %v", i+1, page, err)
		}
		c.mustPing(n, c.Config.VIP(), 2, 56)
	}
	snatPeer(t, c, c.Client)
	l.more(20)
	l.end()
	s := c.stats()
	busy := 0
	var handed, strange uint64
	for _, w := range s.Shards {
		if w.Packets > 0 {
			busy++
		}
		handed, strange = handed+w.HandedOver, strange+w.Strange
	}
	if least := map[bool]int{false: 2, true: 1}[c.Config.IPv6]; len(s.Shards) != 3 || busy < least { // one network of IPv6 is one client
		t.Errorf("%d workers, of which %d had something to do: %+v", len(s.Shards), busy, s.Shards)
	}
	if strange != 0 {
		t.Errorf("%d packets met a connection that is another worker's: %+v", strange, s.Shards)
	}
	if c.io == "packet" && handed != 0 {
		t.Errorf("%d packets came to another worker than their own: %+v", handed, s.Shards)
	}
}

// workersPersistence: all of a client go to one server, those of a network too.
func workersPersistence(t *testing.T, c *cluster) {
	vip := c.virtual(80).String()
	c.ipvsadm("-E", "-t", vip, "-s", "rr", "-p", "60")
	defer c.ipvsadm("-E", "-t", vip, "-s", "rr")
	for _, n := range c.Clients {
		first, err := n.Get(c.ctx, "http://"+vip+"/")
		c.must(err)
		for range 3 {
			if page, err := n.Get(c.ctx, "http://"+vip+"/"); err != nil || page != first {
				t.Errorf("%q after %q, %v", page, first, err)
			}
		}
	}
}

// workersHairpin has a server ask the service: what answers come from tells another worker
// than who has asked.
func workersHairpin(t *testing.T, c *cluster) {
	for i := range 6 {
		page, err := c.Servers[i%3].Get(c.ctx, fmt.Sprintf("http://%v/", c.virtual(80)))
		if err != nil || !strings.Contains(page, "this is real server") {
			t.Errorf("%q, %v", page, err)
		}
		conn, err := c.Servers[i%3].Dial(c.ctx, "udp", c.virtual(lab.EchoPort).String())
		c.must(err)
		c.exchange(conn, 2, 4<<10) // in fragments
		conn.Close()
	}
	for _, w := range c.stats().Shards {
		if w.Strange != 0 {
			t.Errorf("packets met a connection that is another worker's: %+v", w)
		}
	}
}
