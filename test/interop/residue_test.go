// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/test/lab"
)

// What a host is, in the words of its own tools. Counters are left out.
var hostState = []string{
	"nft -s list ruleset",
	"ip -o -d link show | sed 's/ qlen [0-9]*//'",
	"ip -o addr show",
	"ip route show table all",
	"ip rule show",
	"ip neigh show proxy",
	"sysctl -a 2>/dev/null | grep '^net\\.' | grep -v 'conntrack_count\\|netdev_rss_key'",
}

// However the director ends, its host is as it was before the start: also after
// SIGKILL in the middle of a transfer.
func TestNothingStaysOnTheHost(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		for _, host := range []lab.HostAddresses{lab.HostBesideVIP, lab.HostVIPOnNIC} {
			for _, way := range ways(t) {
				t.Run(fmt.Sprintf("%s %s %v", unix.SignalName(signal), way, host), func(t *testing.T) {
					testNothingStays(t, signal, way, host)
				})
			}
		}
	}
}

func testNothingStays(t *testing.T, signal unix.Signal, way string, host lab.HostAddresses) {
	c := lab.Start(t, lab.Config{Servers: 2, Host: host})
	for _, n := range c.Servers {
		err := n.ServeHTTP(filePort, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			page := make([]byte, 1<<16)
			for {
				if _, err := w.Write(page); err != nil {
					return
				}
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	// A link takes a moment to notice that its other end is up.
	eventually(t, "the links have a carrier", func() bool {
		return !strings.Contains(run(t, c.Director, "ip", "-o", "link"), "NO-CARRIER")
	})
	before := look(t, c.Director)
	d := direct(t, c, site(c, way, tcp(filePort)))
	load, _ := background(t, c.Client, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url(c, filePort))
	eventually(t, "the transfer runs", func() bool {
		out := run(t, c.Director, "vsnat", "conn", "list", "--state", "established", "-o", "json")
		return strings.Contains(out, c.Client.Addr.String())
	})
	if differ(before, look(t, c.Director)) == "" {
		t.Error("a running director shows nowhere: the test looks at the wrong things")
	}

	if err := d.Kill(signal); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var left string
	end := time.Now().Add(5 * time.Second)
	for {
		if left = differ(before, look(t, c.Director)); left == "" || time.Now().After(end) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left != "" {
		t.Errorf("the host is not as before:\n%s", left)
	}
	load.Process.Kill()

	// And it can be started again.
	direct(t, c, site(c, way, tcp(lab.PagePort)))
	run(t, c.Client, "curl", "-sS", "--max-time", "10", url(c, lab.PagePort))
}

// look is the state of a node.
func look(t *testing.T, n *lab.Node) map[string]string {
	t.Helper()
	state := make(map[string]string)
	for _, command := range hostState {
		state[command] = shell(t, n, command)
	}
	return state
}

// differ lists the lines that one state has and the other has not.
func differ(before, after map[string]string) string {
	var b strings.Builder
	lines := func(s string) map[string]bool {
		set := make(map[string]bool)
		for l := range strings.Lines(s) {
			set[strings.TrimSpace(l)] = true
		}
		return set
	}
	for _, command := range hostState {
		was, is := lines(before[command]), lines(after[command])
		for l := range was {
			if !is[l] {
				fmt.Fprintf(&b, "%s\n  - %s\n", command, l)
			}
		}
		for l := range is {
			if !was[l] {
				fmt.Fprintf(&b, "%s\n  + %s\n", command, l)
			}
		}
	}
	return b.String()
}
