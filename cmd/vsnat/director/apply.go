// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// Between the words of the configuration and the control socket and those of
// nat.Rules, both ways.

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

func settingsOf(cfg *config.Config) nat.Settings {
	s := nat.DefaultSettings()
	t := cfg.Timeouts
	for state, d := range timeoutFields(&t) {
		s.Timeouts[state] = d.Std()
	}
	s.ICMPRate = cfg.ICMPRate
	return s
}

// loadRules fills empty rules from a configuration.
func loadRules(r *nat.Rules, cfg *config.Config) error {
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
func (d *director) running() *config.Config {
	cfg := *d.cfg
	cfg.Services, cfg.SNAT = nil, nil
	for _, s := range d.rules.Services() {
		service := config.Service{ServiceSpec: controlService(s.ServiceSpec)}
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
