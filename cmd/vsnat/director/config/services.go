// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// located is a service with the places of what later checks may complain about.
type located struct {
	Service
	at      Position   // of its address
	servers []Position // of each server's address
}

func (p reader) services(list []rawService) []located {
	out := make([]located, 0, len(list))
	seen := make(map[control.ServiceKey]Position, len(list))
	for i := range list {
		s, ok := p.service(&list[i])
		if !ok {
			continue
		}
		if first, twice := seen[s.ServiceKey]; twice {
			p.add(s.at, "remove one of them, or give it another port", "service %s is given twice, first in line %d", s.ServiceKey, first.Line)
			continue
		}
		seen[s.ServiceKey] = s.at
		out = append(out, s)
	}
	return out
}

// service reports false if the service has no usable address; its servers are
// then judged as far as that goes.
func (p reader) service(raw *rawService) (located, bool) {
	var s located
	if raw.At.Line == 0 {
		return s, false
	}
	address := raw.TCP
	s.Proto = control.TCP
	switch {
	case raw.TCP.given() && raw.UDP.given():
		p.add(raw.UDP.at, "write two services", "a service is either TCP or UDP")
		return s, false
	case raw.UDP.given():
		s.Proto, address = control.UDP, raw.UDP
	case !raw.TCP.given():
		p.add(raw.At, "begin it with \"tcp: address:port\" or \"udp: address:port\"", "a service needs an address")
		return s, false
	}
	s.at = address.at
	endpoint, bad := parseEndpoint(address.value, 0)
	if !p.accept(address, bad) {
		return s, false
	}
	s.Address = endpoint
	s.Scheduler, s.NoServer = control.DefaultScheduler, control.NoServerICMP
	if raw.Scheduler.given() {
		s.Scheduler = raw.Scheduler.value
	}
	if raw.NoServer.given() {
		s.NoServer = raw.NoServer.value
	}
	p.faults(serviceFaults(s.ServiceSpec), map[string]text{
		control.TCP: address, control.UDP: address, "scheduler": raw.Scheduler, "no-server": raw.NoServer,
	}, raw.At)

	p.servers(raw.Servers, &s)
	return s, true
}

func (p reader) servers(list []rawServer, s *located) {
	seen := make(map[netip.AddrPort]Position, len(list))
	for i := range list {
		raw := &list[i]
		if raw.At.Line == 0 {
			continue
		}
		if !raw.Address.given() {
			p.add(raw.At, "add address: address:port", "a server needs an address")
			continue
		}
		endpoint, bad := parseEndpoint(raw.Address.value, s.Address.Port())
		if !p.accept(raw.Address, bad) {
			continue
		}
		server := control.ServerSpec{Address: endpoint, Weight: 1}
		known := len(p.list)
		p.number(raw.Weight, &server.Weight, 0, control.MaxWeight)
		p.number(raw.Upper, &server.Upper, 0, 1<<31-1)
		p.number(raw.Lower, &server.Lower, 0, 1<<31-1)
		if len(p.list) > known {
			continue
		}
		p.faults(serverFaults(s.ServiceKey, server), map[string]text{
			"address": raw.Address, "weight": raw.Weight, "upper": raw.Upper, "lower": raw.Lower,
		}, raw.Address.at)
		if first, twice := seen[endpoint]; twice {
			p.add(raw.Address.at, "remove one of them; to give it more connections, raise its weight", "server %s is given twice, first in line %d", endpoint, first.Line)
			continue
		}
		seen[endpoint] = raw.Address.at
		s.Servers = append(s.Servers, server)
		s.servers = append(s.servers, raw.Address.at)
	}
}

func (p reader) snat(list []rawSNAT) []control.SNATSpec {
	var out []control.SNATSpec
	var places []Position
	for i := range list {
		raw := &list[i]
		if raw.At.Line == 0 || raw.From.refused || raw.To.refused {
			continue
		}
		known := len(p.list)
		spec := p.snatSpec(raw)
		if len(p.list) > known {
			continue
		}
		p.faults(snatFaults(spec), map[string]text{"from": raw.From, "to": raw.To, "ports": raw.Ports}, raw.At)
		for j, other := range out {
			if !other.From.Overlaps(spec.From) {
				continue
			}
			if other.From == spec.From {
				p.add(raw.From.at, "remove one of them", "there are two SNAT rules for %s, the first in line %d", spec.From, places[j].Line)
				break
			}
			p.add(raw.From.at, "each source has one rule: make the networks disjoint", "the source network %s overlaps %s in line %d", spec.From, other.From, places[j].Line)
			break
		}
		out, places = append(out, spec), append(places, raw.From.at)
	}
	return out
}

// snatSpec reads the texts of one rule; what is missing stays invalid.
func (p reader) snatSpec(raw *rawSNAT) control.SNATSpec {
	var spec control.SNATSpec
	var bad complaint
	if raw.From.given() {
		spec.From, bad = parsePrefix(raw.From.value)
		p.accept(raw.From, bad)
	}
	if raw.To.given() {
		spec.To, bad = parseAddress(raw.To.value)
		p.accept(raw.To, bad)
	}
	if raw.Ports.given() {
		spec.MinPort, spec.MaxPort, bad = parsePorts(raw.Ports.value)
		p.accept(raw.Ports, bad)
	}
	return spec
}

// faults notes what is wrong with a spec at the places of its keys, or at
// other where a key was not given.
func (p reader) faults(list []fault, keys map[string]text, other Position) {
	for _, f := range list {
		at := other
		if t := keys[f.key]; t.given() {
			at = t.at
		}
		p.add(at, f.hint, "%s", f.message)
	}
}

// cross checks what only shows when all services are known: a real server
// can't have an address that the director answers for.
func (p reader) cross(services []located, addresses []netip.Prefix) {
	virtual := make(map[netip.Addr]Position, len(services))
	for _, s := range services {
		virtual[s.Address.Addr()] = s.at
	}
	own := make(map[netip.Addr]bool, len(addresses))
	for _, prefix := range addresses {
		own[prefix.Addr()] = true
	}
	for _, s := range services {
		for i, server := range s.Servers {
			addr := server.Address.Addr()
			at, isVirtual := virtual[addr]
			switch {
			case addr == s.Address.Addr(): // told by serverFaults
			case isVirtual:
				p.add(s.servers[i], "give the address of the real server", "server %s is the address of the service in line %d", addr, at.Line)
			case own[addr]:
				p.add(s.servers[i], "give the address of the real server", "server %s is an address of the director (addresses)", addr)
			}
		}
	}
}
