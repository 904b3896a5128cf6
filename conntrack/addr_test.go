// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestAddr(t *testing.T) {
	for _, row := range []struct {
		in, out string
		is4     bool
	}{
		{"192.0.2.7", "192.0.2.7", true},
		{"0.0.0.0", "0.0.0.0", true},
		{"::ffff:192.0.2.7", "192.0.2.7", true},
		{"2001:db8::7", "2001:db8::7", false},
		{"fe80::1%eth0", "fe80::1", false},
		{"::", "::", false},
		{"::192.0.2.7", "::c000:207", false},
	} {
		a := AddrFrom(netip.MustParseAddr(row.in))
		if a.String() != row.out || a.Is4() != row.is4 {
			t.Errorf("%s: %s, IPv4 %v", row.in, a, a.Is4())
		}
		if row.is4 && a != AddrFrom4(a.Netip().As4()) {
			t.Errorf("%s: AddrFrom and AddrFrom4 differ", row.in)
		}
	}
	if AddrFrom(netip.Addr{}) != (Addr{}) {
		t.Error("an invalid address is not zero")
	}
	ap := netip.MustParseAddrPort("[2001:db8::7]:443")
	if got := EndpointFrom(ap).AddrPort(); got != ap {
		t.Errorf("%s came back as %s", ap, got)
	}
}

// TestNotation: these texts stand in traces, listings and metrics.
func TestNotation(t *testing.T) {
	c := dnat(client, virtual, server, local)
	c.State = Established
	for _, row := range []struct {
		value fmt.Stringer
		want  string
	}{
		{tuple(client, virtual), "tcp 192.168.88.21:40000 > 192.168.88.23:80"},
		{Tuple{ep("[2001:db8::7]:9"), ep("[::1]:0"), 58}, "icmp6 [2001:db8::7]:9 > [::1]:0"},
		{Tuple{ep(client), ep(server), 132}, "sctp 192.168.88.21:40000 > 10.0.0.2:80"},
		{Tuple{ep(client), ep(server), 47}, "proto47 192.168.88.21:40000 > 10.0.0.2:80"},
		{&c, "ESTABLISHED tcp c:192.168.88.21:40000 v:192.168.88.23:80 d:10.0.0.2:80 l:10.0.0.1:20000"},
		{LinkAddr{2, 0, 0, 0, 0, 7}, "02:00:00:00:00:07"},
		{Inbound, "in"}, {Outbound, "out"}, {InboundOnly, "in"},
		{ClassHalfOpen, "half-open"}, {ClassOneWay, "one-way"}, {ClassHeld, "held"}, {Class(9), "?"},
		{Expired, "expired"}, {EvictedHalfOpen, "evicted-half-open"}, {EvictedOneWay, "evicted-one-way"}, {Deleted, "deleted"},
		{ServerGone, "server-gone"}, {Thinned, "thinned"}, {Removal(NumRemovals), "?"},
		{Inserted, "inserted"}, {Exists, "exists"}, {Clash, "clash"}, {Full, "full"}, {Insertion(9), "?"},
		{Unknown, "unknown"}, {Exact, "exact"}, {Inside, "inside"}, {Outside, "outside"},
	} {
		if got := row.value.String(); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}
