// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/roster"
	"github.com/vsnat/vsnat/nat"
)

// A configuration and what runs: rules from a configuration, from one to the next by
// changes, and the configuration of rules.

// loadRules fills empty rules from a configuration.
func loadRules(r *roster.Roster, cfg *config.Config) error {
	r.Rules().SetSettings(settingsOf(cfg))
	r.Rules().SetOwned(cfg.Addresses)
	r.Rules().SetLocal(cfg.LocalAddresses)
	for _, s := range cfg.Services {
		if err := r.AddService(natService(s.ServiceSpec)); err != nil {
			return fmt.Errorf("service %s: %w", s.ServiceKey, err)
		}
		if err := r.SetChecking(natKey(s.ServiceKey), s.Checking); err != nil {
			return fmt.Errorf("service %s: %w", s.ServiceKey, err)
		}
		for _, v := range s.Servers {
			if err := r.AddServer(natKey(s.ServiceKey), natServer(v)); err != nil {
				return fmt.Errorf("service %s: server %s: %w", s.ServiceKey, v.Address, err)
			}
		}
	}
	for _, s := range cfg.SNAT {
		if err := r.Rules().AddSNAT(natSNAT(s)); err != nil {
			return fmt.Errorf("SNAT of %s: %w", s.From, err)
		}
	}
	for _, m := range cfg.Marks {
		if err := r.Rules().AddMark(natMark(m)); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	return nil
}

// applyChange makes one change in rules, unpublished. Settings are taken up as a
// whole elsewhere.
func applyChange(r *roster.Roster, c config.Change) error {
	key := natKey(c.Service.ServiceKey)
	type step struct {
		op     config.Op
		object config.Object
	}
	switch (step{c.Op, c.Object}) {
	case step{config.Add, config.ObjectService}:
		return r.AddService(natService(c.Service))
	case step{config.Edit, config.ObjectService}:
		return r.EditService(natService(c.Service))
	case step{config.Delete, config.ObjectService}:
		return r.DelService(key)
	case step{config.Add, config.ObjectServer}:
		return r.AddServer(key, natServer(c.Server))
	case step{config.Edit, config.ObjectServer}:
		return r.EditServer(key, natServer(c.Server))
	case step{config.Delete, config.ObjectServer}:
		return r.DelServer(key, c.Server.Address.Addr(), c.Server.Address.Port())
	case step{config.Edit, config.ObjectChecks}:
		return r.SetChecking(key, c.Checking)
	case step{config.Add, config.ObjectSNAT}:
		return r.Rules().AddSNAT(natSNAT(c.SNAT))
	case step{config.Delete, config.ObjectSNAT}:
		return r.Rules().DelSNAT(c.SNAT.From)
	case step{config.Add, config.ObjectMark}:
		return r.Rules().AddMark(natMark(c.Mark))
	case step{config.Delete, config.ObjectMark}:
		return r.Rules().DelMark(natMark(c.Mark))
	}
	return nil
}

// arrange has services, servers and rules in the order of a configuration that they
// agree with but for that.
func arrange(r *roster.Roster, cfg *config.Config) {
	services := make([]nat.ServiceKey, len(cfg.Services))
	servers := make([][]netip.AddrPort, len(cfg.Services))
	for i, s := range cfg.Services {
		services[i] = natKey(s.ServiceKey)
		for _, v := range s.Servers {
			servers[i] = append(servers[i], v.Address)
		}
	}
	snats := make([]netip.Prefix, len(cfg.SNAT))
	for i, s := range cfg.SNAT {
		snats[i] = s.From
	}
	r.Arrange(services, servers, snats)
}

// settingsOf is what the Forwarders go by of a configuration.
func settingsOf(cfg *config.Config) nat.Settings {
	s := nat.DefaultSettings()
	t := cfg.Timeouts
	for state, d := range timeoutFields(&t) {
		s.Timeouts[state] = d.Std()
	}
	s.ICMPRate = cfg.ICMPRate

	on := func(name string) bool { return cfg.Setting(name) != 0 }
	s.ConnReuseMode = cfg.Setting("conn_reuse_mode")
	s.ExpireNodestConn, s.ExpireQuiescentTemplate = on("expire_nodest_conn"), on("expire_quiescent_template")
	s.NATICMPSend, s.ScheduleICMP, s.PMTUDisc = on("nat_icmp_send"), on("schedule_icmp"), on("pmtu_disc")
	s.SloppyTCP, s.SloppySCTP = on("sloppy_tcp"), on("sloppy_sctp")
	s.DropEntry, s.DropPacket, s.SecureTCP = cfg.Setting("drop_entry"), cfg.Setting("drop_packet"), cfg.Setting("secure_tcp")
	s.DropRate, s.ClientLimit = cfg.Setting("am_droprate"), cfg.Setting("client_limit")
	s.LBLCExpiration = time.Duration(cfg.Setting("lblc_expiration")) * time.Second
	s.LBLCRExpiration = time.Duration(cfg.Setting("lblcr_expiration")) * time.Second
	s.ResetOnExpiry = on("reset_on_expiry")
	s.HoldGoneSYN = cfg.Compat == config.CompatIPVS
	return s
}

// running is the configuration in force: the file's settings, and services and
// rules as they are now.
func (d *director) running() *config.Config {
	cfg := *d.cfg
	cfg.Services, cfg.SNAT, cfg.Marks = nil, nil, nil
	for _, s := range d.rules.Services() {
		configured := d.roster.Service(s.ServiceKey)
		service := config.Service{ServiceSpec: controlService(s.ServiceSpec), Checking: configured.Checking}
		for _, m := range configured.Members {
			service.Servers = append(service.Servers, controlServer(m.Spec()))
		}
		cfg.Services = append(cfg.Services, service)
	}
	for _, s := range d.rules.SNATs() {
		cfg.SNAT = append(cfg.SNAT, controlSNAT(s))
	}
	for _, m := range d.rules.Marks() {
		cfg.Marks = append(cfg.Marks, controlMark(m))
	}
	return &cfg
}
