// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// director answers the control socket. Changes run in decide; copies of the
// connection table and of counters are made by the shard between batches.
var _ control.Director = (*director)(nil)

func (d *director) AddService(ctx context.Context, s control.ServiceSpec) error {
	if err := CheckService(s); err != nil {
		return err
	}
	return d.change(ctx, "add service "+s.ServiceKey.String(), func() error { return d.rules.AddService(natService(s)) })
}

func (d *director) EditService(ctx context.Context, s control.ServiceSpec) error {
	if err := CheckService(s); err != nil {
		return err
	}
	return d.change(ctx, "edit service "+s.ServiceKey.String(), func() error { return d.rules.EditService(natService(s)) })
}

func (d *director) DeleteService(ctx context.Context, k control.ServiceKey) error {
	return d.change(ctx, "delete service "+k.String(), func() error { return d.rules.DelService(natKey(k)) })
}

func (d *director) Flush(ctx context.Context) error {
	return d.change(ctx, "delete all services", func() error { d.rules.Clear(); return nil })
}

func (d *director) AddServer(ctx context.Context, k control.ServiceKey, s control.ServerSpec) error {
	if err := CheckServer(k, s); err != nil {
		return err
	}
	return d.change(ctx, "add server "+s.Address.String()+" of "+k.String(),
		func() error { return d.rules.AddServer(natKey(k), natServer(s)) })
}

func (d *director) EditServer(ctx context.Context, k control.ServiceKey, s control.ServerSpec) error {
	if err := CheckServer(k, s); err != nil {
		return err
	}
	return d.change(ctx, "edit server "+s.Address.String()+" of "+k.String()+": weight "+strconv.Itoa(s.Weight),
		func() error { return d.rules.EditServer(natKey(k), natServer(s)) })
}

func (d *director) DeleteServer(ctx context.Context, k control.ServiceKey, a netip.AddrPort) error {
	return d.change(ctx, "delete server "+a.String()+" of "+k.String(),
		func() error { return d.rules.DelServer(natKey(k), a.Addr(), a.Port()) })
}

func (d *director) AddSNAT(ctx context.Context, s control.SNATSpec) error {
	if err := CheckSNAT(s); err != nil {
		return err
	}
	return d.change(ctx, "add snat "+s.From.String(), func() error { return d.rules.AddSNAT(natSNAT(s)) })
}

func (d *director) DeleteSNAT(ctx context.Context, from netip.Prefix) error {
	return d.change(ctx, "delete snat "+from.String(), func() error { return d.rules.DelSNAT(from) })
}

// stats copies the Forwarder's counters.
func (d *director) stats() nat.Stats {
	var s nat.Stats
	d.shard.do(func() { s = d.shard.forwarder.Stats() })
	return s
}

func controlService(s nat.ServiceSpec) control.ServiceSpec {
	return control.ServiceSpec{
		ServiceKey: control.ServiceKey{Proto: protoName(s.Proto), Address: netip.AddrPortFrom(s.Addr, s.Port)},
		Scheduler:  s.Scheduler, NoServer: s.NoServer.String(),
	}
}

func controlServer(s nat.ServerSpec) control.ServerSpec {
	return control.ServerSpec{
		Address: netip.AddrPortFrom(s.Addr, s.Port), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
	}
}

func controlSNAT(s nat.SNATSpec) control.SNATSpec {
	return control.SNATSpec{From: s.From, To: s.To, MinPort: s.MinPort, MaxPort: s.MaxPort}
}

// Services implements control.Director.
func (d *director) Services(ctx context.Context) (list []control.Service, err error) {
	err = d.call(ctx, func() error {
		stats := d.stats()
		for _, s := range d.rules.Services() {
			service := control.Service{
				ServiceSpec: controlService(s.ServiceSpec), Servers: []control.Server{},
				Stats: d.shown(s.Serial, at(stats.Services, s.Slot)), Rate: d.rates.of(s.Serial),
			}
			for _, v := range s.Servers {
				service.Servers = append(service.Servers, control.Server{
					ServerSpec: controlServer(v.ServerSpec), Active: v.Active, Inactive: v.Inactive, Overloaded: v.Overloaded,
					Stats: d.shown(v.Serial, at(stats.Servers, v.Slot)), Rate: d.rates.of(v.Serial),
				})
			}
			list = append(list, service)
		}
		return nil
	})
	return list, err
}

// at is the counter of a slot; a slot that no Forwarder has met yet has none.
func at(list []nat.Counters, slot uint32) nat.Counters {
	if int(slot) < len(list) {
		return list[slot]
	}
	return nat.Counters{}
}

// shown is a counter less what Zero set aside.
func (d *director) shown(serial uint64, c nat.Counters) control.Counters {
	z := d.zero[serial]
	return control.Counters{
		Conns: c.Conns - z.Conns, InPackets: c.InPackets - z.InPackets, OutPackets: c.OutPackets - z.OutPackets,
		InBytes: c.InBytes - z.InBytes, OutBytes: c.OutBytes - z.OutBytes,
	}
}

// Zero implements control.Director.
func (d *director) Zero(ctx context.Context, k control.ServiceKey) error {
	return d.call(ctx, func() error {
		stats := d.stats()
		found := k.IsZero()
		for _, s := range d.rules.Services() {
			if !k.IsZero() && s.ServiceKey != natKey(k) {
				continue
			}
			found = true
			d.zero[s.Serial] = at(stats.Services, s.Slot)
			for _, v := range s.Servers {
				d.zero[v.Serial] = at(stats.Servers, v.Slot)
			}
		}
		if !found {
			return refused(nat.ErrNoService)
		}
		return nil
	})
}

// SNAT implements control.Director.
func (d *director) SNAT(ctx context.Context) (list []control.SNAT, err error) {
	err = d.call(ctx, func() error {
		stats := d.stats()
		for _, s := range d.rules.SNATs() {
			rule := control.SNAT{SNATSpec: controlSNAT(s), Capacity: d.rules.Capacity(s)}
			for _, m := range stats.Mappings {
				if m.Addr.Netip() == s.To {
					rule.Mappings = m.Mappings
				}
			}
			list = append(list, rule)
		}
		return nil
	})
	return list, err
}

// Conns implements control.Director. The cursor is a slot of the table.
func (d *director) Conns(ctx context.Context, q control.ConnQuery) (control.ConnPage, error) {
	nq := nat.ConnQuery{
		Proto: protoOf(q.Proto), Client: q.Client, Virtual: q.Service, Server: q.Server, State: strings.ToUpper(q.State),
	}
	want := q.Limit
	if want <= 0 || want > control.MaxPage {
		want = control.DefaultPage
	}
	if q.Cursor != "" {
		n, err := strconv.Atoi(q.Cursor)
		if err != nil || n < 0 {
			return control.ConnPage{}, control.Refuse(control.CodeInvalid, "cursor "+strconv.Quote(q.Cursor)+" is none that was given out",
				"take it from the page before, or leave it out")
		}
		nq.Cursor = n
	}
	page := control.ConnPage{Conns: []control.Conn{}}
	for {
		if err := ctx.Err(); err != nil {
			return control.ConnPage{}, err
		}
		nq.Limit = want - len(page.Conns)
		var part nat.ConnPage
		if !d.shard.do(func() { part = d.shard.forwarder.Conns(nq) }) {
			return page, nil
		}
		for i := range part.Conns {
			page.Conns = append(page.Conns, controlConn(&part.Conns[i]))
		}
		switch {
		case part.Next < 0:
			return page, nil
		case len(page.Conns) >= want:
			page.Next = strconv.Itoa(part.Next)
			return page, nil
		}
		nq.Cursor = part.Next
	}
}

func controlConn(c *nat.ConnInfo) control.Conn {
	conn := control.Conn{
		Proto: protoName(c.Proto), State: c.State.String(), Expires: control.Duration(c.Expires),
		Client: c.Client, Virtual: c.Virtual, Server: c.Dest, Kind: "nat", Flags: []string{},
	}
	switch {
	case c.SNAT:
		conn.Kind = "snat"
	case c.Local.IsValid():
		conn.Kind, conn.Local = "fullnat", c.Local
	}
	if c.Replied {
		conn.Flags = append(conn.Flags, "replied")
	}
	return conn
}

// Stats implements control.Director.
func (d *director) Stats(ctx context.Context) (out control.Stats, err error) {
	err = d.call(ctx, func() error {
		var unsent [nat.NumReasons]uint64
		var packets, sent, ignored uint64
		var s nat.Stats
		d.shard.do(func() {
			s = d.shard.forwarder.Stats()
			unsent, packets, sent, ignored = d.shard.unsent, d.shard.packets, d.shard.sent, d.shard.ignored
		})
		total := s.SNAT
		for _, c := range s.Services {
			total.Add(c)
		}
		out = control.Stats{
			Total: d.shown(0, total), Rate: d.rates.total(),
			Conns: control.ConnStats{
				Len: s.Conns, Cap: s.MaxConns, Bytes: s.Bytes,
				HalfOpen: s.Classes[conntrack.ClassHalfOpen], OneWay: s.Classes[conntrack.ClassOneWay], Held: s.Classes[conntrack.ClassHeld],
			},
			Drops:  make(map[string]uint64),
			Events: map[string]uint64{"passed": s.Passed, "forwarded": s.Forwarded, "held": s.Held, "ignored-frames": ignored},
			Shards: []control.ShardStats{{Packets: packets, Sent: sent, Conns: s.Conns}},
		}
		for r := range nat.NumReasons {
			if n := s.Drops[r] + unsent[r]; n > 0 {
				out.Drops[r.String()] = n
			}
			if s.Suppressed[r] > 0 {
				out.Events["answers-suppressed-"+r.String()] = s.Suppressed[r]
			}
		}
		for r, n := range s.Removals {
			out.Events["conns-"+conntrack.Removal(r).String()] = n
		}
		n := d.neighbours.Stats()
		out.Events["arp-requests"] = n.Requests
		out.Events["arp-replies"] = n.Replies
		out.Events["arp-conflicts"] = n.Conflicts
		out.Events["arp-unsolicited"] = n.Unsolicited
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
			IO: string(d.cfg.IO), Guard: d.guardMethod(), Config: d.options.ConfigFile,
		}
		h.Problems = append(h.Problems, d.world.problems...)
		if d.guard != nil {
			h.Problems = append(h.Problems, d.guard.Limits()...)
		}
		if d.tunHost != nil {
			h.Problems = append(h.Problems, d.tunHost.Limits()...)
		}
		if len(h.Problems) > 0 {
			h.Status = "degraded"
		}
		return nil
	})
	return h, err
}

// Links implements control.Director.
func (d *director) Links(ctx context.Context) (list []control.Link, err error) {
	err = d.call(ctx, func() error {
		queues := make(map[string]*port)
		d.shard.do(func() {
			for _, p := range d.shard.ports {
				if p != nil {
					queues[p.name] = p
				}
			}
		})
		for _, l := range d.world.topology.Links {
			link := control.Link{Name: l.Name, Index: l.Index, MTU: l.MTU, Up: l.Up, Addrs: l.Addrs}
			if l.Ethernet {
				link.MAC = conntrack.LinkAddr(l.MAC).String()
			}
			if p := queues[l.Name]; p != nil {
				s := p.queue.Stats()
				link.Serving = true
				link.InPackets, link.OutPackets = s.ReceivedFrames, s.SentFrames
				link.KernelDrop, link.SendErrors = s.KernelDrops, s.SendDrops+s.SendRefused
			}
			list = append(list, link)
		}
		return nil
	})
	return list, err
}

// Timeouts implements control.Director.
func (d *director) Timeouts(ctx context.Context) (t control.Timeouts, err error) {
	err = d.call(ctx, func() error {
		t = d.cfg.Timeouts
		return nil
	})
	return t, err
}

// SetTimeouts implements control.Director.
func (d *director) SetTimeouts(ctx context.Context, t control.Timeouts) error {
	return d.change(ctx, "set timeouts", func() error {
		cfg := *d.cfg
		fields := timeoutFields(&cfg.Timeouts)
		for state, value := range timeoutFields(&t) {
			if *value < 0 || value.Std() > MaxTimeout {
				return control.Refuse(control.CodeInvalid, "timeout "+value.String()+" is out of range", "0 to "+MaxTimeout.String())
			}
			if *value > 0 {
				*fields[state] = *value
			}
		}
		d.cfg = &cfg
		d.rules.SetSettings(settingsOf(d.cfg))
		return nil
	})
}

// Config implements control.Director.
func (d *director) Config(ctx context.Context) (text string, err error) {
	err = d.call(ctx, func() error {
		text = string(Marshal(d.running()))
		return nil
	})
	return text, err
}

// Reload implements control.Director.
func (d *director) Reload(ctx context.Context) (r control.Reloaded, err error) {
	err = d.call(ctx, func() error {
		r, err = d.reload()
		return err
	})
	return r, err
}
