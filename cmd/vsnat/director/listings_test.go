// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// TestControlConn: what is no connection is told apart, and a template of a mark
// has the protocol that ipvsadm shows.
func TestControlConn(t *testing.T) {
	client := netip.MustParseAddrPort("192.168.88.21:0")
	for _, row := range []struct {
		conn        nat.ConnInfo
		proto, kind string
	}{
		{nat.ConnInfo{Proto: nat.ProtoTCP, State: conntrack.SynRecv}, "tcp", "nat"},
		{nat.ConnInfo{Proto: nat.ProtoTCP, Local: client}, "tcp", "fullnat"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, SNAT: true}, "udp", "snat"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, Template: true, State: conntrack.Assured}, "udp", "template"},
		{nat.ConnInfo{Proto: 0, Template: true}, "ip", "template"},
		{nat.ConnInfo{Proto: nat.ProtoUDP, OnePacket: true}, "udp", "answers"},
	} {
		row.conn.Client = client
		got := controlConn(&row.conn)
		if got.Proto != row.proto || got.Kind != row.kind || got.State != row.conn.State.String() || got.Client != client {
			t.Errorf("%+v: %+v", row.conn, got)
		}
	}
}

// What a deleted service counted stays in the total, and Zero begins anew.
func TestTotalsNeverGoBack(t *testing.T) {
	d, _ := startDirector(t, small)
	key := control.ServiceKey{Proto: control.TCP, Address: netip.MustParseAddrPort("192.168.88.23:80")}
	total := func() control.Counters {
		s, err := d.Stats(t.Context())
		must(t, err)
		return s.Total
	}
	d.shards.First().Do(func() {
		s := d.shards.First()
		for port := range 10 {
			s.Forwarder().Begin(s.Now())
			// From the far side of a link that is served; the verdict does not matter.
			s.Forwarder().Forward(&nat.Packet{Data: syn(40000 + port), In: 0, From: clientMAC})
		}
	})
	if n := total().Conns; n != 10 {
		t.Fatalf("%d connections opened", n)
	}
	must(t, d.DeleteService(t.Context(), key))
	if n := total().Conns; n != 10 {
		t.Errorf("%d connections in the total after the service was deleted", n)
	}
	must(t, d.Zero(t.Context(), control.ServiceKey{}))
	if n := total(); n != (control.Counters{}) {
		t.Errorf("total %+v after Zero", n)
	}
	if err := d.Zero(t.Context(), key); err == nil {
		t.Error("Zero of a service that is not there")
	}
}

// A listing while the table changes: what lives all the while is there once.
func TestConnsPaged(t *testing.T) {
	d, _ := startDirector(t, small)
	open := func(from, to int) {
		d.shards.Do(func(s *shard.Shard) {
			s.Forwarder().Begin(s.Now())
			for port := from; port < to; port++ {
				s.Forwarder().Forward(&nat.Packet{Data: syn(port), In: 0, From: clientMAC})
			}
		})
	}
	open(1000, 1100)
	seen := make(map[uint16]int)
	for q := (control.ConnQuery{Limit: 7}); ; {
		page, err := d.Conns(t.Context(), q)
		must(t, err)
		if len(page.Conns) > 7 {
			t.Fatalf("%d on a page", len(page.Conns))
		}
		for _, c := range page.Conns {
			seen[c.Client.Port()]++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
		open(2000+len(seen), 2002+len(seen)) // younger ones
	}
	for port := range 100 {
		if seen[uint16(1000+port)] != 1 {
			t.Errorf("port %d is listed %d times", 1000+port, seen[uint16(1000+port)])
		}
	}
	for port, n := range seen {
		if n != 1 {
			t.Errorf("port %d is listed %d times", port, n)
		}
	}
	for name, q := range map[string]control.ConnQuery{"cursor": {Cursor: "x"}, "negative": {Cursor: "-1"}, "protocol": {Proto: "dccp"}} {
		if _, err := d.Conns(t.Context(), q); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if p, err := d.Conns(t.Context(), control.ConnQuery{Cursor: "999999"}); err != nil || len(p.Conns) != 0 || p.Next != "" {
		t.Errorf("past the end: %+v, %v", p, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := d.Conns(ended, control.ConnQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("by one who has left: %v", err)
	}
}
