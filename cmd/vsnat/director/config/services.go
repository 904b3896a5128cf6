// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched"
)

// located is a service with the places of what later checks may complain about.
type located struct {
	Service
	at      Position   // of its address
	servers []Position // of each server's address
}

func (p reader) services(list []rawService, c *Config) []located {
	out := make([]located, 0, len(list))
	seen := make(map[control.ServiceKey]Position, len(list))
	for i := range list {
		s, ok := p.service(&list[i], c)
		if !ok {
			continue
		}
		if first, twice := seen[s.ServiceKey]; twice {
			p.add(s.at, "remove one of them, or give it another port", "service %s is given twice, first in %s", s.ServiceKey, first.from(s.at))
			continue
		}
		seen[s.ServiceKey] = s.at
		out = append(out, s)
	}
	return out
}

// service reports false if the service has no usable name; its servers are
// then judged as far as that goes.
func (p reader) service(raw *rawService, c *Config) (located, bool) {
	var s located
	if raw.At.Line == 0 {
		return s, false
	}
	name, ok := p.serviceKey(raw, &s.ServiceKey)
	if !ok {
		return s, false
	}
	s.at = name.at
	s.Scheduler, s.NoServer, s.OnServerDown = control.DefaultScheduler, control.NoServerICMP, c.Compat.ServerDown(s.Proto)
	s.Passive = c.Compat.Passive(s.ServiceKey)
	s.Helper = control.HelperNone
	for _, w := range []struct {
		from text
		to   *string
	}{{raw.Scheduler, &s.Scheduler}, {raw.NoServer, &s.NoServer}, {raw.Helper, &s.Helper}, {raw.OnServerDown, &s.OnServerDown}, {raw.Passive, &s.Passive}} {
		if w.from.given() {
			*w.to = w.from.value
		}
	}
	p.boolean(raw.OnePacket, "one-packet", &s.OnePacket)
	p.timeout(raw.Idle, &s.Idle)
	p.persistence(&raw.Persistence, &s.Persistence)
	s.SchedFlags = strings.Join(raw.SchedFlags.values(), ",")

	p.faults(serviceFaults(s.ServiceSpec), map[string]text{
		s.Proto: name, "scheduler": raw.Scheduler, "sched-flags": raw.SchedFlags.first(), "no-server": raw.NoServer,
		"persistence": raw.Persistence.Timeout, "mask": raw.Persistence.Mask, "one-packet": raw.OnePacket,
		"helper": raw.Helper, "on-server-down": raw.OnServerDown, "passive": raw.Passive, "idle": raw.Idle,
	}, raw.At)
	s.ServiceSpec = canonical(s.ServiceSpec)

	p.servers(raw.Servers, &s)
	p.checking(raw, &s, c.CheckDefaults)
	return s, true
}

// serviceKey reads the name of a service: the one key of the five that is there.
// It returns the text of it.
func (p reader) serviceKey(raw *rawService, k *control.ServiceKey) (name text, ok bool) {
	for _, n := range []struct {
		proto string
		text  text
	}{{control.TCP, raw.TCP}, {control.UDP, raw.UDP}, {control.SCTP, raw.SCTP}, {control.Mark, raw.Mark}, {control.Mark6, raw.Mark6}} {
		switch {
		case !n.text.given():
		case k.Proto != "":
			p.add(n.text.at, "write two services", "a service has one of %s", strings.Join(protocols, ", "))
			return name, false
		default:
			k.Proto, name = n.proto, n.text
		}
	}
	var bad complaint
	switch {
	case k.Proto == "":
		p.add(raw.At, "begin it with \"tcp: address:port\" or \"udp: address:port\", or with \"mark: number\"", "a service needs an address or a mark")
		return name, false
	case k.ByMark():
		var err error
		*k, err = control.ParseKey(k.Proto, name.value)
		bad = complaintOf(err)
	default:
		k.Address, bad = parseEndpoint(name.value, noPort)
	}
	return name, p.accept(name, bad)
}

func (p reader) persistence(raw *rawPersistence, to *control.Persistence) {
	if raw.At.Line == 0 && !raw.Timeout.given() {
		return
	}
	to.Timeout = DefaultPersistence
	p.timeout(raw.Timeout, &to.Timeout)
	to.Mask = raw.Mask.value
}

// canonical is a spec whose texts are written in the one way that Marshal has.
func canonical(s control.ServiceSpec) control.ServiceSpec {
	if flags, err := sched.ParseFlags(s.Scheduler, s.SchedFlags); err == nil {
		s.SchedFlags = flags.Format(s.Scheduler)
	}
	if mask, err := s.Persistence.Netmask(s.IPv4()); err == nil {
		s.Persistence.Mask = control.MaskText(mask)
	}
	return s
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
		endpoint, bad := parseEndpoint(raw.Address.value, int(s.Address.Port()))
		if !p.accept(raw.Address, bad) {
			continue
		}
		server := control.ServerSpec{Address: endpoint, Weight: 1, Method: control.MethodNAT}
		known := len(p.list)
		p.number(raw.Weight, &server.Weight, 0, control.MaxWeight)
		p.number(raw.Upper, &server.Upper, 0, maxThreshold)
		p.number(raw.Lower, &server.Lower, 0, maxThreshold)
		word(p, raw.Method, "method", &server.Method, control.MethodNAT, control.MethodRoute, control.MethodTunnel)
		p.sourceNAT(raw, &server.NAT)
		p.tunnel(raw, &server.Tunnel)
		if len(p.list) > known {
			continue
		}
		p.faults(serverFaults(s.ServiceKey, server), map[string]text{
			"address": raw.Address, "weight": raw.Weight, "upper": raw.Upper, "lower": raw.Lower, "nat": raw.NAT,
			"tunnel": raw.Tunnel, "tunnel-port": raw.TunnelPort, "tunnel-checksum": raw.TunnelChecksum,
		}, raw.Address.at)
		if first, twice := seen[endpoint]; twice {
			p.add(raw.Address.at, "remove one of them; to give it more connections, raise its weight", "server %s is given twice, first in %s", endpoint, first.from(raw.Address.at))
			continue
		}
		seen[endpoint] = raw.Address.at
		s.Servers = append(s.Servers, server)
		s.servers = append(s.servers, raw.Address.at)
	}
}

// tunnel leaves out what is the default.
func (p reader) tunnel(raw *rawServer, into *control.Tunnel) {
	word(p, raw.Tunnel, "tunnel", &into.Type, control.TunnelIPIP, control.TunnelGRE, control.TunnelGUE)
	word(p, raw.TunnelChecksum, "tunnel-checksum", &into.Checksum, control.ChecksumNone, control.ChecksumAll, control.ChecksumRemote)
	port := 0
	p.number(raw.TunnelPort, &port, 1, 65535)
	into.Port = uint16(port)
	if into.Type == control.TunnelIPIP {
		into.Type = ""
	}
	if into.Checksum == control.ChecksumNone {
		into.Checksum = ""
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
				p.add(raw.From.at, "remove one of them", "there are two SNAT rules for %s, the first in %s", spec.From, places[j].from(raw.From.at))
				break
			}
			p.add(raw.From.at, "each source has one rule: make the networks disjoint", "the source network %s overlaps %s in %s", spec.From, other.From, places[j].from(raw.From.at))
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
// can't have an address that the director answers for. marked are those that rules
// make the director's.
func (p reader) cross(services []located, addresses []netip.Prefix, marked map[netip.Addr]Position) {
	virtual := make(map[netip.Addr]Position, len(services))
	for _, s := range services {
		if !s.ByMark() {
			virtual[s.Address.Addr()] = s.at
		}
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
				p.add(s.servers[i], "give the address of the real server", "server %s is the address of the service in %s", addr, at.from(s.servers[i]))
			case marked[addr].Line > 0:
				p.add(s.servers[i], "give the address of the real server", "server %s is the address that the rule in %s makes the director's", addr, marked[addr].from(s.servers[i]))
			case own[addr]:
				p.add(s.servers[i], "give the address of the real server", "server %s is an address of the director (addresses)", addr)
			}
		}
	}
}
