// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m, nil)) }

func TestForwardedByTheKernel(t *testing.T) {
	c := Start(t, Config{Forward: true, Host: HostVIPOnNIC})
	ctx := t.Context()
	if err := c.Client.AddRoute(inside, vip); err != nil {
		t.Fatal(err)
	}
	for i := range c.Servers {
		want := c.Config.ServerPage(i + 1)
		got, err := c.Client.Get(ctx, fmt.Sprintf("http://%v/", c.Config.ServerAddr(i+1)))
		if err != nil || got != want {
			t.Errorf("page of server %d: got %q, %v, want %q", i+1, got, err, want)
		}
	}
	if err := c.Client.Upload(ctx, netip.AddrPortFrom(c.Servers[0].Addr, SinkPort), 1<<20); err != nil {
		t.Error(err)
	}
	if err := c.Client.Download(ctx, netip.AddrPortFrom(c.Servers[0].Addr, SourcePort), 1<<20); err != nil {
		t.Error(err)
	}
	_ = context.Background
}

func TestDraw(t *testing.T) {
	for _, c := range []Config{{}, {Servers: 2, Clients: 2}, {Servers: 9, Router: true, Far: true}, {Servers: 1, Host: HostVIPOnLoopback}} {
		s, err := Draw(c)
		fmt.Println(s, err)
	}
}
