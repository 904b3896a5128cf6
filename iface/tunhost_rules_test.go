// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestPortRanges(t *testing.T) {
	for _, c := range []struct {
		min, max uint16
		except   []uint16
		want     string
	}{
		{1024, 65535, nil, "1024-65535"},
		{0, 0, nil, ""},
		{0, 10, []uint16{0, 5}, "1-4 6-10"},
		{10, 20, []uint16{10, 20}, "11-19"},
		{10, 20, []uint16{14, 15}, "10-13 16-20"},
		{10, 10, []uint16{10}, ""},
		{65534, 65535, []uint16{65535}, "65534-65534"},
	} {
		var got []string
		for _, r := range portRanges(GuardPorts{Min: c.min, Max: c.max, Except: c.except}) {
			got = append(got, fmt.Sprintf("%d-%d", r.Start, r.End))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%d to %d without %v: %s, want %s", c.min, c.max, c.except, s, c.want)
		}
	}
}

func TestTUNHostRefusesIPv6(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::1")
	for _, rules := range []GuardRules{
		{Owned: []netip.Addr{six}},
		{Services: []GuardService{{6, six, 80}}},
		{Servers: []GuardService{{6, six, 80}}},
		{Inside: []netip.Prefix{netip.PrefixFrom(six, 64)}},
		{SNAT: []GuardPorts{{six, 1, 2, nil}}},
	} {
		if err := onlyIPv4(rules); err == nil || !strings.Contains(err.Error(), "hint:") {
			t.Errorf("%+v: %v", rules, err)
		}
	}
	if err := onlyIPv4(GuardRules{Host: []netip.Addr{six}}); err != nil {
		t.Errorf("an address of the host: %v", err)
	}
}
