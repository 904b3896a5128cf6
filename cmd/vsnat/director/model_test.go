// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"net/netip"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// model is a director that refuses what the kernel refuses and remembers.
type model struct {
	control.Director
	services map[control.ServiceKey]modelService
	snat     map[netip.Prefix]control.SNATSpec
}

type modelService struct {
	spec    control.ServiceSpec
	servers map[netip.AddrPort]control.ServerSpec
}

func newModel(c *Config) *model {
	m := &model{services: make(map[control.ServiceKey]modelService), snat: make(map[netip.Prefix]control.SNATSpec)}
	for _, s := range c.Services {
		m.services[s.ServiceKey] = modelService{s.ServiceSpec, byAddress(s.Servers)}
	}
	for _, r := range c.SNAT {
		m.snat[r.From] = r
	}
	return m
}

func refuse(code control.Code) error { return control.Refuse(code, string(code), "") }

func (m *model) AddService(_ context.Context, s control.ServiceSpec) error {
	if _, ok := m.services[s.ServiceKey]; ok {
		return refuse(control.CodeServiceExists)
	}
	m.services[s.ServiceKey] = modelService{s, make(map[netip.AddrPort]control.ServerSpec)}
	return nil
}

func (m *model) EditService(_ context.Context, s control.ServiceSpec) error {
	have, ok := m.services[s.ServiceKey]
	if !ok || have.spec == s { // an edit that changes nothing should not be made
		return refuse(control.CodeNoService)
	}
	m.services[s.ServiceKey] = modelService{s, have.servers}
	return nil
}

func (m *model) DeleteService(_ context.Context, k control.ServiceKey) error {
	if _, ok := m.services[k]; !ok {
		return refuse(control.CodeNoService)
	}
	delete(m.services, k)
	return nil
}

func (m *model) AddServer(_ context.Context, k control.ServiceKey, s control.ServerSpec) error {
	service, ok := m.services[k]
	if !ok {
		return refuse(control.CodeNotDefined)
	}
	if _, ok := service.servers[s.Address]; ok {
		return refuse(control.CodeServerExists)
	}
	service.servers[s.Address] = s
	return nil
}

func (m *model) EditServer(_ context.Context, k control.ServiceKey, s control.ServerSpec) error {
	if have, ok := m.services[k].servers[s.Address]; !ok || have == s {
		return refuse(control.CodeNoServer)
	}
	m.services[k].servers[s.Address] = s
	return nil
}

func (m *model) DeleteServer(_ context.Context, k control.ServiceKey, a netip.AddrPort) error {
	if _, ok := m.services[k].servers[a]; !ok {
		return refuse(control.CodeNoServer)
	}
	delete(m.services[k].servers, a)
	return nil
}

func (m *model) AddSNAT(_ context.Context, s control.SNATSpec) error {
	if _, ok := m.snat[s.From]; ok {
		return refuse(control.CodeRuleExists)
	}
	m.snat[s.From] = s
	return nil
}

func (m *model) DeleteSNAT(_ context.Context, from netip.Prefix) error {
	if _, ok := m.snat[from]; !ok {
		return refuse(control.CodeNoRule)
	}
	delete(m.snat, from)
	return nil
}
