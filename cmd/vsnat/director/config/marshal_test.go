// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/cmd/vsnat/director/control/controltest"
	"github.com/vsnat/vsnat/sched"
)

// Whatever parses is written so that it parses to the same again, and a
// second writing is the same text.
func FuzzParse(f *testing.F) {
	f.Add(Minimal())
	f.Add(Reference())
	f.Add("services: [{tcp: '[2001:db8::1]:80', servers: ['fd00::2']}]")
	f.Add("interfaces: [\"a\\\"b\", 'null', ~x, \"\\u00e9\"]") // names that need quotes
	f.Add("control: {group: 'null', mode: 0660}")
	f.Add("a: [1, 2\nb: 3\n")
	f.Add("? x\n: y\n")
	f.Add("x: &a [*a, *a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x", []byte(text))
		if err != nil {
			return
		}
		same(t, c)
	})
}

func same(t *testing.T, c *Config) {
	t.Helper()
	text := Marshal(c)
	again, err := Parse("canonical", text)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	if !reflect.DeepEqual(c, again) {
		t.Fatalf("got %+v\nwant %+v\nfrom\n%s", again, c, text)
	}
	if second := Marshal(again); string(second) != string(text) {
		t.Fatalf("written again:\n%s\nfirst:\n%s", second, text)
	}
}

// Random configurations, each field often at its default and often not.
func TestMarshalRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		same(t, randomConfig(r))
	}
}

// The steps of a Diff, made one after the other on a director that refuses
// what is there already or not there, lead from one configuration to another.
func TestDiffLeadsThere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		from, to := randomConfig(r), randomConfig(r)
		if r.IntN(2) == 0 {
			to = randomEdit(r, from)
		}
		d := &controltest.Director{}
		apply(t, d, Diff(Default(), from))
		apply(t, d, Diff(from, to))
		want := &controltest.Director{}
		apply(t, want, Diff(Default(), to))
		if got, want := state(t, d), state(t, want); !reflect.DeepEqual(got, want) {
			t.Fatalf("from\n%s\nto\n%s\ngot  %v\nwant %v", Marshal(from), Marshal(to), got, want)
		}
	}
}

func apply(t *testing.T, d control.Director, changes []Change) {
	t.Helper()
	for _, change := range changes {
		if change.Object == ObjectSetting {
			continue
		}
		if change.Op == Edit && change.detail == "" {
			t.Fatalf("%s changes nothing", change)
		}
		if err := change.Apply(t.Context(), d); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
	}
}

// state is all that a director has, without order.
func state(t *testing.T, d control.Director) map[any]any {
	t.Helper()
	services, err1 := d.Services(t.Context())
	rules, err2 := d.SNAT(t.Context())
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	type server struct {
		control.ServiceKey
		netip.AddrPort
	}
	m := make(map[any]any)
	for _, s := range services {
		m[s.ServiceKey] = s.ServiceSpec
		for _, r := range s.Servers {
			m[server{s.ServiceKey, r.Address}] = r
		}
	}
	for _, r := range rules {
		m[r.From] = r
	}
	return m
}

func TestDiff(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	from := parse(`
timeouts: {udp: 10}
settings: {sloppy_tcp: 1}
services:
  - {tcp: 192.0.2.1:80, scheduler: rr, servers: [10.0.0.2, 10.0.0.3, 10.0.0.4]}
  - {tcp: 192.0.2.2:80, servers: [10.0.0.2]}
  - {tcp: 192.0.2.3:80, servers: [10.0.0.2]}
snat:
  - {from: 10.0.0.0/24, to: 192.0.2.1}
  - {from: 10.0.1.0/24, to: 192.0.2.1}
marks:
  - {mark: 1, proto: tcp}
  - {mark: 2, proto: udp}
  - {mark: 3, proto: sctp}
`)
	to := parse(`
max-conns: 7
services:
  - {tcp: 192.0.2.3:80, servers: [10.0.0.2]}
  - {udp: 192.0.2.2:80, servers: [10.0.0.2]}
  - {tcp: 192.0.2.1:80, scheduler: lc, servers: [10.0.0.5, {address: 10.0.0.3, weight: 3}, 10.0.0.2]}
snat:
  - {from: 10.0.1.0/24, to: 192.0.2.1}
  - {from: 10.0.0.0/24, to: 192.0.2.1, ports: 5000-6000}
marks:
  - {mark: 1, proto: tcp}
  - {mark: 3, proto: sctp}
  - {mark: 4}
`)
	want := []string{
		"edit setting max-conns",
		"edit setting timeouts",
		"edit setting settings: sloppy_tcp 1 to 0",
		"delete snat 10.0.0.0/24 to 192.0.2.1",
		"delete service tcp 192.0.2.2:80",
		"delete mark 2 udp",
		"delete mark 3 sctp",
		"add mark 3 sctp",
		"add mark 4",
		"add service udp 192.0.2.2:80",
		"add server 10.0.0.2:80 of udp 192.0.2.2:80",
		"edit service tcp 192.0.2.1:80: scheduler rr to lc",
		"delete server 10.0.0.4:80 of tcp 192.0.2.1:80",
		"add server 10.0.0.5:80 of tcp 192.0.2.1:80",
		"edit server 10.0.0.3:80 of tcp 192.0.2.1:80: weight 1 to 3",
		"add snat 10.0.0.0/24 to 192.0.2.1",
	}
	var got []string
	for _, change := range Diff(from, to) {
		got = append(got, change.String())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if list := Diff(to, to); list != nil {
		t.Errorf("a configuration differs from itself: %v", list)
	}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomConfig(r *rand.Rand) *Config {
	c := Default()
	some := func() bool { return r.IntN(3) == 0 }
	if some() {
		c.Interfaces = []string{pick(r, "eth0", "null", "010", "Ünï", "a b"[:1], "eth*", `q"x`)}
	}
	c.IO, c.Guard = pick(r, IOPacket, IOTUN), pick(r, GuardAuto, GuardNFT, GuardSocket, GuardNone)
	if some() {
		c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix(pick(r, "fd00::1/64", "10.9.9.9/32"))}
	}
	if some() {
		c.Routes = []Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.0.9")},
			{Destination: netip.MustParsePrefix("fd00:1::/32"), Interface: "eth1"}}
	}
	if some() {
		c.MaxConns, c.ICMPRate = 1+r.IntN(MaxMaxConns), r.IntN(1_000_000)
	}
	if some() {
		c.Control = Control{Socket: pick(r, "", "/run/x y/ü.sock"), Mode: pick[fs.FileMode](r, 0o600, 0o660), Group: pick(r, "", "adm", "null", "~", "12")}
	}
	c.Log = Log{Level: pick(r, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError), Format: pick(r, LogText, LogJSON)}
	if some() {
		c.Timeouts.UDP = control.Duration(time.Duration(1+r.IntN(2_678_400)) * time.Second)
		c.Timeouts.SynAck = control.Duration(time.Minute)
		c.Timeouts.SCTPShutdownAckSent = control.Duration(time.Duration(1+r.IntN(100)) * time.Second)
	}
	c.Compat = pick(r, CompatNone, CompatIPVS)
	for _, s := range settings {
		if some() {
			c.set(s.name, strconv.Itoa(s.lowest+r.IntN(s.highest-s.lowest+1)))
		}
	}
	for i := range r.IntN(4) {
		c.Services = append(c.Services, randomService(r, i))
	}
	for i := range r.IntN(3) {
		rule := control.SNATSpec{From: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), To: netip.MustParseAddr("192.0.2.1")}
		if some() {
			rule.MinPort, rule.MaxPort = 1024, uint16(1024+r.IntN(60000))
		}
		c.SNAT = append(c.SNAT, rule)
	}
	for i := range r.IntN(3) {
		m := control.MarkSpec{Mark: uint32(1 + i), Proto: pick(r, "", control.TCP, control.SCTP), Interface: pick(r, "", "eth0")}
		if some() {
			m.From, m.To = netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/32", i))
		}
		if m.MaxPort = uint16(i); i > 0 {
			m.MinPort = 1
		}
		c.Marks = append(c.Marks, m)
	}
	// A rule that matches the same as one before it is a mistake.
	c.Marks = slices.CompactFunc(c.Marks, func(a, b control.MarkSpec) bool { a.Mark = b.Mark; return a == b })
	return c
}

func randomService(r *rand.Rand, i int) Service {
	s := Service{ServiceSpec: control.ServiceSpec{
		ServiceKey: control.ServiceKey{Proto: pick(r, protocols...)},
		Scheduler:  pick(r, sched.Names()...), NoServer: control.NoServerICMP,
		Helper:       control.HelperNone,
		OnServerDown: pick(r, control.ServerDownKeep, control.ServerDownReset, control.ServerDownRepick),
		Idle:         pick(r, 0, control.Duration(time.Minute)),
	}}
	s.SchedFlags = sched.Flags(r.IntN(8)).Format(s.Scheduler)
	s.Passive = pick(r, control.PassiveOn, control.PassiveOff)
	if s.ByMark() {
		s.Passive = control.PassiveOff
		s.Mark = uint32(1 + i)
	} else {
		s.Address = netip.MustParseAddrPort(fmt.Sprintf(pick(r, "192.0.2.%d:80", "[2001:db8::%d]:80"), 1+i))
	}
	if r.IntN(2) == 0 {
		mask := netip.MustParseAddr(pick(r, "255.255.255.0", "255.0.255.0", "0.0.0.0", "255.255.255.255"))
		if !s.IPv4() {
			mask = netip.PrefixFrom(netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 1+r.IntN(128)).Masked().Addr()
		}
		s.Persistence = control.Persistence{Timeout: control.Duration(time.Duration(1+r.IntN(2_678_400)) * time.Second), Mask: control.MaskText(mask)}
		if !s.ByMark() && r.IntN(3) == 0 {
			s.Address, s.Passive = netip.AddrPortFrom(s.Address.Addr(), 0), control.PassiveOff
		}
	}
	if s.Proto == control.UDP || s.ByMark() {
		s.OnePacket = r.IntN(2) == 0
	}
	if s.Proto != control.UDP {
		s.NoServer = pick(r, control.NoServerICMP, control.NoServerReset)
	}
	if s.Proto == control.TCP || s.ByMark() {
		s.Helper = pick(r, control.HelperNone, control.HelperFTP)
	}
	form := "10.0.0.10%d:8080"
	if !s.IPv4() {
		form = "[fd00::10%d]:8080"
	}
	for j := range r.IntN(4) {
		server := control.ServerSpec{Address: netip.MustParseAddrPort(fmt.Sprintf(form, 1+j)), Weight: pick(r, 0, 1, 65535), Method: control.MethodNAT}
		switch r.IntN(4) {
		case 0:
			server.Upper = r.IntN(100)
			server.Lower = server.Upper / 2
			server.NAT = pick(r, "", control.NATFull, control.NATAuto)
		case 1:
			server.Method = pick(r, control.MethodRoute, control.MethodTunnel)
			server.Address = netip.AddrPortFrom(server.Address.Addr(), s.Address.Port())
			if server.Method == control.MethodTunnel {
				server.Tunnel = pick(r, control.Tunnel{}, control.Tunnel{Type: control.TunnelGRE},
					control.Tunnel{Type: control.TunnelGRE, Checksum: control.ChecksumAll},
					control.Tunnel{Type: control.TunnelGUE, Port: 6080, Checksum: control.ChecksumRemote})
			}
		}
		s.Servers = append(s.Servers, server)
	}
	return s
}

// randomEdit is a configuration with a little changed.
func randomEdit(r *rand.Rand, from *Config) *Config {
	to := *from
	to.Services = nil
	for _, s := range from.Services {
		s.Servers = append([]control.ServerSpec(nil), s.Servers...)
		switch r.IntN(4) {
		case 0:
			continue
		case 1:
			s.Scheduler = pick(r, sched.Names()...)
		case 2:
			if len(s.Servers) > 0 {
				s.Servers[r.IntN(len(s.Servers))].Weight = 7
			}
		case 3:
			if len(s.Servers) > 0 {
				s.Servers = s.Servers[1:]
			}
		}
		to.Services = append(to.Services, s)
	}
	r.Shuffle(len(to.Services), func(i, j int) { to.Services[i], to.Services[j] = to.Services[j], to.Services[i] })
	return &to
}
