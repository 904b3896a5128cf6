// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The control socket: changes. They run in decide; see listings.go and health.go
// for what is only read.
var _ control.Director = (*director)(nil)

// Flush implements control.Director.
func (d *director) Flush(ctx context.Context) error {
	return d.change(ctx, "delete all services", func() error { d.roster.Clear(); return nil })
}

func (d *director) AddSNAT(ctx context.Context, s control.SNATSpec) error {
	if err := config.CheckSNAT(s); err != nil {
		return err
	}
	return d.change(ctx, "add snat "+s.From.String(), func() error {
		if err := d.checkWorkers(nil, []control.SNATSpec{s}); err != nil {
			return err
		}
		return d.rules.AddSNAT(natSNAT(s))
	})
}

func (d *director) DeleteSNAT(ctx context.Context, from netip.Prefix) error {
	return d.change(ctx, "delete snat "+from.String(), func() error { return d.rules.DelSNAT(from) })
}

func (d *director) AddMark(ctx context.Context, m control.MarkSpec) error {
	if err := config.CheckMark(m); err != nil {
		return err
	}
	return d.change(ctx, "add "+m.String(), func() error {
		if err := d.checkApart(m); err != nil {
			return err
		}
		if err := d.checkWorkers([]control.MarkSpec{m}, nil); err != nil {
			return err
		}
		return d.rules.AddMark(natMark(m))
	})
}

func (d *director) DeleteMark(ctx context.Context, m control.MarkSpec) error {
	return d.change(ctx, "delete "+m.String(), func() error { return d.rules.DelMark(natMark(m)) })
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
			if *value < 0 || value.Std() > config.MaxTimeout {
				return control.Refuse(control.CodeInvalid, "timeout "+value.String()+" is out of range", "0 to "+config.MaxTimeout.String())
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

// Settings implements control.Director.
func (d *director) Settings(ctx context.Context) (list []control.Setting, err error) {
	err = d.call(ctx, func() error {
		list = d.cfg.ListSettings()
		return nil
	})
	return list, err
}

// SetSettings implements control.Director.
func (d *director) SetSettings(ctx context.Context, values map[string]control.SettingValue) error {
	what := "set"
	for _, name := range slices.Sorted(maps.Keys(values)) {
		what += " " + name + "=" + string(values[name])
	}
	return d.change(ctx, what, func() error {
		cfg, err := d.cfg.WithSettings(values)
		if err != nil {
			return err
		}
		d.cfg = cfg
		d.rules.SetSettings(settingsOf(cfg))
		return nil
	})
}

// Config implements control.Director.
func (d *director) Config(ctx context.Context) (text string, err error) {
	err = d.call(ctx, func() error {
		text = string(config.Marshal(d.running()))
		return nil
	})
	return text, err
}

// Reload implements control.Director.
func (d *director) Reload(ctx context.Context) (r control.Reloaded, err error) {
	by := control.Caller(ctx)
	err = d.call(ctx, func() error {
		r, err = d.reloadBy(by)
		return err
	})
	return r, err
}
