// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/test/lab"
)

// TestCheckPaths: checks reach the servers from whatever address there is, the
// host's or one that vsnat alone has, and nothing of them is balanced, counted or
// answered by the packet loop (FAULTS 96).
func TestCheckPaths(t *testing.T) {
	t.Parallel()
	configure := func(c *lab.Cluster, io string) string {
		return checked(c, io, `    scheduler: rr
    checks:
      - {type: tcp, interval: 2s, timeout: 2s, recheck: 200ms}
      - {type: http, interval: 2s, timeout: 2s, recheck: 200ms, body-regexp: "^[123]$"}
      - {type: icmp, interval: 2s, timeout: 2s, recheck: 200ms}
      - {type: udp, port: 7, interval: 2s, timeout: 2s, recheck: 200ms, send: hello, expect: hello}
      - {type: script, command: /bin/true, interval: 2s, timeout: 2s, recheck: 200ms}
`)
	}
	for name, config := range map[string]lab.Config{
		"gateway on the host":     {},
		"nothing on the host":     {Host: lab.HostBare},
		"nothing on the host, v6": {Host: lab.HostBare, IPv6: true},
		"one arm":                 {Host: lab.HostVIPOnNIC, OneArm: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachIO(t, config, configure, checksReach)
		})
	}
	// What servers answer the host is no stray of theirs, though nothing else leaves them.
	t.Run("no SNAT", func(t *testing.T) {
		t.Parallel()
		onPacket(t, lab.Config{}, func(c *lab.Cluster, io string) string {
			text, _, _ := strings.Cut(configure(c, io), "snat:\n")
			return text
		}, checksReach)
	})
}

func checksReach(t *testing.T, c *cluster) {
	pages := []*page{c.servePage(1), c.servePage(2), c.servePage(3)}
	c.eventually("all checks good", func() bool {
		list, err := c.control.Checks(c.ctx)
		c.must(err)
		for _, k := range list {
			if k.State != "up" {
				return false
			}
		}
		return len(list) == 15
	})
	before, drops := c.stats(), c.drops()
	good, failed := c.results()
	c.eventually("more checks", func() bool { now, _ := c.results(); return now >= good+15 })
	if _, now := c.results(); now != failed {
		t.Errorf("%d checks failed, %d before", now, failed)
	}
	if after := c.stats(); after.Total != before.Total || after.Conns != before.Conns {
		t.Errorf("checks are counted: %+v, was %+v", after, before)
	}
	if after := c.drops(); !maps.Equal(after, drops) {
		t.Errorf("checks are dropped: %v, was %v", after, drops)
	}
	if got, want := c.mustGet(c.Client, checkedPort), "3"; got != want {
		t.Errorf("a client gets %q, want %q", got, want)
	}
	pages[1].stop()
	c.eventually("one is out", func() bool {
		return strings.Contains(c.vsnat("service", "list"), "down") && fmt.Sprint(c.mustGet(c.Client, checkedPort)) != "2"
	})
}

// results are how many checks were good, and how many not.
func (c *cluster) results() (good, not uint64) {
	c.t.Helper()
	list, err := c.control.Checks(c.ctx)
	c.must(err)
	for _, k := range list {
		good, not = good+k.Good, not+k.Bad+k.Impossible
	}
	return good, not
}

func (c *cluster) stats() control.Stats {
	c.t.Helper()
	s, err := c.control.Stats(c.ctx)
	c.must(err)
	return s
}
