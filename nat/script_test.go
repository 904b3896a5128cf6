// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bufio"
	"errors"
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
//	service tcp A:P sched rr [no-server reset] [helper ftp] [on-server-down reset|repick] [idle DURATION]
//	        [persistent DURATION] [mask ADDR] [one-packet]     edit-service …  the same words
//	server A:P [weight N] [method nat|route|tunnel] [nat full|auto]   (of the last service)
//	        with a tunnel: tunnel gre, gue PORT, checksum yes
//	held ADDR             its ports 62000 to 62999 are the director's own
//	fullnat A:P on|off    local ADDR/BITS
//	weight A:P N    delete-server A:P    delete-service tcp A:P
//	service mark N sched rr                        mark6: in IPv6; servers of port 0 take the packet's
//	mark RULE       delete-mark RULE             in the words of MarkRule.String
//	snat NET ADDR [MIN-MAX]    host ADDR    busy tcp ADDR:P    own ADDR/BITS
//	mtu PORT N      timeout STATE DURATION      max-conns N
//	set NAME VALUE  (a setting of IPVS by its name there, reset_on_expiry, hold_gone_syn, client_limit; 0 and 1 for no and yes)
//	icmp-rate N     link PORT up|down    name PORT NAME    route NET PORT [GATEWAY]
//	in[@PORT] PACKET       a packet arrives, by the port that leads to its source; via=N: from the neighbour N
//	want[@PORT] PACKET     it was forwarded: the words given must be there, and every checksum right
//	pass   hold   drop REASON    what else may become of it
//	made[@PORT] PACKET     a packet that the Forwarder made; in order
//	none                   nothing else was made
//	advance DURATION    tick   Rules.Tick is called
//	unreachable@PORT       the next hop of the packet last forwarded did not answer
//	unreachable-made@PORT  that of the packet last made
//	refused server …       the step is refused; also edit-server
//	flood N VERDICT PACKET      N packets, {i} in them counts from 1, {a} is a public address for each;
//	                            VERDICT: forward, hold, pass, drop:REASON, any. What is made is only counted
//	differ A B      two words, variables among them, are not the same
//	ours ADDR …     the addresses that are ours
//	answers N       packets made during the last flood
//	drops REASON N    suppressed REASON N    entries N    removed REASON N    mapped ADDR N
//	conns [STATE c:… v:… d:… [l:…] LIFE]   one line for each entry, in the order of the table
//	stats A:P active= inactive= [templates=] conns= in=PACKETS/BYTES out=PACKETS/BYTES
//	services tcp A:P conns= in= out=
//	probe ADDR A:P    from an address of ours to a server; $probe and $ack are its endpoint and what is to be acknowledged
//	probed silent|accepted|refused    forget-probe
//	signals A:P asked= answered= refused= took=HANDSHAKES/SUM     of a server of the last service
//
// $NAME in a want or made line takes what is there, and stands for it from then
// on. Of a forwarded or made packet can be asked to=N, the neighbour it was sent to, or
// next=ADDR, the next hop to resolve.
//
// Port 0 leads outside (192.168.88.0/24 and all else), port 1 inside
// (10.0.0.0/24, where we are 10.0.0.1). Both have an MTU of 1500. In IPv6 the
// networks are 2001:db8:88::/64 and fd00:10::/64, where we are fd00:10::1.
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
	local   []netip.Prefix
	max     int
	service ServiceKey
	dirty   bool
	routes  []Route
	vars    map[string]string
	flooded int // packets made during the last flood
	size    int // how many Forwarders
	crew    crew
	restart bool // before each packet

	probe    Probe
	verdict  *Verdict // of the last packet, until it was asked for
	packet   Packet
	made     []string
	madeBy   []uint16
	lastMade []byte
	asked    string // the last in line
	lastPort uint16
	lastTo   string
}

func newScript(t *testing.T, file string) *script {
	s := &script{t: t, file: file, rules: NewRules(), now: conntrack.Time(time.Hour), max: 1000, dirty: true}
	s.ports = []PortInfo{
		{Index: 0, Name: "outside", MTU: 1500, Up: true},
		{Index: 1, Name: "inside", MTU: 1500, Up: true, Addrs: []netip.Prefix{
			netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00:10::1/64"),
		}},
	}
	s.vars = map[string]string{}
	s.routes = []Route{
		{Dst: netip.MustParsePrefix("10.0.0.0/24"), Port: 1},
		{Dst: netip.MustParsePrefix("192.168.88.0/24"), Port: 0},
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.168.88.1"), Port: 0},
		{Dst: netip.MustParsePrefix("fd00:10::/64"), Port: 1},
		{Dst: netip.MustParsePrefix("2001:db8:88::/64"), Port: 0},
		{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::88:1"), Port: 0},
	}
	return s
}

func runScript(t *testing.T, file string) { runScriptOn(t, file, 1) }

// runScriptOn runs a script on several Forwarders.
func runScriptOn(t *testing.T, file string, n int) {
	s := newScript(t, file)
	s.size = n
	s.run()
}

func (s *script) run() {
	t, file := s.t, s.file
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
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
	for _, f := range s.crew {
		if err := f.Close(); err != nil {
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
		s.rules.SetRoutes(s.routes)
		s.rules.SetHost(s.host)
		s.rules.SetOwned(s.owned)
		s.rules.SetLocal(s.local)
		s.rules.Publish()
		s.dirty = false
	}
	if s.f == nil {
		s.size = max(s.size, 1)
		crew, err := NewForwarders(ForwarderConfig{Rules: s.rules, MaxConns: s.max * s.size, Seed: [2]uint64{1, 2}, Key: NewShardKey()}, s.size)
		if err != nil {
			s.fatal("%v", err)
		}
		s.f, s.crew = crew[0], crew
	}
	return s.f
}

// all are all Forwarders, of which forwarder is one.
func (s *script) all() crew {
	s.forwarder()
	return s.crew
}

func (s *script) step(word, rest string) {
	word, at, _ := strings.Cut(word, "@")
	w := strings.Fields(rest)
	switch word {
	case "service":
		s.must(s.rules.AddService(s.spec(w)))
	case "edit-service":
		s.must(s.rules.EditService(s.spec(w)))
	case "of":
		s.service = s.key(w[0], w[1])
	case "server":
		s.must(s.rules.AddServer(s.service, s.server(w)))
	case "edit-server":
		s.must(s.rules.EditServer(s.service, s.server(w)))
	case "delete-server":
		a := netip.MustParseAddrPort(w[0])
		s.must(s.rules.DelServer(s.service, a.Addr(), a.Port()))
	case "drain": // none, new or all
		a := netip.MustParseAddrPort(w[0])
		s.must(s.rules.SetDrain(s.service, a.Addr(), a.Port(), map[string]Drain{"none": NoDrain, "new": DrainNew, "all": DrainAll}[w[1]]))
	case "delete-service":
		s.must(s.rules.DelService(s.key(w[0], w[1])))
	case "mark":
		s.must(s.rules.AddMark(s.mark(w)))
	case "delete-mark":
		s.must(s.rules.DelMark(s.mark(w)))
	case "snat":
		spec := SNATSpec{From: netip.MustParsePrefix(w[0]), To: netip.MustParseAddr(w[1])}
		if len(w) > 2 {
			_, err := fmt.Sscanf(w[2], "%d-%d", &spec.MinPort, &spec.MaxPort)
			s.must(err)
		}
		s.must(s.rules.AddSNAT(spec))
	case "delete-snat":
		s.must(s.rules.DelSNAT(netip.MustParsePrefix(w[0])))
	case "tick":
		s.rules.Tick()
		s.dirty = true
	case "ours":
		var got []string
		for _, a := range s.rules.Ours() {
			got = append(got, a.Addr.String())
		}
		if !slices.Equal(got, w) {
			s.fatal("ours are %s", got)
		}
	case "host":
		s.host.Addrs = append(s.host.Addrs, netip.MustParseAddr(w[0]))
		s.host.EphemeralMin, s.host.EphemeralMax = 32768, 60999
		s.dirty = true
	case "busy":
		k := s.key(w[0], w[1])
		s.host.Busy = append(s.host.Busy, BusyEndpoint{k.Proto, k.Addr, k.Port})
		s.dirty = true
	case "own":
		s.owned = append(s.owned, netip.MustParsePrefix(w[0]))
		s.dirty = true
	case "local":
		s.local = append(s.local, netip.MustParsePrefix(w[0]))
		s.dirty = true
	case "held":
		s.rules.SetHeld([]netip.Addr{netip.MustParseAddr(w[0])})
		s.dirty = true
	case "fullnat":
		a := netip.MustParseAddrPort(w[0])
		s.must(s.rules.SetFullNAT(s.service, a.Addr(), a.Port(), w[1] == "on"))
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
	case "set":
		n, err := strconv.Atoi(w[1])
		s.must(err)
		s.set(w[0], n)
	case "icmp-rate":
		n, err := strconv.Atoi(w[0])
		s.must(err)
		settings := s.rules.Settings()
		settings.ICMPRate = n
		s.rules.SetSettings(settings)
		s.dirty = true
	case "link":
		i, _ := strconv.Atoi(w[0])
		s.ports[i].Up = w[1] == "up"
		s.dirty = true
	case "name":
		i, _ := strconv.Atoi(w[0])
		s.ports[i].Name = w[1]
		s.dirty = true
	case "route":
		i, _ := strconv.Atoi(w[1])
		r := Route{Dst: netip.MustParsePrefix(w[0]), Port: uint16(i)}
		for len(s.ports) <= i {
			s.ports = append(s.ports, PortInfo{Index: uint16(len(s.ports)), MTU: 1500, Up: true})
		}
		if len(w) > 2 {
			r.Gateway = netip.MustParseAddr(w[2])
		}
		s.routes = append(s.routes, r)
		s.dirty = true
	case "flood":
		s.settled("a flood")
		s.flood(w[0], w[1], strings.Join(w[2:], " "))
	case "answers":
		s.number(rest, s.flooded)
	case "services":
		stats := s.all().stats()
		key := s.key(w[0], w[1])
		for _, v := range s.rules.Services() {
			c := stats.Services[v.Slot]
			got := fmt.Sprintf("conns=%d in=%d/%d out=%d/%d", c.Conns, c.InPackets, c.InBytes, c.OutPackets, c.OutBytes)
			if v.ServiceKey == key && got != strings.Join(w[2:], " ") {
				s.fatal("%s", got)
			}
		}
	case "differ":
		if w = strings.Fields(s.expand(rest)); w[0] == w[1] {
			s.fatal("both are %s", w[0])
		}
	case "probe":
		f := s.forwarder()
		f.Begin(s.now)
		p, ok := f.NewProbe(netip.MustParseAddr(w[0]), netip.MustParseAddrPort(w[1]))
		if !ok {
			s.fatal("no probe")
		}
		s.probe = p
		s.crew.expectProbe(p)
		if !f.SendProbe(p) {
			s.fatal("the probe can't be sent")
		}
		s.vars["probe"], s.vars["ack"] = p.From.String(), fmt.Sprint(p.Seq+1)
		s.collect()
	case "probed":
		got := map[ProbeAnswer]string{ProbeSilent: "silent", ProbeAccepted: "accepted", ProbeRefused: "refused"}[s.all().probed(s.probe)]
		if got != w[0] {
			s.fatal("%s", got)
		}
	case "forget-probe":
		s.all().forgetProbe(s.probe)
	case "signals":
		a := netip.MustParseAddrPort(w[0])
		for _, v := range s.rules.Services() {
			for _, d := range v.Servers {
				if v.ServiceKey == s.service && d.Addr == a.Addr() && d.Port == a.Port() {
					g := s.all().signals()[d.Slot]
					took := uint64(0)
					for _, n := range g.Latency.Counts {
						took += n
					}
					got := fmt.Sprintf("asked=%d answered=%d refused=%d took=%d/%v", g.Asked, g.Answered, g.Refused, took, g.Latency.Sum)
					if got != strings.Join(w[1:], " ") {
						s.fatal("%s", got)
					}
				}
			}
		}
	case "entries":
		s.number(rest, s.all().stats().Conns)
	case "drops", "suppressed":
		stats := s.all().stats()
		for r := range NumReasons {
			if r.String() == w[0] {
				s.number(w[1], int(map[string]*[NumReasons]uint64{"drops": &stats.Drops, "suppressed": &stats.Suppressed}[word][r]))
			}
		}
	case "removed":
		for r, n := range s.all().stats().Removals {
			if conntrack.Removal(r).String() == w[0] {
				s.number(w[1], int(n))
			}
		}
	case "mapped":
		n := 0
		for _, m := range s.all().stats().Mappings {
			if m.Addr.Netip() == netip.MustParseAddr(w[0]) {
				n = m.Mappings
			}
		}
		s.number(w[1], n)
	case "in":
		s.settled("the next packet")
		if s.restart {
			s.handOver()
		}
		s.asked = fmt.Sprintf("%d: in %s", s.line, rest)
		s.arrive(at, rest)
	case "want":
		s.verdictIs(Forward, ReasonNone)
		got := decodePacket(s.packet.Data, s.packet.Offload) + s.lastTo
		if !agrees(s.bind(rest, got), got) {
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
		if !agrees(s.bind(rest, s.made[0]), s.made[0]) {
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
	case "unreachable", "unreachable-made":
		data := s.packet.Data
		if word == "unreachable-made" {
			data = s.lastMade
		}
		s.all().begin(s.now)
		p, _ := strconv.Atoi(at)
		s.crew[s.crew[len(s.crew)-1].Owner(data)].Unreachable(data, uint16(p))
		s.collect()
	case "refused":
		add := map[string]func(ServiceKey, ServerSpec) error{"server": s.rules.AddServer, "edit-server": s.rules.EditServer}[w[0]]
		if err := add(s.service, s.server(w[1:])); !errors.Is(err, ErrInvalid) {
			s.fatal("not refused: %v", err)
		}
	case "advance":
		s.settled("time")
		d, err := time.ParseDuration(rest)
		s.must(err)
		s.now = s.now.Add(d)
		s.all().begin(s.now)
		for _, f := range s.crew {
			for f.Sweep(1 << 20) {
			}
		}
		s.collect()
	default:
		s.fatal("no step is called %q", word)
	}
}
