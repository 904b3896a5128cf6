// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// Configuration and control calls become calls of nat.Rules.

func protoOf(name string) uint8 {
	switch name {
	case control.TCP:
		return nat.ProtoTCP
	case control.UDP:
		return nat.ProtoUDP
	case control.ICMP:
		return nat.ProtoICMP
	}
	return 0
}

func protoName(p uint8) string {
	switch p {
	case nat.ProtoTCP:
		return control.TCP
	case nat.ProtoUDP:
		return control.UDP
	}
	return control.ICMP
}

func natKey(k control.ServiceKey) nat.ServiceKey {
	return nat.ServiceKey{Proto: protoOf(k.Proto), Addr: k.Address.Addr(), Port: k.Address.Port()}
}

func natService(s control.ServiceSpec) nat.ServiceSpec {
	spec := nat.ServiceSpec{ServiceKey: natKey(s.ServiceKey), Scheduler: s.Scheduler}
	if spec.Scheduler == "" {
		spec.Scheduler = control.DefaultScheduler
	}
	if s.NoServer == control.NoServerReset {
		spec.NoServer = nat.NoServerReset
	}
	return spec
}

func natServer(s control.ServerSpec) nat.ServerSpec {
	return nat.ServerSpec{
		Addr: s.Address.Addr(), Port: s.Address.Port(), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
	}
}

func natSNAT(s control.SNATSpec) nat.SNATSpec {
	return nat.SNATSpec{From: s.From, To: s.To, MinPort: s.MinPort, MaxPort: s.MaxPort}
}

// timeoutFields pairs each timeout of the control protocol with its state.
func timeoutFields(t *control.Timeouts) map[conntrack.State]*control.Duration {
	return map[conntrack.State]*control.Duration{
		conntrack.Established: &t.Established, conntrack.SynSent: &t.SynSent, conntrack.SynRecv: &t.SynRecv,
		conntrack.FinWait: &t.FinWait, conntrack.TimeWait: &t.TimeWait, conntrack.Close: &t.Close,
		conntrack.CloseWait: &t.CloseWait, conntrack.LastAck: &t.LastAck, conntrack.Listen: &t.Listen,
		conntrack.SynAck: &t.SynAck, conntrack.UDP: &t.UDP, conntrack.ICMP: &t.ICMP,
	}
}

func settingsOf(cfg *Config) nat.Settings {
	s := nat.DefaultSettings()
	t := cfg.Timeouts
	for state, d := range timeoutFields(&t) {
		s.Timeouts[state] = d.Std()
	}
	s.ICMPRate = cfg.ICMPRate
	return s
}

// loadRules fills empty rules from a configuration.
func loadRules(r *nat.Rules, cfg *Config) error {
	r.SetSettings(settingsOf(cfg))
	r.SetOwned(cfg.Addresses)
	for _, s := range cfg.Services {
		if err := r.AddService(natService(s.ServiceSpec)); err != nil {
			return fmt.Errorf("service %s: %w", s.ServiceKey, err)
		}
		for _, v := range s.Servers {
			if err := r.AddServer(natKey(s.ServiceKey), natServer(v)); err != nil {
				return fmt.Errorf("service %s: server %s: %w", s.ServiceKey, v.Address, err)
			}
		}
	}
	for _, s := range cfg.SNAT {
		if err := r.AddSNAT(natSNAT(s)); err != nil {
			return fmt.Errorf("SNAT of %s: %w", s.From, err)
		}
	}
	return nil
}

// running is the configuration in force: the file's settings, and services and
// rules as they are now.
func (d *director) running() *Config {
	cfg := *d.cfg
	cfg.Services, cfg.SNAT = nil, nil
	for _, s := range d.rules.Services() {
		service := Service{ServiceSpec: controlService(s.ServiceSpec)}
		for _, v := range slices.Backward(s.Servers) {
			service.Servers = append(service.Servers, controlServer(v.ServerSpec))
		}
		cfg.Services = append(cfg.Services, service)
	}
	for _, s := range d.rules.SNATs() {
		cfg.SNAT = append(cfg.SNAT, controlSNAT(s))
	}
	return &cfg
}

// reload applies what differs between the running state and the file. A file
// that can't be read, or whose rules would be refused, changes nothing.
func (d *director) reload() (control.Reloaded, error) {
	if d.options.ConfigFile == "" {
		return control.Reloaded{}, control.Refuse(control.CodeInvalid, "the director was started without a configuration file",
			"start it with -c FILE, or change it over the control socket")
	}
	cfg, err := ReadConfig(d.options.ConfigFile)
	if err != nil {
		return control.Reloaded{}, control.Refuse(control.CodeConfig, err.Error(), "")
	}
	if err := loadRules(nat.NewRules(), cfg); err != nil {
		return control.Reloaded{}, control.Refuse(control.CodeConfig, d.options.ConfigFile+": "+err.Error(), "")
	}
	if d.tunHost == nil {
		if _, err := d.world.topology.Serving(cfg.Interfaces); err != nil {
			return control.Reloaded{}, control.Refuse(control.CodeConfig, d.options.ConfigFile+": "+err.Error(), "")
		}
	}
	result := control.Reloaded{Changes: []string{}}
	for _, c := range Diff(d.running(), cfg) {
		if c.Restart() {
			result.Restart = append(result.Restart, c.Setting)
			continue
		}
		if err := d.apply(c); err != nil {
			return result, fmt.Errorf("%s: %w", c, err)
		}
		result.Changes = append(result.Changes, c.String())
	}
	// What needs a restart stays as it was.
	cfg.IO, cfg.Guard, cfg.MaxConns, cfg.Control = d.cfg.IO, d.cfg.Guard, d.cfg.MaxConns, d.cfg.Control
	d.cfg = cfg
	d.level.Set(cfg.Log.Level)
	d.rules.SetSettings(settingsOf(cfg))
	d.rules.SetOwned(cfg.Addresses)
	for _, change := range result.Changes {
		d.log.Info("changed", "what", change)
	}
	return result, d.follow(lenient)
}

// apply makes one change in the rules, unpublished. Settings are taken up as a
// whole.
func (d *director) apply(c Change) error {
	r, key := d.rules, natKey(c.Service.ServiceKey)
	type step struct {
		op     Op
		object Object
	}
	switch (step{c.Op, c.Object}) {
	case step{Add, ObjectService}:
		return r.AddService(natService(c.Service))
	case step{Edit, ObjectService}:
		return r.EditService(natService(c.Service))
	case step{Delete, ObjectService}:
		return r.DelService(key)
	case step{Add, ObjectServer}:
		return r.AddServer(key, natServer(c.Server))
	case step{Edit, ObjectServer}:
		return r.EditServer(key, natServer(c.Server))
	case step{Delete, ObjectServer}:
		return r.DelServer(key, c.Server.Address.Addr(), c.Server.Address.Port())
	case step{Add, ObjectSNAT}:
		return r.AddSNAT(natSNAT(c.SNAT))
	case step{Delete, ObjectSNAT}:
		return r.DelSNAT(c.SNAT.From)
	}
	return nil
}

// refused turns an error of the rules into one of the control protocol.
func refused(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range []struct {
		err  error
		code control.Code
		hint string
	}{
		{nat.ErrServiceExists, control.CodeServiceExists, "edit it, or delete it first"},
		{nat.ErrNoService, control.CodeNoService, "`vsnat service list` shows those there are"},
		{nat.ErrNotDefined, control.CodeNotDefined, "add the service first"},
		{nat.ErrServerExists, control.CodeServerExists, "edit it, or delete it first"},
		{nat.ErrNoServer, control.CodeNoServer, "`vsnat server list` shows those there are"},
		{nat.ErrNoScheduler, control.CodeNoScheduler, ""},
		{nat.ErrRuleExists, control.CodeRuleExists, "delete it first"},
		{nat.ErrNoRule, control.CodeNoRule, "`vsnat snat list` shows those there are"},
		{nat.ErrInvalid, control.CodeInvalid, ""},
	} {
		if errors.Is(err, c.err) {
			return control.Refuse(c.code, err.Error(), c.hint)
		}
	}
	return err
}

// call runs f in decide and waits for it.
func (d *director) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case d.calls <- func() { done <- f() }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return control.Refuse(control.CodeUnavailable, "the director is stopping", "")
	}
}

// change runs a change of the rules in decide, and publishes it.
func (d *director) change(ctx context.Context, what string, f func() error) error {
	return d.call(ctx, func() error {
		if err := f(); err != nil {
			return refused(err)
		}
		d.log.Info("changed", "what", what)
		return d.publish()
	})
}

// warn logs a condition that may come often: once in ten seconds for each key.
func (d *director) warn(key, message, detail string) {
	if now := time.Now(); now.Sub(d.warned[key]) > 10*time.Second {
		if len(d.warned) > 1000 {
			clear(d.warned)
		}
		d.warned[key] = now
		d.log.Warn(message, "detail", detail)
	}
}
