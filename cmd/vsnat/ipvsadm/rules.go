// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"fmt"
	"strings"
)

// rule writes a service and its servers as command lines that make them again.
// The tool leaves out thresholds, but reads them.
func (p *printer) rule(s *ServiceEntry) {
	name := p.ruleName(s.ServiceKey)
	fmt.Fprintf(p.w, "-A %s -s %s", name, s.Scheduler)
	if s.Persistent {
		fmt.Fprintf(p.w, " -p %d", s.Timeout)
		if mask := maskText(&s.Service); mask != "" {
			fmt.Fprintf(p.w, " -M %s", mask)
		}
	}
	if s.Engine != "" {
		fmt.Fprintf(p.w, " --pe %s", s.Engine)
	}
	if s.OnePacket {
		fmt.Fprint(p.w, " -o")
	}
	if flags := s.Flags.Format(s.Scheduler); flags != "" {
		fmt.Fprintf(p.w, " -b %s", flags)
	}
	fmt.Fprintln(p.w)
	for i := range s.Servers {
		server := &s.Servers[i].Server
		fmt.Fprintf(p.w, "-a %s -r %s %s -w %d%s%s\n", name, p.address(server.Addr, server.Port, s.Proto),
			forwardSwitch(server.Forward), server.Weight, tunnelSwitches(server), thresholdSwitches(server))
	}
}

func (p *printer) ruleName(k ServiceKey) string {
	if k.Mark != 0 {
		if k.MarkIPv6 {
			return fmt.Sprintf("-f %d -6", k.Mark)
		}
		return fmt.Sprintf("-f %d", k.Mark)
	}
	option := map[uint8]string{tcp: "-t", udp: "-u", sctp: "--sctp-service"}[k.Proto]
	return option + " " + p.address(k.Addr, k.Port, k.Proto)
}

func forwardSwitch(f Forward) string {
	return map[Forward]string{Route: "-g", Local: "-g", Tunnel: "-i", Masq: "-m"}[f]
}

func tunnelSwitches(s *Server) string {
	if s.Forward != Tunnel {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, " --tun-type %s", s.Tunnel.Type)
	if s.Tunnel.Type == GUE {
		fmt.Fprintf(&b, " --tun-port %d", s.Tunnel.Port)
	}
	if s.Tunnel.Type != IPIP {
		fmt.Fprintf(&b, " --tun-%s", s.Tunnel.Checksum)
	}
	return b.String()
}

func thresholdSwitches(s *Server) string {
	text := ""
	if s.Upper != 0 {
		text += fmt.Sprintf(" -x %d", s.Upper)
	}
	if s.Lower != 0 {
		text += fmt.Sprintf(" -y %d", s.Lower)
	}
	return text
}
