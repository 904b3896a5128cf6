// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched"
)

// Between the words of the tool and those of the control socket, both ways.

func wireKey(key ServiceKey) control.ServiceKey {
	switch {
	case key.Mark != 0 && key.MarkIPv6:
		return control.ServiceKey{Proto: control.Mark6, Mark: key.Mark}
	case key.Mark != 0:
		return control.ServiceKey{Proto: control.Mark, Mark: key.Mark}
	}
	return control.ServiceKey{Proto: protoName(key.Proto), Address: netip.AddrPortFrom(key.Addr, key.Port)}
}

func toolKey(key control.ServiceKey) ServiceKey {
	if key.ByMark() {
		return ServiceKey{Mark: key.Mark, MarkIPv6: key.Proto == control.Mark6}
	}
	return ServiceKey{
		Proto: map[string]uint8{"tcp": tcp, "udp": udp, "sctp": sctp}[key.Proto],
		Addr:  key.Address.Addr(), Port: key.Address.Port(),
	}
}

// setService sets what the grammar can say of a service.
func setService(spec *control.ServiceSpec, s Service) {
	spec.Scheduler, spec.OnePacket = s.Scheduler, s.OnePacket
	spec.SchedFlags = s.Flags.Format(s.Scheduler)
	spec.Persistence = control.Persistence{}
	if !s.Persistent {
		return
	}
	spec.Persistence.Timeout = control.Duration(time.Duration(s.Timeout) * time.Second)
	switch {
	case !s.ipv6():
		spec.Persistence.Mask = control.MaskText(s.Mask)
	case s.MaskBits != 128:
		spec.Persistence.Mask = strconv.Itoa(s.MaskBits)
	}
}

func toolService(spec control.ServiceSpec) Service {
	s := Service{
		ServiceKey: toolKey(spec.ServiceKey), Scheduler: spec.Scheduler, OnePacket: spec.OnePacket,
		Persistent: spec.Persistence.Timeout != 0, Timeout: int(spec.Persistence.Timeout.Std() / time.Second),
		MaskBits: 128,
	}
	if flags, err := sched.ParseFlags(spec.Scheduler, spec.SchedFlags); err == nil {
		s.Flags = flags
	}
	if mask, err := spec.Persistence.Netmask(spec.IPv4()); err == nil && spec.IPv4() {
		s.Mask = mask
	} else if bits, err := strconv.Atoi(spec.Persistence.Mask); err == nil {
		s.MaskBits = bits
	}
	return s
}

var wireMethods = [...]string{Route: control.MethodRoute, Tunnel: control.MethodTunnel, Masq: control.MethodNAT}

func wireServer(s Server) control.ServerSpec {
	return control.ServerSpec{
		Address: netip.AddrPortFrom(s.Addr, s.Port), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
		Method: wireMethods[s.Forward], Tunnel: wireTunnel(s),
	}
}

var (
	wireTunnels   = [...]string{IPIP: "", GUE: control.TunnelGUE, GRE: control.TunnelGRE}
	wireChecksums = [...]string{NoChecksum: "", Checksum: control.ChecksumAll, RemoteChecksum: control.ChecksumRemote}
)

// wireTunnel leaves out what has no meaning; the kernel keeps it, and does nothing
// with it.
func wireTunnel(s Server) (t control.Tunnel) {
	if s.Forward != Tunnel || s.Tunnel.Type == IPIP {
		return t
	}
	t.Type, t.Checksum = wireTunnels[s.Tunnel.Type], wireChecksums[s.Tunnel.Checksum]
	if s.Tunnel.Type == GUE {
		t.Port = s.Tunnel.Port
	}
	return t
}

func toolServer(spec control.ServerSpec) Server {
	s := Server{
		Addr: spec.Address.Addr(), Port: spec.Address.Port(), Forward: Masq,
		Weight: spec.Weight, Upper: spec.Upper, Lower: spec.Lower,
	}
	for forward, method := range wireMethods {
		if method == spec.Method {
			s.Forward = Forward(forward)
		}
	}
	for kind, word := range wireTunnels {
		if word == spec.Tunnel.Type {
			s.Tunnel.Type, s.Tunnel.Port = TunnelType(kind), spec.Tunnel.Port
		}
	}
	for kind, word := range wireChecksums {
		if word == spec.Tunnel.Checksum {
			s.Tunnel.Checksum = TunnelChecksum(kind)
		}
	}
	return s
}

func toolEntry(s *control.Service) ServiceEntry {
	e := ServiceEntry{Service: toolService(s.ServiceSpec), Stats: Counters(s.Stats), Rate: Counters(s.Rate)}
	for i := range s.Servers {
		server := &s.Servers[i]
		e.Servers = append(e.Servers, ServerEntry{
			InForce: server.InForce,
			Server:  toolServer(server.ServerSpec),
			Active:  server.Active, Inactive: server.Inactive, Persistent: server.Persistent,
			Stats: Counters(server.Stats), Rate: Counters(server.Rate),
		})
	}
	return e
}

func toolConn(c *control.Conn) Conn {
	return Conn{
		Proto: strings.ToUpper(c.Proto), State: c.State, Expires: time.Duration(c.Left()) * time.Second,
		Client: c.Client, Virtual: c.Virtual, Server: c.Server,
	}
}

// Specs are the service and the server of a command in the words of the control
// socket; what the command does not name is zero.
func (c *Command) Specs() (control.ServiceSpec, control.ServerSpec) {
	spec := control.ServiceSpec{ServiceKey: wireKey(c.Service.ServiceKey)}
	setService(&spec, c.Service)
	return spec, wireServer(c.Server)
}
