// SPDX-License-Identifier: Apache-2.0

package director

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// What a director at work refuses although it is well formed (package config
// judges that), and how a refusal is told.

// hinted is an error with the next step for the operator.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// servable refuses what no packet would ever be found for.
func (d *director) servable(cfg *config.Config) error {
	if err := config.CheckWorkers(len(d.shards), cfg.Marks, cfg.SNAT); err != nil {
		return err
	}
	for _, s := range cfg.Services {
		if err := d.checkShared(s.ServiceSpec); err != nil {
			return err
		}
		for _, v := range s.Servers {
			if err := d.checkPlace(v.Address.Addr()); err != nil {
				return err
			}
			if err := d.checkMethod(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMethod refuses direct routing where the host sends: by the destination of a
// packet, which is ours.
func (d *director) checkMethod(s control.ServerSpec) error {
	if d.cfg.IO != config.IOTUN || s.Method != control.MethodRoute {
		return nil
	}
	return hinted{
		fmt.Errorf("server %s: direct routing can't be done with io: tun, where the host sends each packet to its destination", s.Address),
		"use io: packet, or method: tunnel",
	}
}

// checkPlace refuses a server that has an address of the host: what is sent
// there never leaves it, and its answers never come to us. It refuses the
// broadcast address of a network of the host's as well, which is nobody's.
func (d *director) checkPlace(server netip.Addr) error {
	for _, l := range d.world.topology.Links {
		for _, a := range l.Addrs {
			if server == broadcast(a) {
				return control.Refuse(control.CodeNotUnicast, fmt.Sprintf("server %s is the broadcast address of %s", server, a.Masked()),
					"give the address of a host")
			}
			if a.Addr() == server {
				return hinted{
					fmt.Errorf("server %s is an address of this host, on %s", server, l.Name),
					"a real server is another machine, whose answers come back through this one",
				}
			}
		}
	}
	return nil
}

// broadcast is the last address of an IPv4 network, if it has one to spare.
func broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	a := p.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}

// checkApart refuses a rule that would make the address of a server ours: its
// packets would be taken for a forger's. A reload does not ask, since the server
// may be about to leave.
func (d *director) checkApart(m control.MarkSpec) error {
	for _, s := range d.rules.Services() {
		for _, v := range s.Servers {
			if m.To.IsSingleIP() && m.To.Addr() == v.Addr {
				return hinted{fmt.Errorf("%s is the address of a server of %s", v.Addr, controlKey(s.ServiceKey)), "give the virtual address, or a network"}
			}
		}
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
		{nat.ErrMarkExists, control.CodeRuleExists, "the first rule counts: delete it first"},
		{nat.ErrNoMark, control.CodeNoRule, "a rule is deleted as it was added; `vsnat mark list` shows those there are"},
		{nat.ErrInvalid, control.CodeInvalid, ""},
	} {
		if errors.Is(err, c.err) {
			return control.Refuse(c.code, err.Error(), c.hint)
		}
	}
	if hint := hintOf(err); hint != "" {
		return control.Refuse(control.CodeInvalid, err.Error(), hint)
	}
	return err
}
