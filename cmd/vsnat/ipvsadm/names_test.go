// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestServiceFile(t *testing.T) {
	var f serviceFile
	f.read(strings.NewReader("# comment\nhttp 80/tcp www # web\nhttp\t80/sctp\nwww2 80/tcp\nbad 99999/tcp\nbad2 x\nshort\n\n"))
	for name, want := range map[string]uint16{"http": 80, "www": 80, "www2": 80, "bad": 0, "80/tcp": 0} {
		if got := f.byName[serviceName{name, "tcp"}]; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if got := f.byPort[servicePort{80, "tcp"}]; got != "http" {
		t.Errorf("80 is %q", got)
	}
	if got := f.byPort[servicePort{80, "udp"}]; got != "" {
		t.Errorf("80/udp is %q", got)
	}
}

// A name server that never answers is asked until the time is up, then not again.
func TestDeadNameServer(t *testing.T) {
	asked := 0
	r := newSystemResolver()
	r.left = 10 * time.Millisecond
	r.net = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked++
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		if name, ok := r.HostName(netip.MustParseAddr(addr)); ok {
			t.Errorf("%s is %q", addr, name)
		}
	}
	if asked == 0 || r.left > 0 {
		t.Fatalf("asked %d times, %v left", asked, r.left)
	}
	before := asked
	r.HostName(netip.MustParseAddr("192.0.2.4"))
	if asked != before {
		t.Error("asked again after the time was up")
	}
}
