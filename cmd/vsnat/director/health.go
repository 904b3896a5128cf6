// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// The control socket: how it goes.

// Stats implements control.Director.
func (d *director) Stats(ctx context.Context) (out control.Stats, err error) {
	err = d.call(ctx, func() error {
		s, each, _ := d.shards.Stats()
		out = control.Stats{
			Total: d.shown(totalSerial, totalOf(&s.Stats)), Rate: d.rates.of(totalSerial),
			Conns: control.ConnStats{
				Len: s.Conns, Cap: s.MaxConns, Bytes: s.Bytes,
				HalfOpen: s.Classes[conntrack.ClassHalfOpen], OneWay: s.Classes[conntrack.ClassOneWay], Held: s.Classes[conntrack.ClassHeld],
				Offloaded: s.Shortcuts.Open,
			},
			Drops:  make(map[string]uint64),
			Events: map[string]uint64{"passed": s.Passed, "forwarded": s.Forwarded, "held": s.Held, "ignored-frames": s.Ignored},
		}
		for i := range each {
			out.Shards = append(out.Shards, control.ShardStats{
				Shard: i, Packets: each[i].Packets, Sent: each[i].Sent, Conns: each[i].Conns,
				HandedOver: each[i].HandedOver, TakenOver: each[i].TakenOver, Strange: each[i].Strange,
			})
		}
		for r := range nat.NumReasons {
			if n := s.Lost(r); n > 0 {
				out.Drops[r.String()] = n
			}
			if s.Suppressed[r] > 0 {
				out.Events["answers-suppressed-"+r.String()] = s.Suppressed[r]
			}
		}
		for r, n := range s.Removals {
			out.Events["conns-"+conntrack.Removal(r).String()] = n
		}
		out.Events["conns-expired-open"] = s.ExpiredOpen
		out.Events["ends-told"] = s.Farewells
		out.Events["offloads"] = s.Shortcuts.Opened
		out.Events["offloaded-packets"] = s.Shortcuts.Packets
		out.Events["offloaded-bytes"] = s.Shortcuts.Bytes
		n := d.neighbours.Stats()
		out.Events["arp-requests"] = n.Requests
		out.Events["arp-replies"] = n.Replies
		out.Events["arp-conflicts"] = n.Conflicts
		out.Events["arp-unsolicited"] = n.Unsolicited
		out.Events["group-reports"] = n.Reports
		out.Events["neighbours-failed"] = n.Failed
		return nil
	})
	return out, err
}

// Health implements control.Director.
func (d *director) Health(ctx context.Context) (h control.Health, err error) {
	err = d.call(ctx, func() error {
		h = control.Health{
			Status: "ok", PID: os.Getpid(), Version: d.options.Version, Started: d.started,
			IO: string(d.cfg.IO), Guard: d.guardMethod(), Offload: d.offloadMethod(), Config: d.options.ConfigFile,
			Drift: d.drift(), Drains: d.listDrains(), Unconfined: d.unconfined,
		}
		if d.trial != nil {
			pending := d.trial.Pending
			h.Pending = &pending
		}
		h.Problems = d.listProblems()
		h.Findings = d.findings(h.Problems)
		if len(h.Problems) > 0 {
			h.Status = "degraded"
		}
		return nil
	})
	return h, err
}

// listProblems is what keeps the director from doing its work, in whole or in part.
func (d *director) listProblems() (list []string) {
	list = append(list, d.world.problems...)
	list = append(list, d.world.unfinished...)
	if d.keeping.problem != "" {
		list = append(list, d.keeping.problem)
	}
	if d.guard != nil {
		list = append(list, d.guard.Limits()...)
	}
	if d.tunHost != nil {
		list = append(list, d.tunHost.Limits()...)
	}
	for _, t := range d.takenAddresses() {
		list = append(list, fmt.Sprintf("%s is the address of another station, %s on %s: it is not claimed",
			t.Addr, conntrack.LinkAddr(t.MAC), t.Link))
	}
	list = append(list, d.offloadProblems()...)
	list = append(list, defenceProblems(d.shards.Defence(), d.cfg)...)
	list = append(list, d.nearlyUsed...)
	list = append(list, d.exhausted(time.Now())...)
	list = append(list, d.wayBackProblems()...)
	list = append(list, d.shunProblems()...)
	return append(list, d.checkProblems()...)
}

// defenceProblems tells of defences that are at work because the connection table is
// nearly full. Those that always are were asked for.
func defenceProblems(defence nat.Defence, cfg *config.Config) (list []string) {
	for _, f := range []struct {
		setting string
		works   bool
		what    string
	}{
		{"drop_entry", defence.DropEntry, "connections that are hardly used are removed"},
		{"drop_packet", defence.DropPacket, fmt.Sprintf("one of %d new connections is dropped", defence.DropRate)},
		{"secure_tcp", defence.SecureTCP, "TCP is established when the server says so"},
	} {
		if f.works && cfg.Setting(f.setting) != 3 {
			list = append(list, fmt.Sprintf("the connection table is nearly full: %s (%s)", f.what, f.setting))
		}
	}
	return list
}

// Links implements control.Director.
func (d *director) Links(ctx context.Context) (list []control.Link, err error) {
	err = d.call(ctx, func() error {
		open := d.world.openLinks()
		for _, l := range d.world.topology.Links {
			link := control.Link{
				Name: l.Name, Index: l.Index, MTU: l.MTU, Up: l.Up, Addrs: l.Addrs,
				Serving: slices.Contains(d.world.served, l.Name),
			}
			if l.Ethernet {
				link.MAC = conntrack.LinkAddr(l.MAC).String()
			}
			if p := open[l.Index]; p != nil {
				s := p.Stats()
				link.InPackets, link.OutPackets = s.ReceivedFrames, s.SentFrames
				link.KernelDrop, link.SendErrors = s.KernelDrops, s.SendDrops+s.SendRefused
			}
			list = append(list, link)
		}
		return nil
	})
	return list, err
}
