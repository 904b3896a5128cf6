// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// The control socket: what there is. Copies of the connection table and of
// counters are made by the shards between batches.

// stats copies the Forwarders' counters.
func (d *director) stats() nat.Stats {
	s, _, _ := d.shards.Stats()
	return s.Stats
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
				server := control.Server{
					ServerSpec: controlServer(v.ServerSpec), Active: v.Active, Inactive: v.Inactive, Persistent: v.Persistent, Overloaded: v.Overloaded, FullNAT: v.FullNAT,
					Stats: d.shown(v.Serial, at(stats.Servers, v.Slot)), Rate: d.rates.of(v.Serial),
				}
				d.showStanding(s.ServiceKey, &server)
				service.Servers = append(service.Servers, server)
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

// totalOf is everything that went through: what services that are deleted
// counted stays in it, so that it never goes back.
func totalOf(s *nat.Stats) nat.Counters {
	total := s.SNAT
	total.Add(s.Retired)
	for _, c := range s.Services {
		total.Add(c)
	}
	return total
}

// Zero implements control.Director. Rates begin at zero as well
// (ip_vs_ctl.c, ip_vs_zero_stats).
func (d *director) Zero(ctx context.Context, k control.ServiceKey) error {
	return d.call(ctx, func() error {
		stats := d.stats()
		aside := func(serial uint64, c nat.Counters) {
			d.zero[serial] = c
			d.rates.reset(serial)
		}
		found := k.IsZero()
		if found {
			aside(totalSerial, totalOf(&stats))
		}
		for _, s := range d.rules.Services() {
			if !k.IsZero() && s.ServiceKey != natKey(k) {
				continue
			}
			found = true
			aside(s.Serial, at(stats.Services, s.Slot))
			for _, v := range s.Servers {
				aside(v.Serial, at(stats.Servers, v.Slot))
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

// Marks implements control.Director.
func (d *director) Marks(ctx context.Context) (list []control.MarkSpec, err error) {
	err = d.call(ctx, func() error {
		for _, m := range d.rules.Marks() {
			list = append(list, controlMark(m))
		}
		return nil
	})
	return list, err
}

// Conns implements control.Director.
func (d *director) Conns(ctx context.Context, q control.ConnQuery) (control.ConnPage, error) {
	nq := nat.ConnQuery{
		Proto: protoOf(q.Proto), Client: q.Client, Virtual: q.Service, Server: q.Server, State: strings.ToUpper(q.State),
	}
	if q.Proto != "" && nq.Proto == 0 {
		return control.ConnPage{}, control.Refuse(control.CodeInvalid, "unknown protocol "+strconv.Quote(q.Proto), "one of: tcp, udp, sctp, icmp")
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
		part, ok := d.shards.Conns(nq)
		if !ok {
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
		Client: c.Client, Virtual: c.Virtual, Server: c.Dest, Kind: c.Method.String(), Flags: []string{},
	}
	switch {
	case c.SNAT:
		conn.Kind = "snat"
	case c.Template:
		conn.Kind = "template"
		if c.Proto == 0 {
			conn.Proto = "ip" // of a service by mark
		}
	case c.OnePacket:
		conn.Kind = "answers"
	case c.Local.IsValid():
		conn.Kind, conn.Local = "fullnat", c.Local
	}
	if c.Replied {
		conn.Flags = append(conn.Flags, "replied")
	}
	if c.Shortcut {
		conn.Flags = append(conn.Flags, "offloaded")
	}
	return conn
}
