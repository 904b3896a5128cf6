// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/conntrack"
)

// TestClientCounts compares the counts with a map, through more clients than there
// are buckets.
func TestClientCounts(t *testing.T) {
	const maxRows = 300
	k := clientCounts{seed: 7, maxRows: maxRows}
	if k.bytes() != 0 || k.full(&conntrack.Addr{}) {
		t.Error("it costs something although there is no limit")
	}
	k.setLimit(3)
	r := rand.New(rand.NewPCG(1, 2))
	want := map[conntrack.Addr]int{}
	var open []conntrack.Conn
	for step := range 50_000 {
		a := conntrack.AddrFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(200))}))
		if got := k.full(&a); got != (want[a] >= 3) {
			t.Fatalf("step %d: full %v with %d", step, got, want[a])
		}
		switch {
		case r.IntN(2) == 0 && len(open) < maxRows && !k.full(&a):
			c := conntrack.Conn{Client: conntrack.Endpoint{Addr: a}}
			k.add(&c)
			open = append(open, c)
			want[a]++
		case len(open) > 0:
			i := r.IntN(len(open))
			k.drop(&open[i])
			want[open[i].Client.Addr]--
			open[i] = open[len(open)-1]
			open = open[:len(open)-1]
		}
	}
	for i := range open {
		k.drop(&open[i])
	}
	for b, i := range k.heads {
		if i != 0 {
			t.Fatalf("bucket %d is not empty", b)
		}
	}
}

// TestClientOfIPv6: a host of IPv6 is its network of 64 bits, one of IPv4 its
// address.
func TestClientOfIPv6(t *testing.T) {
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"192.0.2.1", "192.0.2.2", false},
	} {
		a, b := clientOf(conntrack.AddrFrom(netip.MustParseAddr(row.a))), clientOf(conntrack.AddrFrom(netip.MustParseAddr(row.b)))
		if (a == b) != row.same {
			t.Errorf("%s and %s: one client %v", row.a, row.b, a == b)
		}
	}
}

// TestNoAllocsClientLimit: a new connection under a limit allocates nothing, nor does
// one that is refused; the memory is known.
func TestNoAllocsClientLimit(t *testing.T) {
	s := world(t)
	defer s.f.Close()
	before := s.f.bytes()
	s.set("client_limit", 40)
	s.forwarder().Begin(s.now)
	if grown := s.f.bytes() - before; grown < 24*int64(s.max) || grown > 40*int64(s.max) {
		t.Errorf("%d bytes for %d connections", grown, s.max)
	}
	var packets [101]Packet
	for i := range packets {
		b, _ := encodePacket(fmt.Sprintf("udp 192.168.88.77:%d > 192.168.88.23:53 data=1", 1000+i))
		packets[i] = Packet{Data: b}
	}
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		s.f.Begin(s.now)
		s.f.Forward(&packets[i])
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if refused := s.f.Stats().Drops[ReasonClientLimit]; refused != 61 {
		t.Errorf("%d of 101 refused with a limit of 40", refused)
	}
}
