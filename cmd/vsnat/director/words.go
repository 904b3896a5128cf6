// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"net/netip"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
	"github.com/vsnat/vsnat/sched"
)

// Between the words of the configuration and the control socket and those of
// nat.Rules, both ways.

func protoOf(name string) uint8 {
	switch name {
	case control.TCP:
		return nat.ProtoTCP
	case control.UDP:
		return nat.ProtoUDP
	case control.SCTP:
		return nat.ProtoSCTP
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
	case nat.ProtoSCTP:
		return control.SCTP
	}
	return control.ICMP
}

func natKey(k control.ServiceKey) nat.ServiceKey {
	switch k.Proto {
	case control.Mark:
		return nat.ServiceKey{Mark: k.Mark, Addr: netip.IPv4Unspecified()}
	case control.Mark6:
		return nat.ServiceKey{Mark: k.Mark, Addr: netip.IPv6Unspecified()}
	}
	return nat.ServiceKey{Proto: protoOf(k.Proto), Addr: k.Address.Addr(), Port: k.Address.Port()}
}

func controlKey(k nat.ServiceKey) control.ServiceKey {
	switch {
	case k.Mark != 0 && k.Addr.Is4():
		return control.ServiceKey{Proto: control.Mark, Mark: k.Mark}
	case k.Mark != 0:
		return control.ServiceKey{Proto: control.Mark6, Mark: k.Mark}
	}
	return control.ServiceKey{Proto: protoName(k.Proto), Address: netip.AddrPortFrom(k.Addr, k.Port)}
}

// natService expects a spec that config.CheckService accepts, and that says what
// becomes of the connections of a deleted server.
func natService(s control.ServiceSpec) nat.ServiceSpec {
	spec := nat.ServiceSpec{
		ServiceKey: natKey(s.ServiceKey), Scheduler: cmp.Or(s.Scheduler, control.DefaultScheduler),
		Persistence: natPersistence(s), OnePacket: s.OnePacket,
		Helper:       helpers[cmp.Or(s.Helper, control.HelperNone)],
		OnServerDown: serverDowns[s.OnServerDown], Idle: s.Idle.Std(), Passive: s.Passive == control.PassiveOn,
	}
	spec.Flags, _ = sched.ParseFlags(spec.Scheduler, s.SchedFlags)
	if s.NoServer == control.NoServerReset {
		spec.NoServer = nat.NoServerReset
	}
	return spec
}

var serverDowns = map[string]nat.ServerDown{
	control.ServerDownKeep: nat.ServerDownKeep, control.ServerDownReset: nat.ServerDownReset, control.ServerDownRepick: nat.ServerDownRepick,
}

var helpers = map[string]nat.Helper{control.HelperNone: nat.NoHelper, control.HelperFTP: nat.HelperFTP}

func natPersistence(s control.ServiceSpec) nat.Persistence {
	p := nat.Persistence{Timeout: s.Persistence.Timeout.Std()}
	if mask, err := s.Persistence.Netmask(s.IPv4()); err == nil && control.MaskText(mask) != "" {
		p.Mask = conntrack.AddrFrom(mask)
	}
	return p
}

func controlPersistence(s nat.ServiceSpec) control.Persistence {
	p := control.Persistence{Timeout: control.Duration(s.Persistence.Timeout)}
	switch {
	case s.Persistence.Mask == conntrack.Addr{}: // none
	case s.Addr.Is4():
		p.Mask = control.MaskText(netip.AddrFrom4([4]byte(s.Persistence.Mask[12:])))
	default:
		p.Mask = control.MaskText(netip.AddrFrom16(s.Persistence.Mask))
	}
	return p
}

func onOff(on bool) string {
	if on {
		return control.PassiveOn
	}
	return control.PassiveOff
}

var methods = map[string]nat.Method{
	control.MethodNAT: nat.Masquerade, control.MethodRoute: nat.DirectRoute, control.MethodTunnel: nat.Tunnel,
}

var sources = map[string]nat.SourceNAT{"": nat.SourceKept, control.NATFull: nat.SourceFull, control.NATAuto: nat.SourceAuto}

var tunnelTypes = map[string]nat.TunnelType{
	control.TunnelIPIP: nat.IPIP, control.TunnelGUE: nat.GUE, control.TunnelGRE: nat.GRE,
}

var tunnelChecksums = map[string]nat.TunnelChecksum{
	control.ChecksumNone: nat.TunnelNoChecksum, control.ChecksumAll: nat.TunnelWithChecksum, control.ChecksumRemote: nat.TunnelRemoteChecksum,
}

// wordOf is the word for a value of one of the tables above.
func wordOf[T comparable](table map[string]T, value T) string {
	for word, v := range table {
		if v == value {
			return word
		}
	}
	return ""
}

func natServer(s control.ServerSpec) nat.ServerSpec {
	return nat.ServerSpec{
		Addr: s.Address.Addr(), Port: s.Address.Port(), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
		Method: methods[s.Method], Source: sources[s.NAT],
		Tunnel: nat.TunnelSpec{Type: tunnelTypes[s.Tunnel.Type], Port: s.Tunnel.Port, Checksum: tunnelChecksums[s.Tunnel.Checksum]},
	}
}

func natSNAT(s control.SNATSpec) nat.SNATSpec {
	return nat.SNATSpec{From: s.From, To: s.To, MinPort: s.MinPort, MaxPort: s.MaxPort}
}

func natMark(m control.MarkSpec) nat.MarkRule {
	return nat.MarkRule{
		Mark: m.Mark, Proto: protoOf(m.Proto), From: m.From, To: m.To, MinPort: m.MinPort, MaxPort: m.MaxPort, Link: m.Interface,
	}
}

func controlMark(m nat.MarkRule) control.MarkSpec {
	spec := control.MarkSpec{Mark: m.Mark, From: m.From, To: m.To, MinPort: m.MinPort, MaxPort: m.MaxPort, Interface: m.Link}
	if m.Proto != 0 {
		spec.Proto = protoName(m.Proto)
	}
	return spec
}

// timeoutFields pairs each timeout of the control protocol with its state.
func timeoutFields(t *control.Timeouts) map[conntrack.State]*control.Duration {
	return map[conntrack.State]*control.Duration{
		conntrack.Established: &t.Established, conntrack.SynSent: &t.SynSent, conntrack.SynRecv: &t.SynRecv,
		conntrack.FinWait: &t.FinWait, conntrack.TimeWait: &t.TimeWait, conntrack.Close: &t.Close,
		conntrack.CloseWait: &t.CloseWait, conntrack.LastAck: &t.LastAck, conntrack.Listen: &t.Listen,
		conntrack.SynAck: &t.SynAck, conntrack.UDP: &t.UDP, conntrack.ICMP: &t.ICMP,
		conntrack.SCTPInit1:            &t.SCTPInit1,
		conntrack.SCTPInit:             &t.SCTPInit,
		conntrack.SCTPCookieSent:       &t.SCTPCookieSent,
		conntrack.SCTPCookieReplied:    &t.SCTPCookieReplied,
		conntrack.SCTPCookieWait:       &t.SCTPCookieWait,
		conntrack.SCTPCookie:           &t.SCTPCookie,
		conntrack.SCTPCookieEchoed:     &t.SCTPCookieEchoed,
		conntrack.SCTPEstablished:      &t.SCTPEstablished,
		conntrack.SCTPShutdownSent:     &t.SCTPShutdownSent,
		conntrack.SCTPShutdownReceived: &t.SCTPShutdownReceived,
		conntrack.SCTPShutdownAckSent:  &t.SCTPShutdownAckSent,
		conntrack.SCTPRejected:         &t.SCTPRejected,
		conntrack.SCTPClosed:           &t.SCTPClosed,
	}
}

func controlService(s nat.ServiceSpec) control.ServiceSpec {
	return control.ServiceSpec{
		ServiceKey: controlKey(s.ServiceKey), Scheduler: s.Scheduler, SchedFlags: s.Flags.Format(s.Scheduler),
		NoServer: s.NoServer.String(), Persistence: controlPersistence(s), OnePacket: s.OnePacket,
		Helper:       wordOf(helpers, s.Helper),
		OnServerDown: wordOf(serverDowns, s.OnServerDown), Idle: control.Duration(s.Idle), Passive: onOff(s.Passive),
	}
}

func controlServer(s nat.ServerSpec) control.ServerSpec {
	spec := control.ServerSpec{
		Address: netip.AddrPortFrom(s.Addr, s.Port), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
		Method: wordOf(methods, s.Method), NAT: wordOf(sources, s.Source),
	}
	if s.Tunnel != (nat.TunnelSpec{}) {
		spec.Tunnel = control.Tunnel{Type: wordOf(tunnelTypes, s.Tunnel.Type), Port: s.Tunnel.Port}
	}
	if s.Tunnel.Checksum != nat.TunnelNoChecksum {
		spec.Tunnel.Checksum = wordOf(tunnelChecksums, s.Tunnel.Checksum)
	}
	return spec
}

func controlSNAT(s nat.SNATSpec) control.SNATSpec {
	return control.SNATSpec{From: s.From, To: s.To, MinPort: s.MinPort, MaxPort: s.MaxPort}
}
