// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"fmt"
	"net/netip"
	"strings"
)

// Where names are cut so that the columns stay: of services and of servers, in
// bytes. IPv6 addresses are never cut.
const (
	serviceWidth = 33
	serverWidth  = 28
)

// A listing in the making. Widths and trailing blanks are those of the tool, and
// scripts depend on them.
type printer struct {
	w     *bufio.Writer
	names Resolver
	Listing
}

// title writes the two header lines of a service listing.
func (p *printer) title() {
	const address = "Prot LocalAddress:Port"
	switch p.View {
	case StatsView:
		fmt.Fprintf(p.w, "%-33s %8s %8s %8s %8s %8s\n", address, "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
	case RateView:
		fmt.Fprintf(p.w, "%-33s %8s %8s %8s %8s %8s\n", address, "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")
	case ThresholdsView:
		fmt.Fprintf(p.w, "%-33s %-10s %-10s %-10s %-10s\n", address, "Uthreshold", "Lthreshold", "ActiveConn", "InActConn")
	case PersistentView:
		fmt.Fprintf(p.w, "%-33s %-9s %-11s %-10s %-10s\n", address, "Weight", "PersistConn", "ActiveConn", "InActConn")
	default:
		fmt.Fprintf(p.w, "%s Scheduler Flags\n", address)
	}
	switch p.View {
	case TunnelView:
		fmt.Fprintln(p.w, "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn")
	case PlainView:
		fmt.Fprintln(p.w, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")
	default:
		fmt.Fprintln(p.w, "  -> RemoteAddress:Port")
	}
}

// service writes a service and its servers.
func (p *printer) service(s *ServiceEntry) {
	name := p.serviceName(s.ServiceKey)
	switch p.View {
	case StatsView:
		fmt.Fprintf(p.w, "%-33s", name)
		p.counters(s.Stats)
	case RateView:
		fmt.Fprintf(p.w, "%-33s", name)
		p.counters(s.Rate)
	default:
		fmt.Fprintf(p.w, "%s %s%s\n", name, s.Scheduler, serviceTraits(&s.Service))
	}
	for i := range s.Servers {
		p.server(s, &s.Servers[i])
	}
}

// serviceTraits are the words after a service's scheduler.
func serviceTraits(s *Service) string {
	var b strings.Builder
	if flags := s.Flags.Format(s.Scheduler); flags != "" {
		fmt.Fprintf(&b, " (%s)", flags)
	}
	if s.Persistent {
		fmt.Fprintf(&b, " persistent %d", s.Timeout)
		if mask := maskText(s); mask != "" {
			fmt.Fprintf(&b, " mask %s", mask)
		}
	}
	if s.Engine != "" {
		fmt.Fprintf(&b, " pe %s", s.Engine)
	}
	if s.OnePacket {
		b.WriteString(" ops")
	}
	return b.String()
}

// maskText is the mask of a service's persistence, "" for single clients.
func maskText(s *Service) string {
	switch {
	case s.ipv6() && s.MaskBits != 128:
		return fmt.Sprint(s.MaskBits)
	case !s.ipv6() && s.Mask.IsValid() && s.Mask != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return s.Mask.String()
	default:
		return ""
	}
}

func (p *printer) server(of *ServiceEntry, s *ServerEntry) {
	name := p.address(s.Addr, s.Port, of.Proto)
	if !s.Addr.Is6() {
		name = cut(name, serverWidth)
	}
	fmt.Fprintf(p.w, "  -> %-28s", name)
	switch p.View {
	case StatsView:
		p.counters(s.Stats)
	case RateView:
		// Here the tool does not abbreviate the first three.
		fmt.Fprintf(p.w, " %8d %8d %8d", s.Rate.Conns, s.Rate.InPackets, s.Rate.OutPackets)
		p.large(s.Rate.InBytes)
		p.large(s.Rate.OutBytes)
		fmt.Fprintln(p.w)
	case ThresholdsView:
		fmt.Fprintf(p.w, " %-10d %-10d %-10d %-10d\n", s.Upper, s.Lower, s.Active, s.Inactive)
	case PersistentView:
		fmt.Fprintf(p.w, " %-9d %-11d %-10d %-10d\n", s.weight(), s.Persistent, s.Active, s.Inactive)
	case TunnelView:
		fmt.Fprintf(p.w, " %-7s %-13s %-6d %-10d %-10d\n", s.Forward, tunnelText(&s.Server), s.weight(), s.Active, s.Inactive)
	default:
		fmt.Fprintf(p.w, " %-7s %-6d %-10d %-10d\n", s.Forward, s.weight(), s.Active, s.Inactive)
	}
}

func tunnelText(s *Server) string {
	switch {
	case s.Forward != Tunnel:
		return "n/a"
	case s.Tunnel.Type == GUE:
		return fmt.Sprintf("gue:%d:%s", s.Tunnel.Port, checksumMarks[s.Tunnel.Checksum])
	case s.Tunnel.Type == GRE:
		return "gre:" + checksumMarks[s.Tunnel.Checksum]
	default:
		return s.Tunnel.Type.String()
	}
}

var checksumMarks = [...]string{NoChecksum: "-c", Checksum: "+c", RemoteChecksum: "r+c"}

// counters ends a line with five numbers.
func (p *printer) counters(c Counters) {
	for _, n := range []uint64{c.Conns, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes} {
		p.large(n)
	}
	fmt.Fprintln(p.w)
}

// large writes a number nine columns wide, in thousands, millions and so on from
// nine digits on, rounded down.
func (p *printer) large(n uint64) {
	switch {
	case p.Exact:
		digits := fmt.Sprint(n)
		fmt.Fprintf(p.w, "%*s", max(9, len(digits)+1), digits)
	case n < 1e8:
		fmt.Fprintf(p.w, "%9d", n)
	case n < 1e9:
		fmt.Fprintf(p.w, "%8dK", n/1e3)
	case n < 1e11:
		fmt.Fprintf(p.w, "%8dM", n/1e6)
	case n < 1e14:
		fmt.Fprintf(p.w, "%8dG", n/1e9)
	default:
		fmt.Fprintf(p.w, "%8dT", n/1e12)
	}
}

// serviceName is how listings begin a service's line.
func (p *printer) serviceName(k ServiceKey) string {
	if k.Mark != 0 {
		if k.MarkIPv6 {
			return fmt.Sprintf("FWM  %d IPv6", k.Mark)
		}
		return fmt.Sprintf("FWM  %d", k.Mark)
	}
	name := fmt.Sprintf("%-4s %s", strings.ToUpper(protoName(k.Proto)), p.address(k.Addr, k.Port, k.Proto))
	if k.ipv6() {
		return name
	}
	return cut(name, serviceWidth)
}

// address writes address and port, by name unless numbers are wanted. The tool
// has no names for IPv6 addresses.
func (p *printer) address(addr netip.Addr, port uint16, proto uint8) string {
	host, service := addr.String(), fmt.Sprint(port)
	if addr.Is6() {
		host = "[" + host + "]"
	}
	if p.Numeric {
		return host + ":" + service
	}
	if !addr.Is6() {
		if name, ok := p.names.HostName(addr); ok {
			host = name
		}
	}
	if proto == 0 {
		proto = tcp // a service by mark
	}
	if name, ok := p.names.PortName(port, proto); ok {
		service = name
	}
	return host + ":" + service
}

func cut(s string, width int) string { return s[:min(len(s), width)] }
