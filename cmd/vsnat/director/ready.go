// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/nat"
)

// What those ask who only want yes or no: is it alive, and would it serve.

// aliveTime is how long decide and the packet loops may take for an answer.
const aliveTime = 2 * time.Second

// Alive implements control.Director: decide answers, and so does each packet loop.
func (d *director) Alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	answered := make(chan error, 1)
	go func() { // outlives a loop that hangs, as decide does
		answered <- d.call(ctx, func() error {
			if !d.shards.Do(func(*shard.Shard) {}) {
				return control.Refuse(control.CodeUnavailable, "a packet loop has ended", "")
			}
			return nil
		})
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return control.Refuse(control.CodeUnavailable, "the director does not answer", "vsnat debug pprof goroutine says where it is")
	}
}

// Ready implements control.Director.
func (d *director) Ready(ctx context.Context) error {
	if err := d.Alive(ctx); err != nil {
		return err
	}
	return d.call(ctx, func() error {
		if missing := d.unready(); len(missing) > 0 {
			return control.Refuse(control.CodeUnavailable, "not ready: "+strings.Join(missing, "; "), "vsnat status says more")
		}
		return nil
	})
}

// unready is why the director would not serve: nothing if it would.
func (d *director) unready() (why []string) {
	w := &d.world
	if len(w.served) == 0 {
		why = append(why, "no link is served")
	}
	if d.tunHost == nil {
		for i := range w.ports {
			if p := &w.ports[i]; p.open == nil && slices.Contains(w.served, p.name) {
				why = append(why, "link "+p.name+" is not open")
			}
		}
	}
	if w.unshielded {
		why = append(why, "the host's own stack is not kept away")
	}
	if d.cfg.Metrics.Ready != config.ReadyServers {
		return why
	}
	for _, s := range d.rules.Services() {
		if !slices.ContainsFunc(s.Servers, available) {
			why = append(why, fmt.Sprintf("service %s has no server that takes connections", controlKey(s.ServiceKey)))
		}
	}
	return why
}

// available reports whether a server takes new connections.
func available(v nat.ServerInfo) bool { return v.Weight > 0 && !v.Overloaded }
