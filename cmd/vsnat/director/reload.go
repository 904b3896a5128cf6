// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
)

// Taking up a configuration file again.

// reloads are how they went.
type reloads struct {
	accepted time.Time // the last one, or the start
	refused  bool      // the last one was
}

func (d *director) reloadNow() {
	r, err := d.reloadBy("signal")
	if err != nil {
		d.log.Error("reload refused; the old configuration is in force", "error", err)
		return
	}
	d.log.Info("reloaded", "changes", len(r.Changes), "need-restart", r.Restart)
}

// reloadBy reloads and notes what came of it.
func (d *director) reloadBy(by string) (control.Reloaded, error) {
	d.supervisor.reloading()
	defer d.supervisor.ready()
	r, err := d.reload()
	d.reloads.refused = err != nil
	if err != nil {
		d.event(control.Event{Kind: control.EventReloadRefused, By: by, Text: err.Error()})
		return r, err
	}
	d.reloads.accepted = time.Now()
	d.event(control.Event{Kind: control.EventReloaded, By: by, Text: d.options.ConfigFile + ": " + changesText(len(r.Changes))})
	return r, nil
}

// reload applies what differs between the running state and the file. Whatever
// can be refused is refused before the first change is made: the changes are
// tried on a copy of the rules. What the host then keeps us from (a link that
// is not there) is a problem that Health tells of, as it is at any other time.
func (d *director) reload() (control.Reloaded, error) {
	if err := d.undecided(); err != nil {
		return control.Reloaded{}, err
	}
	cfg, err := d.readFile()
	if err != nil {
		return control.Reloaded{}, err
	}
	changes := config.Diff(d.running(), cfg)
	if err := d.try(cfg, changes); err != nil {
		return control.Reloaded{}, control.Refuse(control.CodeConfig, d.options.ConfigFile+": "+err.Error(), hintOf(err))
	}
	d.filed = cfg
	return d.adopt(cfg, changes, byReload), nil
}

// readFile reads the configuration file. It needs nothing that decide owns.
func (d *director) readFile() (*config.Config, error) {
	file := d.options.ConfigFile
	if file == "" || d.options.Config != nil {
		return nil, control.Refuse(control.CodeInvalid, "the director was started without a configuration file",
			"start it with -c FILE, or change it over the control socket")
	}
	cfg, err := config.Read(file)
	if err != nil {
		return nil, control.Refuse(control.CodeConfig, err.Error(), "")
	}
	return cfg, nil
}

// adopt makes a configuration the one in force by changes that were tried.
func (d *director) adopt(cfg *config.Config, changes []config.Change, by string) control.Reloaded {
	for _, c := range changes {
		if c.Restart() {
			continue
		}
		if err := applyChange(d.roster, c); err != nil {
			d.log.Error("a change that was tried before failed", "what", c.String(), "error", err)
			continue
		}
		d.changed(eventOf(c, by))
	}
	next := *cfg
	// What needs a restart stays as it was.
	next.IO, next.Guard, next.Offload, next.MaxConns, next.Workers = d.cfg.IO, d.cfg.Guard, d.cfg.Offload, d.cfg.MaxConns, d.cfg.Workers
	next.Control, next.Metrics, next.ScriptUser = d.cfg.Control, d.cfg.Metrics, d.cfg.ScriptUser
	d.cfg = &next
	d.level.Set(next.Log.Level)
	d.rules.SetSettings(settingsOf(&next))
	d.rules.SetOwned(next.Addresses)
	d.rules.SetLocal(next.LocalAddresses)
	_ = d.follow() // what fails is a problem, and tried again
	return outcome(changes)
}

// outcome is what changes do, in words.
func outcome(changes []config.Change) control.Reloaded {
	r := control.Reloaded{Changes: []string{}}
	for _, c := range changes {
		if c.Restart() {
			r.Restart = append(r.Restart, c.Setting)
		} else {
			r.Changes = append(r.Changes, c.String())
		}
	}
	return r
}

// try tells whether changes can be made one after the other.
func (d *director) try(cfg *config.Config, changes []config.Change) error {
	if !slices.Equal(cfg.Interfaces, d.cfg.Interfaces) {
		if _, err := d.world.topology.Serving(cfg.Interfaces); err != nil {
			return err
		}
	}
	if err := d.servable(cfg); err != nil {
		return err
	}
	trial := roster.New(nat.NewRules())
	if err := loadRules(trial, d.running()); err != nil {
		return err
	}
	for _, c := range changes {
		if err := applyChange(trial, c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// changesText is how many changes there were.
func changesText(n int) string {
	if n == 1 {
		return "1 change"
	}
	return strconv.Itoa(n) + " changes"
}
