// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// A whole configuration over the control socket, for good or on trial. What is on
// trial is in force, and taken back when its time is over: whoever changed it may
// not be able to reach us any more, which is what the trial is for. That is decide's
// business alone, so that it does not matter what becomes of the one who asked.
//
// What is taken back is the running state as it was, with every change that others
// had made; what they changed during the trial is lost with it.

// A trial is a configuration that waits for its confirmation.
type trial struct {
	control.Pending
	before *config.Config // what ran until then
	filed  *config.Config // what the file was known to say
	over   <-chan time.Time
}

// trialOver tells decide that nobody confirmed.
func (d *director) trialOver() <-chan time.Time {
	if d.trial == nil {
		return nil
	}
	return d.trial.over
}

// undecided refuses what must wait until a trial is over.
func (d *director) undecided() error {
	t := d.trial
	if t == nil {
		return nil
	}
	return control.Refuse(control.CodePending, fmt.Sprintf("a configuration applied by %s at %s waits for its confirmation until %s",
		t.By, t.Since.Format(time.TimeOnly), t.Until.Format(time.TimeOnly)), "vsnat confirm keeps it, vsnat rollback takes it back")
}

// Apply implements control.Director.
func (d *director) Apply(ctx context.Context, spec control.ApplySpec) (a control.Applied, err error) {
	if spec.Confirm < 0 || spec.Confirm > control.MaxConfirm || spec.Confirm > 0 && spec.Confirm.Std() < time.Second {
		return a, control.Refuse(control.CodeInvalid, spec.Confirm.String()+" is no time to confirm in", "1s to "+control.MaxConfirm.String())
	}
	cfg, err := config.Parse("the configuration", []byte(spec.Config))
	if err != nil {
		return a, control.Refuse(control.CodeConfig, err.Error(), "")
	}
	by := cmp.Or(control.Caller(ctx), "somebody")
	err = d.call(ctx, func() error {
		a, err = d.applyConfig(cfg, spec, by)
		return err
	})
	return a, err
}

func (d *director) applyConfig(cfg *config.Config, spec control.ApplySpec, by string) (a control.Applied, err error) {
	if err := d.undecided(); err != nil && !spec.Try {
		return a, err
	}
	before := d.running()
	changes := config.Diff(before, cfg)
	if err := d.try(cfg, changes); err != nil {
		return a, control.Refuse(control.CodeConfig, err.Error(), hintOf(err))
	}
	if spec.Try {
		a.Reloaded = outcome(changes)
		return a, nil
	}
	filed := d.filed
	if d.isOwnFile(spec.File) {
		d.filed = cfg
	}
	a.Reloaded = outcome(changes)
	text := cmp.Or(spec.File, "a configuration") + ": " + changesText(len(a.Changes))
	if spec.Confirm > 0 && len(a.Changes) > 0 {
		now := time.Now()
		d.trial = &trial{
			Pending: control.Pending{File: spec.File, By: by, Since: now, Until: now.Add(spec.Confirm.Std()), Changes: len(a.Changes)},
			before:  before, filed: filed, over: time.After(spec.Confirm.Std()),
		}
		pending := d.trial.Pending
		a.Pending = &pending
		text += ", on trial for " + spec.Confirm.String()
	}
	d.adopt(cfg, changes, by) // on trial from here on: what is deleted may come back
	d.decided(control.EventApplied, by, text)
	return a, nil
}

// Confirm implements control.Director.
func (d *director) Confirm(ctx context.Context) (p control.Pending, err error) {
	by := control.Caller(ctx)
	err = d.call(ctx, func() error {
		if d.trial == nil {
			return noTrial()
		}
		p, d.trial = d.trial.Pending, nil
		d.decided(control.EventConfirmed, by, cmp.Or(p.File, "a configuration")+": "+changesText(p.Changes))
		return nil
	})
	return p, err
}

// Rollback implements control.Director.
func (d *director) Rollback(ctx context.Context) (r control.Reloaded, err error) {
	by := control.Caller(ctx)
	err = d.call(ctx, func() error {
		if d.trial == nil {
			return noTrial()
		}
		r = d.rollback(by)
		return nil
	})
	return r, err
}

func noTrial() error {
	return control.Refuse(control.CodeNoPending, "no configuration waits for its confirmation", "vsnat apply FILE --confirm 60s applies one on trial; was it taken back already? vsnat status tells what runs")
}

// rollback takes back what is on trial.
func (d *director) rollback(by string) control.Reloaded {
	t := d.trial
	d.trial, d.filed = nil, t.filed
	r := d.adopt(t.before, config.Diff(d.running(), t.before), by)
	arrange(d.roster, t.before)
	d.publish()
	d.decided(control.EventTakenBack, by, cmp.Or(t.File, "a configuration")+": "+changesText(len(r.Changes)))
	return r
}

// decided logs and notes what became of a configuration.
func (d *director) decided(kind control.EventKind, by, text string) {
	d.log.Info(string(kind), "what", text, "by", by)
	d.event(control.Event{Kind: kind, By: by, Text: text})
}

// isOwnFile reports whether a path is that of the file that a reload reads.
func (d *director) isOwnFile(path string) bool {
	if path == "" || d.options.ConfigFile == "" || d.options.Config != nil {
		return false
	}
	a, err := os.Stat(path)
	if err != nil {
		return false
	}
	b, err := os.Stat(d.options.ConfigFile)
	return err == nil && os.SameFile(a, b)
}

// Filed implements control.Director. The file is read by the one who asks, not by
// decide: it may be long, or on a disk that hangs.
func (d *director) Filed(context.Context) (string, error) {
	cfg, err := d.readFile()
	if err != nil {
		return "", err
	}
	return string(config.Marshal(cfg)), nil
}

// drift is how many changes lead from what the file said to what runs. It is found
// out anew only after a change, since it may take long for who has many services.
func (d *director) drift() int {
	if d.filed == nil {
		return 0
	}
	if !d.driftKnown {
		d.drifted, d.driftKnown = len(config.Diff(d.filed, d.running())), true
	}
	return d.drifted
}
