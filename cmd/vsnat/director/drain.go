// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
)

// Drains. A server that drains, or is in maintenance, gets no new connections: its
// order stands in the roster, before anything that checks and the configuration say.
// The job counts what is left, once a second, and ends it at the deadline if that was
// asked for. It belongs to decide, not to the command that began it, which may leave
// and come back; and it stays, over or not, until it is undone or the server deleted.

type drainKey struct {
	service nat.ServiceKey
	server  netip.AddrPort
}

// drainJob is one server out of service.
type drainJob struct {
	control.Drain
	draining bool // a drain, perhaps beside maintenance
	cursor   int  // of the count of connections that are not over
}

// order is what the roster is to heed.
func (j *drainJob) order() roster.Override {
	if j.Maintenance {
		return roster.Maintenance
	}
	return roster.Drained
}

// shown is the job as it is told: what it waits for is of no interest in maintenance.
func (j *drainJob) shown() control.Drain {
	d := j.Drain
	if !j.draining {
		d.State = control.DrainMaintenance
	}
	return d
}

// Drain implements control.Director.
func (d *director) Drain(ctx context.Context, spec control.DrainSpec) (list []control.Drain, err error) {
	by := control.Caller(ctx)
	switch {
	case spec.Then != "" && spec.Then != control.ThenLeave && spec.Then != control.ThenReset:
		return nil, control.Refuse(control.CodeInvalid, fmt.Sprintf("then can't be %.20q", spec.Then), "one of: leave, reset")
	case spec.Deadline < 0 || spec.Deadline.Std() > maxDrain:
		return nil, control.Refuse(control.CodeInvalid, spec.Deadline.String()+" is no deadline", "up to "+maxDrain.String())
	case spec.Then == control.ThenReset && spec.Deadline == 0 && !spec.Maintenance && !d.hasDeadline(ctx, spec):
		return nil, control.Refuse(control.CodeInvalid, "then: reset is for the deadline, and there is none", "add a deadline")
	}
	err = d.call(ctx, func() error {
		keys, err := d.meant(spec)
		if err != nil {
			return err
		}
		for _, k := range keys {
			d.drain(k, spec, by)
		}
		d.publish()
		d.tickDrains(time.Now())
		list = d.shownDrains(keys)
		return nil
	})
	return list, err
}

// maxDrain is the longest time that a drain may take.
const maxDrain = 31 * 24 * time.Hour

// hasDeadline reports whether a drain that is under way has one.
func (d *director) hasDeadline(ctx context.Context, spec control.DrainSpec) (has bool) {
	_ = d.call(ctx, func() error {
		keys, _ := d.meant(spec) // nobody is meant: it is told later
		has = slices.ContainsFunc(keys, func(k drainKey) bool { j := d.drains[k]; return j != nil && !j.Deadline.IsZero() })
		return nil
	})
	return has
}

// drain begins a job, or goes on with the one that there is.
func (d *director) drain(k drainKey, spec control.DrainSpec, by string) {
	now := time.Now()
	j := d.drains[k]
	if j == nil {
		j = &drainJob{Drain: control.Drain{Service: controlKey(k.service), Server: k.server, By: by, Since: now}}
		active, inactive, _ := d.rules.ServerConns(k.service, k.server.Addr(), k.server.Port()) // 0 if it is out of the rules
		j.Began = active + inactive
		d.drains[k] = j
	}
	if spec.Maintenance {
		if !j.Maintenance {
			j.Maintenance = true
			d.changed(control.Event{By: by, Service: j.Service, Server: j.Server, Text: fmt.Sprintf("server %s of %s is in maintenance", j.Server, j.Service)})
		}
		return
	}
	again := j.draining
	if !again {
		j.draining, j.State, j.By, j.Since = true, control.DrainDraining, by, now
	}
	if spec.Deadline > 0 {
		j.Deadline = now.Add(spec.Deadline.Std())
		if j.State == control.DrainLeft {
			j.State, j.Ended = control.DrainDraining, time.Time{}
		}
	}
	j.Then = cmp.Or(spec.Then, j.Then, control.ThenLeave)
	if !again {
		d.log.Info("drain", "server", k.server, "service", j.Service.String(), "by", by, "deadline", spec.Deadline.Std(), "then", j.Then)
		d.event(control.Event{Kind: control.EventDrainStarted, By: by, Service: j.Service, Server: j.Server,
			Text: fmt.Sprintf("server %s of %s drains: %d connections", j.Server, j.Service, j.Began)})
	}
}

// Undrain implements control.Director.
func (d *director) Undrain(ctx context.Context, spec control.DrainSpec) (list []control.Drain, err error) {
	by := control.Caller(ctx)
	err = d.call(ctx, func() error {
		keys, err := d.meant(spec)
		if err != nil {
			return err
		}
		keys = slices.DeleteFunc(keys, func(k drainKey) bool {
			j := d.drains[k]
			return j == nil || spec.Maintenance && !j.Maintenance || !spec.Maintenance && !j.draining
		})
		if len(keys) == 0 {
			what := "drains"
			if spec.Maintenance {
				what = "is in maintenance"
			}
			return control.Refuse(control.CodeNoServer, fmt.Sprintf("%s: no such server %s", serverText(spec.Server), what), "vsnat server list shows which do")
		}
		for _, k := range keys {
			d.undrain(k, spec.Maintenance, by)
		}
		list = d.shownDrains(keys)
		d.publish()
		return nil
	})
	return list, err
}

// undrain takes one of the two orders back, and the server goes on if it was the last.
func (d *director) undrain(k drainKey, ofMaintenance bool, by string) {
	j := d.drains[k]
	text := fmt.Sprintf("server %s of %s is in service again", j.Server, j.Service)
	if ofMaintenance {
		j.Maintenance = false
		text = fmt.Sprintf("server %s of %s is not in maintenance any more", j.Server, j.Service)
	} else {
		j.draining, j.State = false, ""
	}
	d.changed(control.Event{By: by, Service: j.Service, Server: j.Server, Text: text})
	switch {
	case j.Maintenance:
		_ = d.rules.SetDrain(k.service, k.server.Addr(), k.server.Port(), nat.DrainNew) // it may be out of the rules
	case !j.draining:
		delete(d.drains, k)
		_ = d.rules.SetDrain(k.service, k.server.Addr(), k.server.Port(), nat.NoDrain)
		_ = d.roster.Order(k.service, k.server, roster.NoOverride)
	}
}

// Drains implements control.Director.
func (d *director) Drains(ctx context.Context) (list []control.Drain, err error) {
	err = d.call(ctx, func() error {
		list = d.listDrains()
		return nil
	})
	return list, err
}

// listDrains are all jobs as they stand.
func (d *director) listDrains() []control.Drain {
	keys := make([]drainKey, 0, len(d.drains))
	for k := range d.drains {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b drainKey) int {
		return cmp.Or(a.server.Compare(b.server), cmp.Compare(controlKey(a.service).String(), controlKey(b.service).String()))
	})
	return d.shownDrains(keys)
}

func (d *director) shownDrains(keys []drainKey) (list []control.Drain) {
	for _, k := range keys {
		if j := d.drains[k]; j != nil {
			d.count(k, j)
			list = append(list, j.shown())
		}
	}
	return list
}

// serverText is a server as it was named: without a port if there was none.
func serverText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// meant are the servers that a spec names.
func (d *director) meant(spec control.DrainSpec) (keys []drainKey, err error) {
	for s := range d.roster.Services() {
		if !spec.Service.IsZero() && s.Key != natKey(spec.Service) {
			continue
		}
		for _, m := range s.Members {
			server := m.Server()
			if server.Addr() == spec.Server.Addr() && (spec.Server.Port() == 0 || server.Port() == spec.Server.Port()) {
				keys = append(keys, drainKey{s.Key, server})
			}
		}
	}
	if len(keys) == 0 {
		where := "of any service"
		if !spec.Service.IsZero() {
			where = "of " + spec.Service.String()
		}
		return nil, control.Refuse(control.CodeNoServer, fmt.Sprintf("%s is no server %s", serverText(spec.Server), where), "vsnat server list shows what there is")
	}
	slices.SortFunc(keys, func(a, b drainKey) int {
		return cmp.Or(a.server.Compare(b.server), cmp.Compare(controlKey(a.service).String(), controlKey(b.service).String()))
	})
	return keys, nil
}

// enforceDrains has orders stand in the roster and in the rules, whatever a change
// has done to the servers. A job whose server is deleted is over, unless a trial may
// bring it back.
func (d *director) enforceDrains() {
	for k, j := range d.drains {
		if err := d.roster.Order(k.service, k.server, j.order()); err != nil {
			if d.trial == nil {
				delete(d.drains, k)
				d.drainEnded(j, "deleted")
			}
			continue
		}
		level := nat.DrainNew
		if j.State == control.DrainEnding {
			level = nat.DrainAll
		}
		_ = d.rules.SetDrain(k.service, k.server.Addr(), k.server.Port(), level) // it may be out of the rules
	}
}

func (d *director) drainEnded(j *drainJob, how string) {
	d.log.Info("drain ended", "server", j.Server, "service", j.Service.String(), "how", how, "active", j.Active, "inactive", j.Inactive)
	d.event(control.Event{Kind: control.EventDrainEnded, Service: j.Service, Server: j.Server,
		Text: fmt.Sprintf("server %s of %s: %s, after %s", j.Server, j.Service, how, time.Since(j.Since).Round(time.Second))})
}

// count takes up how many connections there are.
func (d *director) count(k drainKey, j *drainJob) {
	j.Active, j.Inactive, _ = d.rules.ServerConns(k.service, k.server.Addr(), k.server.Port()) // 0 if it is deleted
}

// tickDrains sees which jobs are over, and which deadlines.
func (d *director) tickDrains(now time.Time) {
	publish := false
	for k, j := range d.drains {
		d.count(k, j)
		if !j.draining || j.Over() {
			continue
		}
		switch {
		case j.Active+j.Inactive == 0 || j.Active == 0 && d.allOver(k, j):
			j.State, j.Ended = control.DrainDrained, now
			d.drainEnded(j, "drained")
		case j.Deadline.IsZero() || now.Before(j.Deadline) || j.State == control.DrainEnding:
		case j.Then == control.ThenReset:
			j.State, publish = control.DrainEnding, true
		default:
			j.State, j.Ended = control.DrainLeft, now
			d.drainEnded(j, fmt.Sprintf("the deadline has passed, %d connections are left", j.Active+j.Inactive))
		}
	}
	if publish {
		d.publish()
	}
}

// scanPages is how many pages of connections a tick looks at for one job.
const scanPages = 8

// allOver reports whether the connections that a server has are all over, and only
// wait for their time. It looks at a part of the table at a time, and says no before
// it has seen all of it.
func (d *director) allOver(k drainKey, j *drainJob) bool {
	q := nat.ConnQuery{Server: k.server, SNAT: nat.SelectServices, Cursor: j.cursor}
	if k.service.Mark == 0 {
		q.Proto, q.Virtual = k.service.Proto, netip.AddrPortFrom(k.service.Addr, k.service.Port)
	}
	for range scanPages {
		page, ok := d.shards.Conns(q)
		if !ok {
			return false
		}
		for i := range page.Conns {
			if c := &page.Conns[i]; !c.Over && !c.Template {
				j.cursor = 0
				return false
			}
		}
		if q.Cursor = page.Next; page.Next < 0 {
			j.cursor = 0
			return true
		}
	}
	j.cursor = q.Cursor
	return false
}
