// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A script's words for services, servers, marks and settings, and its variables.

func (s *script) key(proto, addr string) ServiceKey {
	if mark, ok := strings.CutPrefix(proto, "mark"); ok {
		n, err := strconv.ParseUint(addr, 10, 32)
		s.must(err)
		return markKey(uint32(n), mark == "")
	}
	a := netip.MustParseAddrPort(addr)
	return ServiceKey{Proto: map[string]uint8{"tcp": ProtoTCP, "udp": ProtoUDP, "sctp": ProtoSCTP}[proto], Addr: a.Addr(), Port: a.Port()}
}

// spec is what the words of a service line say.
func (s *script) spec(w []string) ServiceSpec {
	s.service = s.key(w[0], w[1])
	spec := ServiceSpec{ServiceKey: s.service, Scheduler: "rr"}
	duration := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		s.must(err)
		return d
	}
	for i := 2; i < len(w); i++ {
		word := w[i]
		if word == "one-packet" {
			spec.OnePacket = true
			continue
		}
		if i++; i == len(w) {
			s.fatal("%s without a value", word)
		}
		switch word {
		case "sched":
			spec.Scheduler = w[i]
		case "no-server":
			spec.NoServer = map[string]NoServer{"icmp": NoServerICMP, "reset": NoServerReset}[w[i]]
		case "helper":
			spec.Helper = map[string]Helper{"ftp": HelperFTP, "none": NoHelper}[w[i]]
		case "on-server-down":
			spec.OnServerDown = map[string]ServerDown{"reset": ServerDownReset, "repick": ServerDownRepick}[w[i]]
		case "idle":
			spec.Idle = duration(w[i])
		case "persistent":
			spec.Persistence.Timeout = duration(w[i])
		case "mask":
			spec.Persistence.Mask = conntrack.AddrFrom(netip.MustParseAddr(w[i]))
		default:
			s.fatal("no word of a service: %q", word)
		}
	}
	return spec
}

func (s *script) server(words []string) ServerSpec {
	a := netip.MustParseAddrPort(words[0])
	spec := ServerSpec{Addr: a.Addr(), Port: a.Port(), Weight: 1}
	for i := 1; i+1 < len(words); i += 2 {
		number := map[string]*int{"weight": &spec.Weight, "upper": &spec.Upper, "lower": &spec.Lower}[words[i]]
		switch {
		case number != nil:
			n, err := strconv.Atoi(words[i+1])
			s.must(err)
			*number = n
		case words[i] == "method":
			spec.Method = map[string]Method{"nat": Masquerade, "route": DirectRoute, "tunnel": Tunnel}[words[i+1]]
		case words[i] == "nat":
			spec.Source = map[string]SourceNAT{"full": SourceFull, "auto": SourceAuto}[words[i+1]]
		case words[i] == "gue":
			spec.Tunnel.Type, spec.Tunnel.Port = GUE, uint16(fields{"": words[i+1]}.num("", 0))
		case words[i] == "checksum":
			spec.Tunnel.Checksum = map[string]TunnelChecksum{"no": TunnelNoChecksum, "yes": TunnelWithChecksum}[words[i+1]]
		case words[i] == "tunnel":
			spec.Tunnel.Type = map[string]TunnelType{"ipip": IPIP, "gre": GRE}[words[i+1]]
		}
	}
	return spec
}

// mark reads what MarkRule.String writes behind its first word.
func (s *script) mark(w []string) (m MarkRule) {
	n, err := strconv.ParseUint(w[0], 10, 32)
	s.must(err)
	m.Mark = uint32(n)
	for i := 1; i < len(w); i++ {
		switch word := w[i]; word {
		case "tcp", "udp", "sctp":
			m.Proto = map[string]uint8{"tcp": ProtoTCP, "udp": ProtoUDP, "sctp": ProtoSCTP}[word]
			continue
		}
		i++
		switch w[i-1] {
		case "from":
			m.From = netip.MustParsePrefix(w[i])
		case "to":
			m.To = netip.MustParsePrefix(w[i])
		case "port", "ports":
			lo, hi, _ := strings.Cut(w[i], "-")
			if hi == "" {
				hi = lo
			}
			_, err := fmt.Sscan(lo+" "+hi, &m.MinPort, &m.MaxPort)
			s.must(err)
		case "by":
			m.Link = w[i]
		default:
			s.fatal("no word of a mark rule: %q", w[i-1])
		}
	}
	return m
}

// set changes a setting by its name in IPVS.
func (s *script) set(name string, n int) {
	v := s.rules.Settings()
	numbers := map[string]*int{
		"conn_reuse_mode": &v.ConnReuseMode, "drop_entry": &v.DropEntry, "drop_packet": &v.DropPacket,
		"secure_tcp": &v.SecureTCP, "client_limit": &v.ClientLimit, "am_droprate": &v.DropRate,
	}
	flags := map[string]*bool{
		"expire_nodest_conn": &v.ExpireNodestConn, "nat_icmp_send": &v.NATICMPSend, "sloppy_tcp": &v.SloppyTCP, "sloppy_sctp": &v.SloppySCTP,
		"schedule_icmp": &v.ScheduleICMP, "expire_quiescent_template": &v.ExpireQuiescentTemplate,
		"reset_on_expiry": &v.ResetOnExpiry, "hold_gone_syn": &v.HoldGoneSYN, "pmtu_disc": &v.PMTUDisc,
	}
	seconds := map[string]*time.Duration{"lblc_expiration": &v.LBLCExpiration, "lblcr_expiration": &v.LBLCRExpiration}
	switch {
	case seconds[name] != nil:
		*seconds[name] = time.Duration(n) * time.Second
	case numbers[name] != nil:
		*numbers[name] = n
	case flags[name] != nil:
		*flags[name] = n != 0
	default:
		s.fatal("no setting is called %q", name)
	}
	s.rules.SetSettings(v)
	s.dirty = true
}

// hopWord says where a packet goes: to a known neighbour, or by a next hop.
func hopWord(v *Verdict) string {
	if v.To != (conntrack.LinkAddr{}) {
		return fmt.Sprintf(" to=%d", v.To[5])
	}
	return " next=" + v.NextHop.String()
}

// expand puts the variables into a line.
func (s *script) expand(text string) string {
	for k, v := range s.vars {
		text = strings.ReplaceAll(text, "$"+k, v)
	}
	return text
}

// bind is expand, and has the variables that are new take what got has in
// their place.
func (s *script) bind(text, got string) string {
	text = s.expand(text)
	gh, gf, _ := splitFields(got)
	wh, wf, _ := splitFields(text)
	take := func(want, got string) {
		if i := strings.IndexByte(want, '$'); i >= 0 && strings.HasPrefix(got, want[:i]) {
			s.vars[want[i+1:]] = got[i:]
		}
	}
	for i := range min(len(wh), len(gh)) {
		take(wh[i], gh[i])
	}
	for k, v := range wf {
		take(v, gf[k])
	}
	return s.expand(text)
}
