// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
)

// FAULTS 123: whoever reads the log holds up decide, never the packets.
func TestSlowLog(t *testing.T) {
	d, _ := startDirector(t, small)
	until := make(chan struct{})
	release := sync.OnceFunc(func() { close(until) })
	t.Cleanup(release) // or decide would never end after a failure
	must(t, d.call(t.Context(), func() error { d.log = slog.New(&stuck{Handler: slog.DiscardHandler, until: until}); return nil }))
	for range 10 * cap(d.news) {
		d.conflict(0, vip, [6]byte{2})
		if !d.shards.Do(func(*shard.Shard) {}) {
			t.Fatal("the shard has ended")
		}
	}
	release()
	if _, err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
}

type stuck struct {
	slog.Handler
	until chan struct{}
}

func (s *stuck) Enabled(context.Context, slog.Level) bool { return true }

func (s *stuck) Handle(context.Context, slog.Record) error { <-s.until; return nil }

// A condition that comes often is told once in ten seconds.
func TestWarnings(t *testing.T) {
	var out bytes.Buffer
	d := &director{log: slog.New(slog.NewTextHandler(&out, nil)), warned: make(map[string]time.Time)}
	for range 3 {
		d.warn("a", "first", "x")
		d.warn("b", "second", "line\nbreak")
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}
