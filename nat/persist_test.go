// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// TestPersistenceSpecs: what is refused leaves everything as it was.
func TestPersistenceSpecs(t *testing.T) {
	v4 := netip.MustParseAddr("192.168.88.23")
	mask := func(s string) conntrack.Addr { return conntrack.AddrFrom(netip.MustParseAddr(s)) }
	tcp := func(port uint16) ServiceKey { return ServiceKey{Proto: ProtoTCP, Addr: v4, Port: port} }
	for _, row := range []struct {
		what string
		spec ServiceSpec
		good bool
	}{
		{"a minute", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Timeout: time.Minute}}, true},
		{"31 days", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Timeout: 2678400 * time.Second}}, true},
		{"a network", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{time.Minute, mask("255.255.255.0")}}, true},
		{"everybody", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{time.Minute, mask("0.0.0.0")}}, true},
		{"a mask alone", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Mask: mask("255.255.255.0")}}, true},
		{"all ports", ServiceSpec{ServiceKey: tcp(0), Persistence: Persistence{Timeout: time.Minute}}, true},
		{"a mark", ServiceSpec{ServiceKey: markKey(1, true), Persistence: Persistence{Timeout: time.Minute}, OnePacket: true}, true},
		{"one packet", ServiceSpec{ServiceKey: ServiceKey{Proto: ProtoUDP, Addr: v4, Port: 53}, OnePacket: true}, true},
		{"all ports of UDP", ServiceSpec{ServiceKey: ServiceKey{Proto: ProtoUDP, Addr: v4}, OnePacket: true, Persistence: Persistence{Timeout: time.Minute}}, true},
		{"a second too long", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Timeout: 2678401 * time.Second}}, false},
		{"below zero", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Timeout: -time.Second}}, false},
		{"half a second", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{Timeout: 500 * time.Millisecond}}, false},
		{"a mask of IPv6", ServiceSpec{ServiceKey: tcp(80), Persistence: Persistence{time.Minute, mask("ffff::")}}, false},
		{"a mask of IPv4", ServiceSpec{ServiceKey: ServiceKey{Proto: ProtoTCP, Addr: netip.MustParseAddr("2001:db8::1"), Port: 80},
			Persistence: Persistence{time.Minute, mask("255.255.255.0")}}, false},
		{"all ports, not persistent", ServiceSpec{ServiceKey: tcp(0)}, false},
		{"one packet of TCP", ServiceSpec{ServiceKey: tcp(80), OnePacket: true}, false},
		{"a mark, half a second", ServiceSpec{ServiceKey: markKey(1, true), Persistence: Persistence{Timeout: 1}}, false},
	} {
		r := NewRules()
		row.spec.Scheduler = "rr"
		err := r.AddService(row.spec)
		if (err == nil) != row.good || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", row.what, err)
		}
		if got := len(r.Services()); got != 0 != row.good {
			t.Errorf("%s: %d services", row.what, got)
		}
	}

	r := NewRules()
	all := ServiceSpec{ServiceKey: tcp(0), Scheduler: "rr", Persistence: Persistence{Timeout: time.Minute}}
	if err := r.AddService(all); err != nil {
		t.Fatal(err)
	}
	none := all
	none.Persistence = Persistence{}
	if err := r.EditService(none); !errors.Is(err, ErrInvalid) || r.Services()[0].Persistence.Timeout != time.Minute {
		t.Errorf("persistence taken from a service of all ports: %v", err)
	}
}

// TestPersistenceMask: the rest of the address counts, in its own family.
func TestPersistenceMask(t *testing.T) {
	for _, row := range []struct{ mask, client, want string }{
		{"", "192.168.88.21", "192.168.88.21"},
		{"255.255.255.255", "192.168.88.21", "192.168.88.21"},
		{"255.255.0.0", "192.168.88.21", "192.168.0.0"},
		{"0.0.0.0", "192.168.88.21", "0.0.0.0"},
		{"0.0.0.255", "192.168.88.21", "0.0.0.21"}, // IPVS takes any
		{"", "2001:db8::21", "2001:db8::21"},
		{"ffff:ffff::", "2001:db8:1::21", "2001:db8::"},
	} {
		client := conntrack.AddrFrom(netip.MustParseAddr(row.client))
		p := Persistence{Timeout: time.Minute}
		if row.mask != "" {
			p.Mask = conntrack.AddrFrom(netip.MustParseAddr(row.mask))
		}
		q := newPersistence(p, client.Is4())
		if got := q.of(client); got.String() != row.want || got.Is4() != client.Is4() {
			t.Errorf("%s under %q: %s, want %s", row.client, row.mask, got, row.want)
		}
	}
}

// TestTemplateKeepsServer: a deleted server is remembered as long as a template
// refers to it, like one with connections.
func TestTemplateKeepsServer(t *testing.T) {
	s := newScript(t, "template")
	s.step("service", "tcp 192.168.88.23:80 sched rr persistent 3600s")
	s.step("server", "10.0.0.2:80")
	s.arrive("", "tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq=1")
	s.verdict = nil
	s.step("advance", "61s") // the connection is over
	if v := s.rules.Services()[0].Servers[0]; v.Persistent != 1 || v.Active+v.Inactive != 0 {
		t.Fatalf("%+v", v)
	}
	s.step("delete-server", "10.0.0.2:80")
	s.forwarder().Begin(s.now)
	for range 2 * trashTicks {
		s.rules.Tick()
	}
	if len(s.rules.trash) != 1 {
		t.Fatal("the server of a template was forgotten")
	}
	s.step("advance", "3600s")
	for range trashTicks {
		s.rules.Tick()
	}
	if len(s.rules.trash) != 0 || s.f.Stats().Conns != 0 {
		t.Errorf("%d servers and %d entries are left", len(s.rules.trash), s.f.Stats().Conns)
	}
}

// TestTemplateListed: with what a listing tells from connections by.
func TestTemplateListed(t *testing.T) {
	s := newScript(t, "listed")
	s.step("service", "mark 1 sched rr persistent 60s")
	s.step("server", "10.0.0.2:0")
	s.step("mark", "1 tcp to 192.168.88.23/32")
	s.arrive("", "tcp 192.168.88.21:40000 > 192.168.88.23:80 S seq=1")
	s.verdict = nil
	list := s.f.Conns(ConnQuery{}).Conns
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	tpl, c := list[0], list[1]
	if !tpl.Template || tpl.Proto != 0 || tpl.State != conntrack.None || tpl.Expires != time.Minute || c.Template || c.Proto != ProtoTCP {
		t.Errorf("%+v\n%+v", tpl, c)
	}
	if n := len(s.f.Conns(ConnQuery{Proto: ProtoTCP}).Conns); n != 1 {
		t.Errorf("%d entries of TCP", n)
	}
	if n := len(s.f.Conns(ConnQuery{Client: netip.MustParsePrefix("192.168.88.21/32"), SNAT: SelectServices}).Conns); n != 2 {
		t.Errorf("%d entries of the client", n)
	}
}

// TestAnswersOutliveServer: an entry that leads answers back refers to no server, so
// that one which is deleted and forgotten may still answer.
func TestAnswersOutliveServer(t *testing.T) {
	s := newScript(t, "answers")
	for _, line := range []string{
		"service udp 192.168.88.23:53 sched rr one-packet", "server 10.0.0.2:53",
		"service udp 192.168.88.24:53 sched rr one-packet", "server 10.0.0.2:53",
	} {
		word, rest, _ := strings.Cut(line, " ")
		s.step(word, rest)
	}
	s.arrive("", "udp 192.168.88.21:40000 > 192.168.88.23:53 data=1")
	s.verdictIs(Forward, ReasonNone)
	s.step("delete-service", "udp 192.168.88.23:53")
	s.step("delete-service", "udp 192.168.88.24:53")
	for range trashTicks {
		s.rules.Tick()
	}
	if len(s.rules.trash) != 0 {
		t.Fatalf("%d servers are remembered", len(s.rules.trash))
	}
	s.step("own", "192.168.88.23/32")
	s.arrive("", "udp 10.0.0.2:53 > 192.168.88.21:40000 data=2")
	s.verdictIs(Forward, ReasonNone)
	if got := decodePacket(s.packet.Data, s.packet.Offload); !strings.HasPrefix(got, "udp 192.168.88.23:53 > 192.168.88.21:40000") {
		t.Error(got)
	}
	s.step("advance", "301s")
	if n := s.f.Stats().Conns; n != 0 {
		t.Errorf("%d entries are left", n)
	}
}
