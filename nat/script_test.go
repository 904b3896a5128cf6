// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bufio"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

var update = flag.Bool("update", false, "rewrite the conns and stats lines of the scripts")

// A packet script drives a real Forwarder with a hand clock. One line, one
// step:
//
//	service tcp A:P sched rr [no-server reset]     server A:P [weight N]   (of the last service)
//	weight A:P N    delete-server A:P    delete-service tcp A:P
//	snat NET ADDR [MIN-MAX]    host ADDR    busy tcp ADDR:P    own ADDR/BITS
//	mtu PORT N      timeout STATE DURATION      max-conns N
//	in[@PORT] PACKET       a packet arrives, by the port that leads to its source
//	want[@PORT] PACKET     it was forwarded: the words given must be there, and every checksum right
//	pass   hold   drop REASON    what else may become of it
//	made[@PORT] PACKET     a packet that the Forwarder made; in order
//	none                   nothing else was made
//	advance DURATION
//	conns [STATE c:… v:… d:… [l:…] LIFE]   one line for each entry, in the order of the table
//	stats A:P conns in out inbytes outbytes
//
// Port 0 leads outside (192.168.88.0/24 and all else), port 1 inside
// (10.0.0.0/24, where we are 10.0.0.1). Both have an MTU of 1500.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			runScript(t, file)
		})
	}
}

type script struct {
	t       *testing.T
	file    string
	line    int
	rules   *Rules
	f       *Forwarder
	now     conntrack.Time
	ports   []PortInfo
	host    HostAddresses
	owned   []netip.Prefix
	max     int
	service ServiceKey
	dirty   bool

	verdict  *Verdict // of the last packet, until it was asked for
	packet   Packet
	made     []string
	madeBy   []uint16
	asked    string // the last in line
	lastPort uint16
}

func newScript(t *testing.T, file string) *script {
	s := &script{t: t, file: file, rules: NewRules(), now: conntrack.Time(time.Hour), max: 1000, dirty: true}
	s.ports = []PortInfo{
		{Index: 0, Name: "outside", MTU: 1500, Up: true},
		{Index: 1, Name: "inside", MTU: 1500, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
	}
	s.rules.SetRoutes([]Route{
		{Dst: netip.MustParsePrefix("10.0.0.0/24"), Port: 1},
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: 0},
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.168.88.1"), Port: 0},
	})
	return s
}

func runScript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newScript(t, file)
	var out []string
	scanner := bufio.NewScanner(strings.NewReader(string(data)))
	for scanner.Scan() {
		s.line++
		line := scanner.Text()
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "#") {
			out = append(out, line)
			continue
		}
		word, rest, _ := strings.Cut(text, " ")
		rest = strings.TrimSpace(rest)
		if word == "conns" || word == "stats" {
			out = append(out, s.listing(word, rest)...)
			continue
		}
		out = append(out, line)
		s.step(word, rest)
	}
	s.settled("the end")
	if s.f != nil {
		if err := s.f.Close(); err != nil {
			t.Error(err)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(slices.Compact(out), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *script) fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s:%d: %s\n    last: %s", s.file, s.line, fmt.Sprintf(format, args...), s.asked)
}

func (s *script) must(err error) {
	if err != nil {
		s.fatal("%v", err)
	}
	s.dirty = true
}

func (s *script) forwarder() *Forwarder {
	if s.dirty {
		s.rules.SetPorts(s.ports)
		s.rules.SetHost(s.host)
		s.rules.SetOwned(s.owned)
		s.rules.Publish()
		s.dirty = false
	}
	if s.f == nil {
		f, err := NewForwarder(ForwarderConfig{Rules: s.rules, MaxConns: s.max, Seed: [2]uint64{1, 2}})
		if err != nil {
			s.fatal("%v", err)
		}
		s.f = f
	}
	return s.f
}

func (s *script) key(proto, addr string) ServiceKey {
	a := netip.MustParseAddrPort(addr)
	return ServiceKey{Proto: map[string]uint8{"tcp": ProtoTCP, "udp": ProtoUDP}[proto], Addr: a.Addr(), Port: a.Port()}
}

func (s *script) server(words []string) ServerSpec {
	a := netip.MustParseAddrPort(words[0])
	spec := ServerSpec{Addr: a.Addr(), Port: a.Port(), Weight: 1}
	for i := 1; i+1 < len(words); i += 2 {
		n, err := strconv.Atoi(words[i+1])
		s.must(err)
		switch words[i] {
		case "weight":
			spec.Weight = n
		case "upper":
			spec.Upper = n
		case "lower":
			spec.Lower = n
		}
	}
	return spec
}

func (s *script) step(word, rest string) {
	word, at, _ := strings.Cut(word, "@")
	w := strings.Fields(rest)
	switch word {
	case "service":
		s.service = s.key(w[0], w[1])
		spec := ServiceSpec{ServiceKey: s.service, Scheduler: "rr"}
		for i := 2; i+1 < len(w); i += 2 {
			switch w[i] {
			case "sched":
				spec.Scheduler = w[i+1]
			case "no-server":
				spec.NoServer = map[string]NoServer{"icmp": NoServerICMP, "reset": NoServerReset}[w[i+1]]
			}
		}
		s.must(s.rules.AddService(spec))
	case "of":
		s.service = s.key(w[0], w[1])
	case "server":
		s.must(s.rules.AddServer(s.service, s.server(w)))
	case "edit-server":
		s.must(s.rules.EditServer(s.service, s.server(w)))
	case "delete-server":
		a := netip.MustParseAddrPort(w[0])
		s.must(s.rules.DelServer(s.service, a.Addr(), a.Port()))
	case "delete-service":
		s.must(s.rules.DelService(s.key(w[0], w[1])))
	case "snat":
		spec := SNATSpec{From: netip.MustParsePrefix(w[0]), To: netip.MustParseAddr(w[1])}
		if len(w) > 2 {
			_, err := fmt.Sscanf(w[2], "%d-%d", &spec.MinPort, &spec.MaxPort)
			s.must(err)
		}
		s.must(s.rules.AddSNAT(spec))
	case "delete-snat":
		s.must(s.rules.DelSNAT(netip.MustParsePrefix(w[0])))
	case "host":
		s.host.Addrs = append(s.host.Addrs, netip.MustParseAddr(w[0]))
		s.host.EphemeralMin, s.host.EphemeralMax = 32768, 60999
		s.dirty = true
	case "busy":
		k := s.key(w[0], w[1])
		s.host.Busy = append(s.host.Busy, BusyEndpoint{Proto: k.Proto, Addr: k.Addr, Port: k.Port})
		s.dirty = true
	case "own":
		s.owned = append(s.owned, netip.MustParsePrefix(w[0]))
		s.dirty = true
	case "mtu":
		i, _ := strconv.Atoi(w[0])
		n, err := strconv.Atoi(w[1])
		s.must(err)
		s.ports[i].MTU = n
	case "max-conns":
		n, err := strconv.Atoi(w[0])
		s.must(err)
		s.max = n
	case "timeout":
		settings := s.rules.Settings()
		for state := range conntrack.NumStates {
			if conntrack.State(state).String() == w[0] {
				d, err := time.ParseDuration(w[1])
				s.must(err)
				settings.Timeouts[state] = d
			}
		}
		s.rules.SetSettings(settings)
		s.dirty = true
	case "icmp-rate":
		n, err := strconv.Atoi(w[0])
		s.must(err)
		settings := s.rules.Settings()
		settings.ICMPRate = n
		s.rules.SetSettings(settings)
	case "in":
		s.settled("the next packet")
		s.asked = fmt.Sprintf("%d: in %s", s.line, rest)
		s.arrive(at, rest)
	case "want":
		s.verdictIs(Forward, ReasonNone)
		if got := decodePacket(s.packet.Data, s.packet.Offload); !agrees(rest, got) {
			s.fatal("\n    want %s\n    got  %s", rest, got)
		}
		if at != "" && at != strconv.Itoa(int(s.lastPort)) {
			s.fatal("left by port %d", s.lastPort)
		}
	case "pass":
		s.verdictIs(Pass, ReasonNone)
	case "hold":
		s.verdictIs(Hold, ReasonNone)
	case "drop":
		for r := range NumReasons {
			if r.String() == rest {
				s.verdictIs(Drop, r)
				return
			}
		}
		s.fatal("no reason is called %q", rest)
	case "made":
		if len(s.made) == 0 {
			s.fatal("nothing was made; want %s", rest)
		}
		if !agrees(rest, s.made[0]) {
			s.fatal("\n    want made %s\n    got  made %s", rest, s.made[0])
		}
		if at != "" && at != strconv.Itoa(int(s.madeBy[0])) {
			s.fatal("left by port %d", s.madeBy[0])
		}
		s.made, s.madeBy = s.made[1:], s.madeBy[1:]
	case "none":
		if len(s.made) > 0 {
			s.fatal("made %s", s.made[0])
		}
	case "unreachable":
		f := s.forwarder()
		f.Begin(s.now)
		b, _ := encodePacket(rest)
		p, _ := strconv.Atoi(at)
		f.Unreachable(b, uint16(p))
		s.collect()
	case "advance":
		s.settled("time")
		d, err := time.ParseDuration(rest)
		s.must(err)
		s.now = s.now.Add(d)
		f := s.forwarder()
		f.Begin(s.now)
		f.Sweep(1 << 20)
		s.collect()
	default:
		s.fatal("no step is called %q", word)
	}
}

func (s *script) arrive(at, text string) {
	f := s.forwarder()
	b, off := encodePacket(text)
	port := uint16(0)
	if at != "" {
		n, _ := strconv.Atoi(at)
		port = uint16(n)
	} else if src := netip.AddrFrom4([4]byte(b[12:16])); netip.MustParsePrefix("10.0.0.0/24").Contains(src) {
		port = 1
	}
	s.packet = Packet{Data: b, Offload: off, In: port, From: conntrack.LinkAddr{2, 0, 0, 0, byte(port), b[15]}}
	f.Begin(s.now)
	v := f.Forward(&s.packet)
	s.verdict, s.lastPort = &v, v.Port
	if v.Action == Forward && v.To == (conntrack.LinkAddr{}) && v.NextHop == (conntrack.Addr{}) {
		s.fatal("forwarded to nobody")
	}
	s.collect()
}

func (s *script) collect() {
	for _, g := range s.f.Outbox() {
		s.made = append(s.made, decodePacket(g.Packet.Data, g.Packet.Offload))
		s.madeBy = append(s.madeBy, g.Verdict.Port)
		if len(g.Memory) != Headroom+len(g.Packet.Data) {
			s.fatal("a made packet without headroom")
		}
	}
}

func (s *script) verdictIs(a Action, r Reason) {
	if s.verdict == nil {
		s.fatal("no packet came")
	}
	v := *s.verdict
	s.verdict = nil
	if v.Action != a || v.Reason != r {
		s.fatal("want %s %s, got %s %s\n    %s", a, r, v.Action, v.Reason, decodePacket(s.packet.Data, s.packet.Offload))
	}
}

// settled complains of what a packet did that the script did not mention.
func (s *script) settled(before string) {
	if s.verdict != nil {
		s.fatal("before %s: the script does not say what became of the packet: %s %s\n    %s", before,
			s.verdict.Action, s.verdict.Reason, decodePacket(s.packet.Data, s.packet.Offload))
	}
	if len(s.made) > 0 {
		s.fatal("before %s: the script does not mention that this was made:\n    %s", before, s.made[0])
	}
}

// listing compares a conns or stats line, or with -update writes it anew.
func (s *script) listing(word, rest string) []string {
	var got []string
	f := s.forwarder()
	if word == "conns" {
		for _, c := range f.Conns(ConnQuery{}).Conns {
			line := fmt.Sprintf("conns %s c:%s v:%s d:%s", c.State, c.Client, c.Virtual, c.Dest)
			if c.Local.IsValid() {
				line += " l:" + c.Local.String()
			}
			got = append(got, fmt.Sprintf("%s %ds", line, int(c.Expires.Round(time.Second).Seconds())))
		}
		if len(got) == 0 {
			got = []string{"conns"}
		}
	} else {
		a := netip.MustParseAddrPort(strings.Fields(rest)[0])
		stats := f.Stats()
		for _, v := range s.rules.Services() {
			for _, d := range v.Servers {
				if d.Addr == a.Addr() && d.Port == a.Port() {
					c := stats.Servers[d.Slot]
					got = append(got, fmt.Sprintf("stats %s active=%d inactive=%d conns=%d in=%d/%d out=%d/%d", a, d.Active, d.Inactive,
						c.Conns, c.InPackets, c.InBytes, c.OutPackets, c.OutBytes))
				}
			}
		}
	}
	want := strings.TrimSpace(word + " " + rest)
	if !*update && !slices.Contains(got, want) {
		s.fatal("\n    want %s\n    got  %s", want, strings.Join(got, "\n         "))
	}
	return got
}
