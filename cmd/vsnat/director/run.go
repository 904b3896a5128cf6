// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/metrics"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/shortcut"
	"github.com/vsnat/vsnat/iface/userstack"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// Run is the director: it serves packets and the control socket until ctx is
// done, then gives back all that it took from the host, and returns nil. It
// works in the network namespace of the calling thread. An error before Ready
// says what is missing and has changed nothing.
func Run(ctx context.Context, o Options) error {
	cfg := o.Config
	if cfg == nil {
		cfg = config.Default()
		if o.ConfigFile != "" {
			var err error
			if cfg, err = config.Read(o.ConfigFile); err != nil {
				return err
			}
		}
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	if o.Log == nil {
		o.Log = newLog(cfg.Log.Format, level)
	}

	socket := o.Socket
	if socket == "" {
		socket = cfg.Control.Socket
	}
	if socket == "" {
		socket = control.DefaultSocket()
	}
	listener, err := control.Listen(socket, control.ListenOptions{Mode: cfg.Control.Mode, Group: cfg.Control.Group})
	if err != nil {
		return err
	}
	defer listener.Close()
	public, err := listenPublic(cfg.Metrics)
	if err != nil {
		return err
	}
	if public != nil {
		defer public.Close()
	}
	if err := checkPrivileges(); err != nil {
		return err
	}
	if o.State == "" {
		o.State = filepath.Join(filepath.Dir(socket), "tun-host.json")
	}

	o.Socket = socket

	o.guards = inherited()
	d, err := open(o, cfg, level)
	if err != nil {
		return err
	}
	defer d.close()
	if d.unconfined, err = dropPrivileges(); err != nil {
		return err
	}
	if d.unconfined != "" {
		o.Log.Info(d.unconfined)
	}

	manager, err := openSupervisor()
	if err != nil {
		o.Log.Warn("the service manager is told nothing", "error", err)
	}
	defer manager.close()
	d.supervisor = manager

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.watch(ctx) })
	group.Go(func() error { return control.NewServer(d, o.Log).Serve(ctx, listener) })
	if public != nil {
		group.Go(func() error { return control.NewServer(d, o.Log).ServePublic(ctx, public, cfg.Metrics.Hosts) })
	}
	d.takenUp()
	group.Go(func() error {
		o.Log.Info("serving", "pid", os.Getpid(), "socket", socket, "io", string(cfg.IO), "guard", d.guardMethod(), "offload", d.offloadMethod(),
			"services", len(cfg.Services), "max-conns", cfg.MaxConns, "workers", cfg.Workers)
		if o.Ready != nil {
			o.Ready()
		}
		manager.ready()
		defer manager.stopping()
		defer d.passOn(manager)
		return d.decide(ctx)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	o.Log.Info("stopped")
	return nil
}

func newLog(format config.LogFormat, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// director is a director at work. The goroutine in decide owns every field
// that is not said to be safe otherwise.
type director struct {
	options Options
	log     *slog.Logger
	level   *slog.LevelVar
	started time.Time

	unconfined string // what could not be given up; see dropPrivileges

	cfg    *config.Config // what the file says; services and SNAT rules are in rules
	rules  *nat.Rules
	roster *roster.Roster // of rules; see there
	world  world

	keeping   keeping
	monitor   *health.Monitor
	scripts   *health.Runner             // nil: no scripts can be run, for
	noScripts string                     // that reason
	stack     *userstack.Stack           // for checks, where the host has no address; nil: everywhere it has
	paths     atomic.Pointer[checkPaths] // of checks; safe from anywhere
	rampTimer *time.Timer                // of slow starts; nil: there is none

	drains     map[drainKey]*drainJob
	trial      *trial         // of a configuration that waits for its confirmation, or nil
	filed      *config.Config // what the file said when it was read last; nil: there is none
	drifted    int            // see drift
	driftKnown bool           // of what is in force now

	shards     shard.Set
	key        nat.ShardKey // never changes
	neighbours *iface.Neighbours
	shortcuts  *shortcut.Table // nil: there are none
	guard      iface.Guard     // nil with io: tun
	tunHost    *iface.TUNHost  // nil with io: packet
	rates      rates
	drops      [nat.NumReasons]uint64 // at the last sample
	clientele  clientele
	alarmed    [nat.NumReasons]time.Time // when drops that alarms has were last seen to grow
	zero       map[uint64]nat.Counters   // by serial of service or server: what Zero set aside
	warned     map[string]time.Time
	events     control.EventLog // safe from anywhere
	reloads    reloads
	supervisor *supervisor
	exposition *metrics.Exposition // safe from anywhere
	scarcity   scarcity
	nearlyUsed []string             // at the last sample
	problems   map[string]time.Time // that Health tells of, and since when

	calls    chan func()         // for decide, which the sender waits for
	news     chan func()         // for decide, from those who must not wait; see tell
	stopped  chan struct{}       // closed when decide has ended
	topology chan iface.Topology // the newest one, at most
	watcher  *iface.TopologyWatcher
}

// open makes everything that can fail, so that a director either starts whole
// or not at all.
func open(o Options, cfg *config.Config, level *slog.LevelVar) (_ *director, err error) {
	d := &director{
		options: o, log: o.Log, level: level, started: time.Now(), reloads: reloads{accepted: time.Now()},
		cfg: cfg, rules: nat.NewRules(), keeping: keeping{guards: o.guards},
		drains:    make(map[drainKey]*drainJob),
		clientele: newClientele(), zero: make(map[uint64]nat.Counters), warned: make(map[string]time.Time), problems: make(map[string]time.Time), scarcity: make(scarcity),
		calls: make(chan func()), news: make(chan func(), 2*nat.MaxPorts),
		stopped: make(chan struct{}), topology: make(chan iface.Topology, 1),
	}
	d.exposition = metrics.New(d.snapshot)
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if o.ConfigFile != "" && o.Config == nil {
		d.filed = cfg
	}
	d.roster = roster.New(d.rules)
	if err := loadRules(d.roster, cfg); err != nil {
		return nil, err
	}
	if d.watcher, err = iface.OpenTopologyWatcher(); err != nil {
		return nil, err
	}
	d.neighbours = iface.NewNeighbours(iface.NeighbourConfig{Conflict: d.conflict, Taken: d.taken, Claimed: d.claimed})
	d.key = shardKey(cfg)
	if err := d.openShortcuts(); err != nil {
		return nil, err
	}
	forwarders, err := nat.NewForwarders(nat.ForwarderConfig{Rules: d.rules, MaxConns: cfg.MaxConns, Key: d.key}, cfg.Workers)
	if err != nil {
		return nil, fmt.Errorf("memory for %d connections: %w (lower max-conns)", cfg.MaxConns, err)
	}
	if d.shards, err = shard.NewSet(forwarders, d.neighbours, d.portLost, d.hostAsked); err != nil {
		return nil, err
	}
	if d.shortcuts != nil {
		d.shards.TakeShortcuts(d.shortcuts, shortcutRows)
	}
	d.shards.Run()

	d.world.topology, err = d.watcher.Read()
	if err != nil {
		return nil, err
	}
	if err := d.servable(cfg); err != nil {
		return nil, err
	}
	if cfg.IO == config.IOTUN {
		err = d.openTUN()
	} else {
		err = d.openGuard()
	}
	if err != nil {
		return nil, err
	}
	d.recall()
	if err := d.openMonitor(); err != nil {
		return nil, err
	}
	if err := d.follow(); err != nil {
		return nil, err
	}
	return d, nil
}

// close gives everything back. The guard goes last, so that the host does not
// answer for connections that are being let go of.
func (d *director) close() {
	if d.monitor != nil {
		d.monitor.Close()
	}
	if d.scripts != nil {
		d.scripts.Close()
	}
	if d.stack != nil {
		d.stack.Close()
	}
	if d.keeping.from != nil {
		_ = d.keeping.from.Close() // only read
	}
	d.keeping.letGo()
	d.closeShortcutLinks() // or the kernel would go on while the shards end
	if len(d.shards) > 0 {
		d.shards.Halt()
		d.keep()
		if err := d.shards.Stop(); err != nil {
			d.log.Warn("connection table", "error", err)
		}
	}
	d.shortcuts.Close()
	if d.tunHost != nil {
		if err := d.tunHost.Close(); err != nil {
			d.log.Error("host routing was not put back whole", "error", err)
		}
	}
	if d.guard != nil {
		if err := d.guard.Close(); err != nil {
			d.log.Error("guard was not removed", "error", err)
		}
	}
	if d.watcher != nil {
		_ = d.watcher.Close() // ends a watch that is still under way
	}
}
