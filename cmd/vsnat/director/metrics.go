// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/metrics"
	"github.com/vsnat/vsnat/cmd/vsnat/director/shard"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched/health"
)

// What Prometheus is shown: copies, made in decide with one visit to each
// packet loop. Counters are those of the packet loop, whatever Zero set aside.

// Metrics implements control.Director.
func (d *director) Metrics(ctx context.Context, w io.Writer) error { return d.exposition.Write(ctx, w) }

// snapshot is a metrics.Source.
func (d *director) snapshot(ctx context.Context) (*metrics.Snapshot, error) {
	s := &metrics.Snapshot{Version: d.options.Version, Events: make(map[string]float64)}
	err := d.call(ctx, func() error {
		sum, shards, _ := d.shards.Stats()
		s.IO, s.Guard = string(d.cfg.IO), d.guardMethod()
		s.Problems, s.Ready = len(d.listProblems()), len(d.unready()) == 0
		s.ReloadRefused, s.Reloaded = d.reloads.refused, d.reloads.accepted
		d.countServices(s, &sum.Stats)
		countFates(s, &sum)
		countConns(s, &sum.Stats)
		s.Latency = metrics.Histogram{Bounds: sum.Latency.Bounds(), Counts: sum.Latency.Buckets[:], Sum: time.Duration(sum.Latency.Sum).Seconds()}
		for i := range shards {
			t := &shards[i]
			s.Shards = append(s.Shards, metrics.Shard{Name: strconv.Itoa(i), Received: t.Packets, Sent: t.Sent, Given: t.HandedOver, Taken: t.TakenOver, Conns: t.Conns})
		}
		d.countLinks(s)
		d.countChecks(s)
		return nil
	})
	for kind, n := range d.events.Counts() {
		s.Events[string(kind)] = float64(n)
	}
	n := d.neighbours.Stats()
	s.Neighbours = metrics.Neighbours{
		Entries: n.Entries, Queued: n.Queued, Requests: n.Requests, Replies: n.Replies, Conflicts: n.Conflicts,
		Unsolicited: n.Unsolicited, Failed: n.Failed, Refused: n.QueueRefused + n.QueueDisplaced,
	}
	return s, err
}

func (d *director) countServices(s *metrics.Snapshot, stats *nat.Stats) {
	signals, _ := d.shards.Signals(nil)
	var bounds []float64
	for _, b := range nat.LatencyBounds {
		bounds = append(bounds, b.Seconds())
	}
	for _, service := range d.rules.Services() {
		key := metricKey(controlKey(service.ServiceKey))
		v := metrics.Service{Key: key, Counters: metrics.Counters(at(stats.Services, service.Slot)), Scheduler: service.Scheduler}
		for _, r := range service.Servers {
			key.Server = controlServer(r.ServerSpec).Address.String()
			server := metrics.Server{
				Key: key, Counters: metrics.Counters(at(stats.Servers, r.Slot)),
				Active: r.Active, Inactive: r.Inactive, Persistent: r.Persistent, Weight: r.Weight, Configured: r.Weight, Overloaded: r.Overloaded,
				Elsewhere: d.clientele.wrong[r.Addr] != nil && !r.FullNAT,
			}
			if m := d.roster.Member(service.ServiceKey, netip.AddrPortFrom(r.Addr, r.Port)); m != nil {
				server.Weight, _ = m.InForce()
				server.Configured = m.Spec().Weight
				server.Ordered = d.drains[drainKey{service.ServiceKey, m.Server()}] != nil
				server.Checked, server.Up = m.Checked(), m.State() == health.Up
			}
			if int(r.Slot) < len(signals) {
				g := &signals[r.Slot]
				server.Asked, server.Answered, server.Refused = g.Asked, g.Answered, g.Refused
				server.Handshake = metrics.Histogram{Bounds: bounds, Counts: g.Latency.Counts[:], Sum: g.Latency.Sum.Seconds()}
			}
			v.Servers = append(v.Servers, server)
		}
		s.Services = append(s.Services, v)
	}
	s.SNAT = metrics.Counters(stats.SNAT)
	for _, r := range d.rules.SNATs() {
		s.Rules = append(s.Rules, metrics.SNATRule{From: r.From.String(), To: r.To.String(), Capacity: d.rules.Capacity(r)})
	}
	for _, m := range stats.Mappings {
		s.Pools = append(s.Pools, metrics.Pool{Address: m.Addr.Netip().String(), Used: m.Mappings})
	}
}

func metricKey(k control.ServiceKey) metrics.Key {
	if k.ByMark() {
		return metrics.Key{Proto: k.Proto, Service: strconv.FormatUint(uint64(k.Mark), 10)}
	}
	return metrics.Key{Proto: k.Proto, Service: k.Address.String()}
}

func countFates(s *metrics.Snapshot, t *shard.Stats) {
	s.Packets = map[string]float64{
		"forwarded": float64(t.Forwarded), "passed": float64(t.Passed), "dropped": float64(t.Dropped), "held": float64(t.Held),
	}
	s.Drops, s.Suppressed = make(map[string]float64), make(map[string]float64)
	for r := nat.ReasonNone + 1; r < nat.NumReasons; r++ {
		s.Drops[r.String()] = float64(t.Lost(r))
		if n := t.Suppressed[r]; n > 0 {
			s.Suppressed[r.String()] = float64(n)
		}
	}
	s.Ignored, s.Farewells = float64(t.Ignored), float64(t.Farewells)
}

func countConns(s *metrics.Snapshot, stats *nat.Stats) {
	s.MaxConns, s.TableBytes, s.ExpiredOpen = stats.MaxConns, stats.Bytes, float64(stats.ExpiredOpen)
	s.Offloaded = metrics.Offloaded{Conns: stats.Shortcuts.Open, Packets: float64(stats.Shortcuts.Packets), Bytes: float64(stats.Shortcuts.Bytes)}
	s.Classes, s.States, s.Removals = make(map[string]float64), make(map[string]float64), make(map[string]float64)
	for k, n := range stats.Classes {
		s.Classes[conntrack.Class(k).String()] = float64(n)
	}
	for k, n := range stats.States {
		s.States[conntrack.State(k).String()] += float64(n)
	}
	for why, n := range stats.Removals {
		s.Removals[conntrack.Removal(why).String()] = float64(n)
	}
}

// countChecks numbers checks of one type of one server, from the second on.
func (d *director) countChecks(s *metrics.Snapshot) {
	seen := make(map[metrics.Check]int)
	for _, c := range d.monitor.List() {
		check := metrics.Check{Server: c.Server.String(), Name: c.Type}
		if seen[check]++; seen[check] > 1 {
			check.Name += "#" + strconv.Itoa(seen[check])
		}
		check.Up, check.Latency = c.State == health.Up, c.Latency.Seconds()
		check.Good, check.Bad, check.Impossible, check.Signals = c.Good, c.Bad, c.Failed, c.Signals
		s.Checks = append(s.Checks, check)
	}
}

func (d *director) countLinks(s *metrics.Snapshot) {
	open := d.world.openLinks()
	for _, l := range d.world.topology.Links {
		link := metrics.Link{Name: l.Name, Up: l.Up}
		if p := open[l.Index]; p != nil {
			q := p.Stats()
			link.Serving = true
			link.InFrames, link.InBytes, link.OutFrames, link.OutBytes = q.ReceivedFrames, q.ReceivedBytes, q.SentFrames, q.SentBytes
			link.KernelDrops, link.ReceiveErrors, link.Truncated = q.KernelDrops, q.ReceiveErrors, q.Truncated
			link.SendDrops, link.SendRefused = q.SendDrops, q.SendRefused
		}
		s.Links = append(s.Links, link)
	}
}

// listenPublic opens the address for monitoring, if there is one.
func listenPublic(c config.Metrics) (net.Listener, error) {
	if !c.Listen.IsValid() {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.Listen.String())
	if err != nil {
		return nil, hinted{fmt.Errorf("metrics address: %w", err), "choose another one under metrics:, or leave it out: vsnat metrics works without"}
	}
	return l, nil
}
