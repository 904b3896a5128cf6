// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChooseGuardTakesTheFirstThatWorks(t *testing.T) {
	var told string
	refuse := func(why string) func(string) (Guard, error) {
		return func(string) (Guard, error) { return nil, errors.New(why + "\nhint: a hint") }
	}
	take := func(why string) (Guard, error) { told = why; return &noGuard{}, nil }

	g, err := chooseGuard([]guardChoice{{"a", refuse("no a")}, {"b", refuse("no b")}, {"c", take}, {"d", refuse("not asked")}})
	if err != nil || g.Method() != GuardNone || told != "a: no a; b: no b" {
		t.Errorf("chose %v, %v, told %q", g, err, told)
	}
	_, err = chooseGuard([]guardChoice{{"a", refuse("no a")}, {"b", refuse("no b")}})
	if err == nil {
		t.Fatal("chose from nothing")
	}
	for _, want := range []string{"a: no a; b: no b", "hint:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestGuardRulesNormalForm(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	one := GuardRules{
		Links:    []string{"b", "a", "b"},
		Owned:    []netip.Addr{addr("192.0.2.2"), addr("::ffff:192.0.2.1"), addr("192.0.2.1")},
		Services: []GuardService{{unix.IPPROTO_UDP, addr("192.0.2.1"), 53}, {unix.IPPROTO_TCP, addr("192.0.2.1"), 80}},
		Inside:   []netip.Prefix{prefix("10.0.0.7/24"), prefix("::ffff:10.0.0.0/120")},
		SNAT:     []GuardPorts{{addr("192.0.2.1"), 10, 20, []uint16{15, 21, 12, 15}}},
		Host:     []netip.Addr{},
	}
	other := GuardRules{
		Links:    []string{"a", "b"},
		Owned:    []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")},
		Services: []GuardService{{unix.IPPROTO_TCP, addr("192.0.2.1"), 80}, {unix.IPPROTO_UDP, addr("::ffff:192.0.2.1"), 53}},
		Inside:   []netip.Prefix{prefix("10.0.0.0/24")},
		SNAT:     []GuardPorts{{addr("192.0.2.1"), 10, 20, []uint16{12, 15}}},
	}
	if !one.Equal(other) || !other.Equal(one) {
		a, _ := one.Normal()
		b, _ := other.Normal()
		t.Errorf("not equal:\n%+v\n%+v", a, b)
	}
	if one.Links[0] != "b" || one.SNAT[0].Except[0] != 15 {
		t.Error("the rules given were changed")
	}
	for what, change := range map[string]func(*GuardRules){
		"link":    func(r *GuardRules) { r.Links = r.Links[:1] },
		"port":    func(r *GuardRules) { r.Services[0].Port = 81 },
		"proto":   func(r *GuardRules) { r.Services[0].Proto = unix.IPPROTO_SCTP },
		"prefix":  func(r *GuardRules) { r.Inside[0] = prefix("10.0.0.0/25") },
		"range":   func(r *GuardRules) { r.SNAT[0].Max = 19 },
		"except":  func(r *GuardRules) { r.SNAT[0].Except = []uint16{12} },
		"host":    func(r *GuardRules) { r.Host = []netip.Addr{addr("192.0.2.1")} },
		"server":  func(r *GuardRules) { r.Servers = r.Services },
		"invalid": func(r *GuardRules) { r.Owned = append(r.Owned, netip.Addr{}) },
	} {
		changed, _ := other.Normal()
		change(&changed)
		if changed.Equal(other) {
			t.Errorf("equal although the %s differs", what)
		}
	}
}

func TestGuardRulesRefused(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	for what, rules := range map[string]GuardRules{
		"protocol without ports":   {Services: []GuardService{{unix.IPPROTO_ICMP, addr, 0}}},
		"service without address":  {Services: []GuardService{{unix.IPPROTO_TCP, netip.Addr{}, 80}}},
		"server without address":   {Servers: []GuardService{{unix.IPPROTO_TCP, netip.Addr{}, 80}}},
		"invalid host address":     {Host: make([]netip.Addr, 1)},
		"invalid inside network":   {Inside: make([]netip.Prefix, 1)},
		"ports in the wrong order": {SNAT: []GuardPorts{{addr, 2, 1, nil}}},
	} {
		if _, err := rules.Normal(); err == nil {
			t.Errorf("%s: accepted", what)
		}
		for _, g := range []Guard{&noGuard{}, &socketGuard{}, &nftGuard{}} {
			if err := g.Apply(rules); err == nil {
				t.Errorf("%s: applied by %s", what, g.Method())
			}
		}
	}
}

func TestProcEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"010200C0:0050":                         "192.0.2.1:80",
		"00000000:1F90":                         "0.0.0.0:8080",
		"B80D0120000000000000000001000000:0016": "[2001:db8::1]:22",
	} {
		if got, ok := parseProcEndpoint(text); !ok || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "01:", "zz:0050", "010200C0", "010200:0050", "010200C0:10000"} {
		if got, ok := parseProcEndpoint(text); ok {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}
