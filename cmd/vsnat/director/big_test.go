// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FAULTS 118: 100,000 servers and 10,000 services are taken up in seconds, and a
// reload touches what differs.
func TestManyServices(t *testing.T) {
	for _, size := range []struct{ services, servers int }{{1000, 100}, {10_000, 1}} {
		t.Run(fmt.Sprintf("%d services of %d servers", size.services, size.servers), func(t *testing.T) {
			d, file := startDirector(t, small)
			var b strings.Builder
			b.WriteString("max-conns: 1000\nservices:\n")
			vip, server := netip.MustParseAddr("192.168.88.23"), netip.MustParseAddr("10.20.0.1")
			for i := range size.services {
				fmt.Fprintf(&b, "  - tcp: %v:%d\n    scheduler: rr\n    servers:\n", vip, 1000+i)
				for range size.servers {
					fmt.Fprintf(&b, "      - %v:8080\n", server)
					server = server.Next()
				}
			}
			load := func(text string) (changes int) {
				t.Helper()
				must(t, os.WriteFile(file, []byte(text), 0o600))
				began := processorTime(t)
				r, err := d.Reload(t.Context())
				must(t, err)
				// It is two seconds; the race detector makes many more of it.
				took := processorTime(t) - began
				t.Logf("%d changes took %v of the processor", len(r.Changes), took)
				if took > time.Minute {
					t.Errorf("%d changes took %v of the processor", len(r.Changes), took)
				}
				return len(r.Changes)
			}
			text := b.String()
			if n := load(text); n < size.services*(1+size.servers) {
				t.Errorf("%d changes", n)
			}
			if n := load(strings.Replace(text, "scheduler: rr", "scheduler: wlc", 1)); n != 1 {
				t.Errorf("one differs, and %d were changed", n)
			}
		})
	}
}

// processorTime is what the process has used: other than time itself it does not pass
// while others are at work.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
