// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"context"
	"net/netip"
	"strconv"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// The control socket: changes of services and servers, alone and many at once.

func (d *director) AddService(ctx context.Context, s control.ServiceSpec) error {
	return d.make(ctx, control.Change{Op: control.OpAddService, Service: s})
}

func (d *director) EditService(ctx context.Context, s control.ServiceSpec) error {
	return d.make(ctx, control.Change{Op: control.OpEditService, Service: s})
}

func (d *director) DeleteService(ctx context.Context, k control.ServiceKey) error {
	return d.make(ctx, control.Change{Op: control.OpDeleteService, Service: control.ServiceSpec{ServiceKey: k}})
}

func (d *director) AddServer(ctx context.Context, k control.ServiceKey, s control.ServerSpec) error {
	return d.make(ctx, control.Change{Op: control.OpAddServer, Service: control.ServiceSpec{ServiceKey: k}, Server: s})
}

func (d *director) EditServer(ctx context.Context, k control.ServiceKey, s control.ServerSpec) error {
	return d.make(ctx, control.Change{Op: control.OpEditServer, Service: control.ServiceSpec{ServiceKey: k}, Server: s})
}

func (d *director) DeleteServer(ctx context.Context, k control.ServiceKey, a netip.AddrPort) error {
	return d.make(ctx, control.Change{
		Op: control.OpDeleteServer, Service: control.ServiceSpec{ServiceKey: k}, Server: control.ServerSpec{Address: a},
	})
}

// make makes one change, in force when it returns.
func (d *director) make(ctx context.Context, c control.Change) error {
	results, err := d.Changes(ctx, []control.Change{c})
	if err == nil && results[0] != nil {
		err = results[0]
	}
	return err
}

// Changes implements control.Director.
func (d *director) Changes(ctx context.Context, list []control.Change) (results []*control.Error, err error) {
	by := control.Caller(ctx)
	err = d.call(ctx, func() error {
		made := false
		for i := range list {
			what, err := d.apply(&list[i])
			results = append(results, control.Refusal(refused(err)))
			if err == nil {
				made = true
				c := &list[i]
				d.changed(control.Event{Kind: eventsOfOps[c.Op], Service: c.Service.ServiceKey, Server: c.Server.Address, By: by, Text: what})
			}
		}
		if made {
			d.publish()
		}
		return nil
	})
	return results, err
}

// apply makes a change in the rules, unpublished, and says what it was. Whether a
// service is there is said first, as the kernel does.
func (d *director) apply(c *control.Change) (what string, err error) {
	service, server := c.Service.ServiceKey.String(), c.Server.Address.String()+" of "+c.Service.ServiceKey.String()
	key := natKey(c.Service.ServiceKey)
	switch c.Op {
	case control.OpAddService:
		if d.rules.HasService(key) {
			return "", nat.ErrServiceExists
		}
		if err := config.CheckService(c.Service); err != nil {
			return "", err
		}
		if err := d.checkShared(c.Service); err != nil {
			return "", err
		}
		return "add service " + service, d.roster.AddService(d.natService(c.Service))
	case control.OpEditService:
		if !d.rules.HasService(key) {
			return "", nat.ErrNoService
		}
		if err := config.CheckService(c.Service); err != nil {
			return "", err
		}
		if err := d.checkShared(c.Service); err != nil {
			return "", err
		}
		return "edit service " + service, d.roster.EditService(d.natService(c.Service))
	case control.OpDeleteService:
		return "delete service " + service, d.roster.DelService(key)
	case control.OpAddServer:
		if err := d.checkServer(c.Service.ServiceKey, c.Server); err != nil {
			return "", err
		}
		if err := d.checkPlace(c.Server.Address.Addr()); err != nil {
			return "", err
		}
		return "add server " + server + by(c.Server), d.roster.AddServer(key, natServer(c.Server))
	case control.OpEditServer:
		if err := d.checkServer(c.Service.ServiceKey, c.Server); err != nil {
			return "", err
		}
		d.keepNAT(&c.Server, key)
		return "edit server " + server + ": weight " + strconv.Itoa(c.Server.Weight) + by(c.Server), d.roster.EditServer(key, natServer(c.Server))
	case control.OpDeleteServer:
		return "delete server " + server, d.roster.DelServer(key, c.Server.Address.Addr(), c.Server.Address.Port())
	}
	return "", c.Unknown()
}

// natService is a service as the rules have it, that says all.
func (d *director) natService(s control.ServiceSpec) nat.ServiceSpec {
	s.OnServerDown = cmp.Or(s.OnServerDown, d.cfg.Compat.ServerDown(s.Proto))
	s.Passive = cmp.Or(s.Passive, d.cfg.Compat.Passive(s.ServiceKey))
	return natService(s)
}

// keepNAT has an edit that says nothing of it leave full NAT as it is: ipvsadm knows no
// word for it.
func (d *director) keepNAT(s *control.ServerSpec, k nat.ServiceKey) {
	if s.NAT != "" || s.Method != "" && s.Method != control.MethodNAT {
		return
	}
	if m := d.roster.Member(k, s.Address); m != nil {
		s.NAT = wordOf(sources, m.Spec().Source)
	}
}

// by says how packets get to a server, if it is not the way that people who give
// none may think of.
func by(s control.ServerSpec) string {
	if s.Method == "" || s.Method == control.MethodNAT {
		return ""
	}
	return " by " + s.Method
}

func (d *director) checkServer(k control.ServiceKey, s control.ServerSpec) error {
	if !d.rules.HasService(natKey(k)) {
		return nat.ErrNotDefined
	}
	if err := config.CheckServer(k, s); err != nil {
		return err
	}
	return d.checkMethod(s)
}
