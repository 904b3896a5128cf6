// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"math"
	"net/netip"
	"strings"
)

// What the grammar fills in where nothing is said.
const (
	defaultScheduler   = "wlc"
	defaultPersistence = 360 // seconds
	defaultInterface   = "eth0"
	longestTimeout     = 31 * 24 * 3600 // seconds
	wholeAddress       = 128            // bits of an IPv6 mask that has each client by itself
)

// Parse understands a command line. Program is the name the tool was called by,
// for messages; args come after it. Parse asks names for nothing but names.
func Parse(program string, args []string, names Resolver) (*Command, error) {
	p := parser{
		Command: Command{
			Server:  Server{Weight: 1},
			Listing: Listing{View: PlainView},
		},
		scanner: scanner{args: args},
		names:   names,
	}
	p.unmask()
	if err := p.verb(program); err != nil {
		return nil, err
	}
	if p.Verb == Help || p.Verb == Version {
		return &p.Command, nil
	}
	for {
		w, value, given, err := p.scanner.option()
		if err != nil {
			return nil, err
		}
		if w == nil {
			break
		}
		if err := p.word(w, value, given); err != nil {
			return nil, err
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return &p.Command, nil
}

// A parser is a command under construction.
type parser struct {
	Command
	scanner scanner
	names   Resolver
	given   optionSet

	flags string // of the scheduler, which may come in a later word
}

// verb reads the first word, which must be a command.
func (p *parser) verb(program string) error {
	w, value, _, err := p.scanner.option()
	if err != nil || w == nil || w.verb == numVerbs {
		return tryHelp(program)
	}
	p.Verb = w.verb
	if w.verb != StartDaemon && w.verb != StopDaemon {
		return nil
	}
	switch value {
	case "master":
		p.Daemon.Role = Master
	case "backup":
		p.Daemon.Role = Backup
	default:
		if w.verb == StopDaemon {
			return wrong("illegal start_daemon specified")
		}
		return wrong("illegal %s parameter specified", w.long)
	}
	return nil
}

// word reads any later word.
func (p *parser) word(w *word, value string, given bool) error {
	if w.verb != numVerbs {
		return wrong("invalid option `%s'", p.scanner.args[p.scanner.next-1])
	}
	if w.id != noOption {
		if p.given.has(w.id) {
			return wrong("multiple '%s' options specified", legal[w.id].name)
		}
		p.given |= 1 << w.id
	}
	switch w.id {
	case optServiceAddress:
		return p.service(w, value)
	case optScheduler:
		p.Service.Scheduler = value
	case optPersistent:
		return p.persistence(value, given)
	case optNetmask:
		return p.netmask(value)
	case optEngine:
		p.Service.Engine = value
	case optOnePacket:
		p.Service.OnePacket = true
	case optSchedFlags:
		p.flags = value
	case optRealServer:
		return p.server(value)
	case optForwardingMethod:
		p.Server.Forward = map[byte]Forward{'m': Masq, 'i': Tunnel, 'g': Route}[w.short]
	case optWeight:
		return p.number(&p.Server.Weight, value, 0, math.MaxInt32, "weight")
	case optUpperThreshold:
		return p.number(&p.Server.Upper, value, 0, math.MaxInt32, "u_threshold")
	case optLowerThreshold:
		return p.number(&p.Server.Lower, value, 0, math.MaxInt32, "l_threshold")
	case optTunType, optTunPort, optTunNoChecksum, optTunChecksum, optTunRemoteChecksum:
		return p.tunnel(w, value)
	case optMcastInterface, optSyncID, optSyncMaxLen, optMcastGroup, optMcastPort, optMcastTTL:
		return p.daemon(w, value)
	case optNumeric:
		p.Listing.Numeric = true
	case optExact:
		p.Listing.Exact = true
	case optNosort:
		p.Listing.Unsort = true
	case noOption:
		if w.short == '6' {
			if p.Service.Mark == 0 {
				return wrong("-6 used before -f\n")
			}
			p.Service.MarkIPv6 = true
			p.unmask()
		}
	default:
		p.listing(w)
	}
	return nil
}

func (p *parser) service(w *word, value string) error {
	p.Named = true
	if w.short == 'f' {
		mark, ok := parseNumber(value, 1, math.MaxUint32)
		if !ok {
			return wrong("invalid fwmark value `%s' specified", value)
		}
		p.Service.Mark = uint32(mark)
		return nil
	}
	p.Service.Proto = map[byte]uint8{'t': tcp, 'u': udp, 0: sctp}[w.short]
	e, ok := parseEndpoint(value, p.names)
	if ok && e.withPort {
		p.Service.Port, ok = e.number(p.Service.Proto, p.names)
	}
	if !ok {
		return wrong("illegal virtual server address[:port] specified")
	}
	p.Service.Addr = e.addr
	if e.addr.Is6() {
		p.unmask()
	}
	return nil
}

// unmask has each client by itself: a mask before an IPv6 service is IPv4's.
func (p *parser) unmask() {
	p.Service.Mask, p.Service.MaskBits = netip.AddrFrom4([4]byte{255, 255, 255, 255}), wholeAddress
}

// netmask reads the mask of persistence, of the family that the service has so
// far.
func (p *parser) netmask(value string) error {
	if p.Service.ipv6() {
		bits, _ := parsePrefix(value)
		if bits < 1 || bits > wholeAddress {
			return wrong("illegal ipv6 netmask specified")
		}
		p.Service.MaskBits = bits
		return nil
	}
	mask, ok := parseHost(value, p.names)
	if !ok {
		return wrong("illegal virtual server persistent mask specified")
	}
	p.Service.Mask = mask
	return nil
}

// server reads a server. Without a port it has the service's, if that came first.
func (p *parser) server(value string) error {
	e, ok := parseEndpoint(value, p.names)
	port := p.Service.Port
	if ok && e.withPort {
		proto := p.Service.Proto
		if p.Service.Mark != 0 {
			proto = tcp // whose service names the tool uses for marks too
		}
		port, ok = e.number(proto, p.names)
	}
	if !ok {
		return wrong("illegal real server address[:port] specified")
	}
	p.Server.Addr, p.Server.Port = e.addr, port
	return nil
}

func (p *parser) persistence(value string, given bool) error {
	p.Service.Persistent, p.Service.Timeout = true, defaultPersistence
	if !given {
		return nil
	}
	return p.seconds(&p.Service.Timeout, value, 1)
}

func (p *parser) listing(w *word) {
	view := map[optionID]View{
		optStats: StatsView, optRate: RateView, optThresholds: ThresholdsView,
		optPersistentConn: PersistentView, optTunInfo: TunnelView,
	}
	what := map[optionID]What{optConnection: Connections, optTimeout: TimeoutValues, optDaemon: Daemons}
	if v, ok := view[w.id]; ok {
		p.Listing.View = min(p.Listing.View, v)
	}
	if l, ok := what[w.id]; ok {
		p.Listing.What = l
	}
}

func (p *parser) number(to *int, value string, lowest, highest int64, what string) error {
	n, ok := parseNumber(value, lowest, highest)
	if !ok {
		return wrong("illegal %s specified", what)
	}
	*to = int(n)
	return nil
}

func (p *parser) seconds(to *int, value string, lowest int64) error {
	n, ok := parseNumber(value, lowest, longestTimeout)
	if !ok {
		return wrong("invalid timeout value `%s' specified", value)
	}
	*to = int(n)
	return nil
}

func (p *parser) tunnel(w *word, value string) error {
	t := &p.Server.Tunnel
	switch w.id {
	case optTunPort:
		port, ok := parseNumber(value, 1, 65535)
		if !ok {
			return wrong("illegal tunnel port specified")
		}
		t.Port = uint16(port)
	case optTunNoChecksum:
		t.Checksum = NoChecksum
	case optTunChecksum:
		t.Checksum = Checksum
	case optTunRemoteChecksum:
		t.Checksum = RemoteChecksum
	default:
		for _, t.Type = range []TunnelType{IPIP, GUE, GRE} {
			if t.Type.String() == value {
				return nil
			}
		}
		return wrong("illegal tunnel type specified")
	}
	return nil
}

func (p *parser) daemon(w *word, value string) error {
	d := &p.Daemon
	switch w.id {
	case optSyncID:
		return p.number(&d.SyncID, value, 0, 255, "syncid")
	case optSyncMaxLen:
		return p.number(&d.MaxLen, value, 1, 65535-28, "sync-maxlen")
	case optMcastPort:
		return p.number(&d.Port, value, 1, 65535, "mcast-port")
	case optMcastTTL:
		return p.number(&d.TTL, value, 1, 255, "mcast-ttl")
	case optMcastGroup:
		addr, ok := parseIPv4(value)
		family := "IPv4"
		if strings.Contains(value, ":") {
			family = "IPv6"
			six, err := netip.ParseAddr(value)
			addr, ok = six, err == nil && six.Zone() == ""
		}
		if !ok || !addr.IsMulticast() {
			return wrong("invalid %s mcast-group `%s'", family, value)
		}
		d.Group = addr
	default:
		d.Interface = value
	}
	return nil
}
