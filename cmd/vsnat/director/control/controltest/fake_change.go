// SPDX-License-Identifier: Apache-2.0

package controltest

import (
	"context"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Whole configurations, and servers out of service.

// Apply implements control.Director.
func (d *Director) Apply(ctx context.Context, spec control.ApplySpec) (a control.Applied, err error) {
	defer d.lock(ctx, "Apply")()
	if p := d.State.Pending; p != nil && !spec.Try {
		return a, control.Refuse(control.CodePending, "a configuration applied by "+p.By+" waits for its confirmation", "vsnat confirm keeps it")
	}
	if d.Differ != nil {
		if a.Reloaded, err = d.Differ(d.Text, spec.Config); err != nil || spec.Try {
			return a, err
		}
	}
	if spec.Confirm > 0 {
		now := time.Now()
		a.Pending = &control.Pending{File: spec.File, By: "uid 0 pid 7", Since: now, Until: now.Add(spec.Confirm.Std()), Changes: len(a.Changes)}
		d.State.Pending, d.before = a.Pending, d.Text
	}
	d.Text = spec.Config
	return a, nil
}

func noPending() error {
	return control.Refuse(control.CodeNoPending, "no configuration waits for its confirmation", "vsnat apply FILE --confirm 60s applies one on trial")
}

// Confirm implements control.Director.
func (d *Director) Confirm(ctx context.Context) (control.Pending, error) {
	defer d.lock(ctx, "Confirm")()
	p := d.State.Pending
	if p == nil {
		return control.Pending{}, noPending()
	}
	d.State.Pending = nil
	return *p, nil
}

// Rollback implements control.Director.
func (d *Director) Rollback(ctx context.Context) (r control.Reloaded, err error) {
	defer d.lock(ctx, "Rollback")()
	if d.State.Pending == nil {
		return r, noPending()
	}
	if d.Differ != nil {
		r, err = d.Differ(d.Text, d.before)
	}
	d.State.Pending, d.Text = nil, d.before
	return r, err
}

// Filed implements control.Director.
func (d *Director) Filed(ctx context.Context) (string, error) {
	defer d.lock(ctx, "Filed")()
	return d.File, d.Fail
}

// Drain implements control.Director. What drains here comes further each time that
// Drains is asked, and leaves something if it may.
func (d *Director) Drain(ctx context.Context, spec control.DrainSpec) ([]control.Drain, error) {
	defer d.lock(ctx, "Drain")()
	list := d.meant(spec)
	if list == nil {
		return nil, control.Refuse(control.CodeNoServer, spec.Server.String()+" is no server of any service", "vsnat server list shows what there is")
	}
	d.State.Drains = list
	return list, nil
}

func (d *Director) meant(spec control.DrainSpec) (list []control.Drain) {
	for _, s := range d.services {
		for _, v := range s.Servers {
			if v.Address.Addr() != spec.Server.Addr() || spec.Server.Port() != 0 && v.Address != spec.Server {
				continue
			}
			drain := control.Drain{Service: s.ServiceKey, Server: v.Address, State: control.DrainDraining, Then: spec.Then,
				Began: v.Active + v.Inactive, Active: v.Active, Inactive: v.Inactive, By: "uid 0 pid 7"}
			if spec.Maintenance {
				drain.State, drain.Maintenance = control.DrainMaintenance, true
			}
			list = append(list, drain)
		}
	}
	return list
}

// Undrain implements control.Director.
func (d *Director) Undrain(ctx context.Context, spec control.DrainSpec) ([]control.Drain, error) {
	defer d.lock(ctx, "Undrain")()
	if len(d.State.Drains) == 0 {
		return nil, control.Refuse(control.CodeNoServer, "no such server drains: "+spec.Server.String(), "vsnat server list shows which do")
	}
	d.State.Drains = nil
	return nil, nil
}

// Drains implements control.Director.
func (d *Director) Drains(ctx context.Context) ([]control.Drain, error) {
	defer d.lock(ctx, "Drains")()
	list := slices.Clone(d.State.Drains)
	for i := range d.State.Drains { // the next time they have come further
		j := &d.State.Drains[i]
		switch {
		case j.Maintenance:
		case j.Active > 0:
			j.Active = 0
		case j.Then == control.ThenLeave:
			j.State = control.DrainLeft
		default:
			j.State, j.Inactive = control.DrainDrained, 0
		}
	}
	return list, nil
}
