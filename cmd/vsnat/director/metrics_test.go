// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// What is measured is what is there, under the names that are promised.
func TestMetrics(t *testing.T) {
	d, _ := startDirector(t, small)
	must(t, d.EditServer(t.Context(), control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")},
		control.ServerSpec{Address: netip.MustParseAddrPort("10.0.0.3:80"), Weight: 0}))
	var b bytes.Buffer
	must(t, d.Metrics(t.Context(), &b))
	for _, want := range []string{
		`vsnat_server_weight{proto="tcp",server="10.0.0.3:80",service="192.168.88.23:80"} 0`,
		`vsnat_service_servers{proto="tcp",service="192.168.88.23:80",state="available"} 1`,
		`vsnat_connections_limit 1000`,
		`vsnat_connections_by_state{state="ESTABLISHED"} 0`,
		`vsnat_link_serving{link="dwan"} 1`,
		`vsnat_events_total{kind="server-edited"} 1`,
		`vsnat_director_info{guard="none",io="packet"} 1`,
		`vsnat_shard_connections{shard="0"} 0`,
		`vsnat_ready 1`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(b.String(), "\nvsnat_drops_total{"); n != int(nat.NumReasons)-1 {
		t.Errorf("%d reasons of drops, there are %d", n, nat.NumReasons-1)
	}
}

// It is ready when links are open and the host is kept away, and if that is asked
// for, when each service has a server.
func TestReady(t *testing.T) {
	d, _ := startDirector(t, small)
	must(t, d.Alive(t.Context()))
	must(t, d.Ready(t.Context()))
	wants := func(change func(), want ...string) {
		t.Helper()
		must(t, d.call(t.Context(), func() error {
			change()
			if got := d.unready(); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			return nil
		}))
	}
	web := control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")}
	for _, a := range []string{"10.0.0.2:80", "10.0.0.3:80"} {
		must(t, d.DeleteServer(t.Context(), web, netip.MustParseAddrPort(a)))
	}
	wants(func() {})
	wants(func() { cfg := *d.cfg; cfg.Metrics.Ready = config.ReadyServers; d.cfg = &cfg }, "service tcp 192.168.88.23:80 has no server that takes connections")
	wants(func() { d.world.unshielded = true }, "the host's own stack is not kept away", "service tcp 192.168.88.23:80 has no server that takes connections")
	if err := d.Ready(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "not ready: the host's own stack is not kept away; service") {
		t.Errorf("%v", err)
	}
	wants(func() { cfg := *d.cfg; cfg.Metrics.Ready = config.ReadyLinks; d.cfg = &cfg; d.world.unshielded = false })
	wants(func() { d.world.served = nil }, "no link is served")
}

// A director with a packet loop that hangs is not alive, and whoever asks hears of it.
func TestNotAlive(t *testing.T) {
	d, _ := startDirector(t, small)
	hang, go_ := make(chan struct{}), make(chan struct{})
	go d.shards.First().Do(func() { close(hang); <-go_ })
	<-hang
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Alive(ctx); err == nil {
		t.Error("it is alive")
	}
	close(go_)
	must(t, d.Alive(t.Context()))
}
