// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

const small = `max-conns: 1000
guard: none
routes:
  - {dst: 192.168.88.0/24, interface: dwan}
  - {dst: 10.0.0.0/24, interface: dlan}
services:
  - tcp: 192.168.88.23:80
    scheduler: rr
    servers: [10.0.0.2:80, 10.0.0.3:80]
snat:
  - from: 10.0.0.0/24
    to: 192.168.88.23
`

// startDirector makes two links and a director on them, without its control
// socket, and with decide at work. It returns the file that reload reads.
func startDirector(t *testing.T, text string) (*director, string) {
	t.Helper()
	cables(t)
	return openDirector(t, text)
}

func cables(t *testing.T) {
	t.Helper()
	other := ifacetest.NewNamespace(t)
	for _, name := range []string{"dwan", "dlan"} {
		ifacetest.NewCable(t, name, other, name)
	}
}

func openDirector(t *testing.T, text string) (*director, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vsnat.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, err := config.Read(file)
	must(t, err)
	d, err := open(Options{ConfigFile: file, Log: slog.New(slog.DiscardHandler)}, cfg, new(slog.LevelVar))
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = d.decide(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended; d.close() })
	return d, file
}

func (d *director) config(t *testing.T) string {
	t.Helper()
	text, err := d.Config(t.Context())
	must(t, err)
	return text
}

func netlinkAddr(link, address string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// waitFor reads the topology, as the watcher would, until f holds in decide.
func waitFor(t *testing.T, d *director, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // the kernel may tell of a carrier a second late
		now, err := d.watcher.Read()
		must(t, err)
		ok := false
		must(t, d.call(t.Context(), func() error { d.hostChanged(now); ok = f(); return nil }))
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it does not come to pass")
		}
	}
}
