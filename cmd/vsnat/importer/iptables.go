// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/config"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// readIptables reads the output of iptables-save or ip6tables-save.
func (i *Importer) readIptables(f File) error {
	table := ""
	var marks []control.MarkSpec
	number := 0
	for text := range strings.Lines(string(f.Text)) {
		number++
		line := quotedFields(text)
		if len(line) > 1 && strings.HasPrefix(line[0], "[") { // counters of iptables-save -c
			line = line[1:]
		}
		switch {
		case len(line) == 0 || line[0][0] == '#' || line[0][0] == ':' || line[0] == "COMMIT":
		case line[0][0] == '*':
			table = line[0][1:]
		case line[0] != "-A" || len(line) < 3:
			i.note(f.Name, number, words(line), "no rule")
		case table == "nat" && line[1] == "POSTROUTING":
			i.snat(f.Name, number, line)
		case table == "mangle" && line[1] == "PREROUTING":
			list, err := markRules(line)
			if err != nil {
				i.note(f.Name, number, words(line), err.Error())
			}
			marks = append(marks, list...)
		case table == "nat" && line[1] == "PREROUTING":
			i.dnat(f.Name, number, line)
		default:
			i.note(f.Name, number, words(line), fmt.Sprintf("vsnat has nothing of the table %s, and leaves it to the host", table))
		}
	}
	// There the last rule that matches counts, here the first.
	slices.Reverse(marks)
	for _, m := range marks {
		trial := config.Default()
		trial.Marks = append(slices.Clone(i.cfg.Marks), m)
		if err := acceptable(trial); err != nil {
			i.note(f.Name, number, m.String(), "it is left out: "+reason(err))
			continue
		}
		i.cfg.Marks = trial.Marks
	}
	return nil
}

// quotedFields cuts a line at blanks outside of quotes, which stay.
func quotedFields(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '\r')
	})
}

// A rule is what the options of one say.
type rule struct {
	target              string
	source, destination netip.Prefix
	proto, in, out      string
	ports               [][2]uint16 // of the destination
	to                  string      // --to-source, --to-destination
	mark                uint64
	dropped             []string // options without a meaning here
}

// parseRule reads the options after the chain.
func parseRule(line []string) (r rule, err error) {
	for n := 2; n < len(line); n++ {
		option := line[n]
		value := func() string {
			n++
			if n >= len(line) {
				err = errors.New("it ends too early")
				return ""
			}
			return line[n]
		}
		switch option {
		case "!":
			return r, errors.New("a match that is negated has no counterpart")
		case "-s", "--source":
			r.source, err = network(value())
		case "-d", "--destination":
			r.destination, err = network(value())
		case "-p", "--protocol":
			r.proto = value()
		case "-i", "--in-interface":
			r.in = value()
		case "-o", "--out-interface":
			r.out = value()
		case "-m", "--match":
			if m := value(); !slices.Contains([]string{"tcp", "udp", "sctp", "multiport", "comment"}, m) {
				return r, fmt.Errorf("the match %s has no counterpart", m)
			}
		case "--comment":
			_ = value()
		case "--dport", "--dports", "--destination-port":
			r.ports, err = portRanges(value())
		case "-j", "--jump":
			r.target = value()
		case "--to-source", "--to-destination":
			r.to = value()
		case "--set-mark", "--set-xmark":
			text, mask, _ := strings.Cut(value(), "/")
			if r.mark, err = strconv.ParseUint(text, 0, 32); err != nil || mask != "" && mask != "0xffffffff" {
				return r, errors.New("only whole marks have a counterpart")
			}
		case "--random", "--random-fully", "--persistent":
			r.dropped = append(r.dropped, option)
		default:
			return r, fmt.Errorf("%s has no counterpart", option)
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", option, err)
		}
	}
	return r, nil
}

func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no network", s)
	}
	return p.Masked(), nil
}

func portRanges(s string) (list [][2]uint16, err error) {
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		a, err1 := strconv.ParseUint(low, 10, 16)
		b, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || b < a {
			return nil, fmt.Errorf("%q are no ports", part)
		}
		list = append(list, [2]uint16{uint16(a), uint16(b)})
	}
	return list, nil
}

// snat takes a rule of POSTROUTING up.
func (i *Importer) snat(file string, number int, line []string) {
	left := func(why string) { i.note(file, number, words(line), why) }
	r, err := parseRule(line)
	switch {
	case err != nil:
		left(err.Error())
		return
	case r.target == "MASQUERADE":
		left("vsnat has to be told the address: vsnat snat add " + sourceText(r.source) + " ADDRESS")
		return
	case r.target != "SNAT":
		left("only SNAT has a counterpart")
		return
	case !r.source.IsValid() || r.source.Bits() == 0:
		left("a rule names the network whose hosts it is for")
		return
	case r.destination.IsValid() || r.proto != "" && len(r.ports) > 0:
		left("a rule is for everything that leaves the network, whatever its destination")
		return
	}
	spec := control.SNATSpec{From: r.source}
	to, ports := r.to, ""
	if j := strings.LastIndexByte(to, ':'); j >= 0 && (strings.Count(to, ":") == 1 || strings.HasPrefix(to, "[")) {
		to, ports = to[:j], to[j+1:]
	}
	if spec.To, err = netip.ParseAddr(strings.Trim(to, "[]")); err != nil {
		left("a rule has one address to leave by")
		return
	}
	if ports != "" {
		list, err := portRanges(strings.Replace(ports, "-", ":", 1))
		if err != nil {
			left(err.Error())
			return
		}
		spec.MinPort, spec.MaxPort = list[0][0], list[0][1]
	}
	if r.proto != "" {
		left("it is carried over for all protocols, not for " + r.proto + " alone")
	}
	if r.out != "" {
		left("it is carried over for every way out, not for " + r.out + " alone")
	}
	if len(r.dropped) > 0 {
		left(strings.Join(r.dropped, ", ") + " is left out: the same inside endpoint keeps its port")
	}
	trial := config.Default()
	trial.SNAT = append(slices.Clone(i.cfg.SNAT), spec)
	if err := acceptable(trial); err != nil {
		left("it is left out: " + reason(err))
		return
	}
	i.cfg.SNAT = trial.SNAT
}

// dnat takes a rule of PREROUTING up: a port of an address that leads to one server is a
// service with that server.
func (i *Importer) dnat(file string, number int, line []string) {
	left := func(why string) { i.note(file, number, words(line), why) }
	r, err := parseRule(line)
	switch {
	case err != nil:
		left(err.Error())
		return
	case r.target != "DNAT":
		left("only DNAT has a counterpart")
		return
	case !r.destination.IsSingleIP() || len(r.ports) != 1 || r.ports[0][0] != r.ports[0][1] || r.source.IsValid():
		left("a service has one address and one port, and is for all clients")
		return
	}
	to, err := netip.ParseAddrPort(r.to)
	if err != nil {
		a, err := netip.ParseAddr(r.to)
		if err != nil {
			left("one address to lead to is expected, or an address and a port")
			return
		}
		to = netip.AddrPortFrom(a, r.ports[0][0])
	}
	if r.in != "" {
		left("it is carried over for every link, not for " + r.in + " alone")
	}
	s := config.Service{ServiceSpec: control.ServiceSpec{
		ServiceKey: control.ServiceKey{Proto: r.proto, Address: netip.AddrPortFrom(r.destination.Addr(), r.ports[0][0])},
		Scheduler:  control.DefaultScheduler,
	}}
	s.Servers = []control.ServerSpec{{Address: to, Weight: 1, Method: control.MethodNAT}}
	i.add(file, number, s)
}

func sourceText(p netip.Prefix) string {
	if !p.IsValid() {
		return "NETWORK"
	}
	return p.String()
}

// markRules are the rules that one of PREROUTING means: one for each range of ports.
func markRules(line []string) ([]control.MarkSpec, error) {
	r, err := parseRule(line)
	switch {
	case err != nil:
		return nil, err
	case r.target != "MARK" || r.mark == 0:
		return nil, errors.New("only MARK with a mark has a counterpart")
	case r.out != "":
		return nil, errors.New("the way out is not known where marks are given")
	}
	m := control.MarkSpec{Mark: uint32(r.mark), Proto: r.proto, From: r.source, To: r.destination, Interface: r.in}
	if r.proto == "all" {
		m.Proto = ""
	}
	if len(r.ports) == 0 {
		return []control.MarkSpec{m}, nil
	}
	var list []control.MarkSpec
	for _, p := range r.ports {
		m.MinPort, m.MaxPort = p[0], p[1]
		list = append(list, m)
	}
	return list, nil
}
