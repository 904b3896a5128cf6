// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// What was deleted and is back takes its old place again, in listings and for the
// scheduler, and counters stay with what was not deleted.
func TestArrange(t *testing.T) {
	r := NewRules()
	service := func(i byte) ServiceKey {
		return ServiceKey{Proto: ProtoTCP, Addr: netip.AddrFrom4([4]byte{192, 0, 2, i}), Port: 80}
	}
	server := func(i byte) ServerSpec {
		return ServerSpec{Addr: netip.AddrFrom4([4]byte{10, 0, 0, i}), Port: 80, Weight: 1}
	}
	endpoint := func(i byte) netip.AddrPort { return netip.AddrPortFrom(server(i).Addr, 80) }
	snat := func(i byte) SNATSpec {
		return SNATSpec{From: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 24), To: netip.AddrFrom4([4]byte{192, 0, 2, 1})}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range byte(3) {
		ok(r.AddService(ServiceSpec{ServiceKey: service(i + 1), Scheduler: "rr"}))
		ok(r.AddSNAT(snat(i)))
		for j := range byte(3) {
			ok(r.AddServer(service(i+1), server(j+1)))
		}
	}
	order := func() string {
		var b strings.Builder
		for _, s := range r.Services() {
			fmt.Fprintf(&b, "%d:", s.Addr.As4()[3])
			for _, v := range s.Servers {
				fmt.Fprintf(&b, "%d", v.Addr.As4()[3])
			}
			b.WriteString(" rr ")
			for range s.Servers {
				fmt.Fprintf(&b, "%d", r.byKey[s.ServiceKey].pool.Schedule(nil).Addr.Addr().As4()[3])
			}
			b.WriteString("; ")
		}
		for _, s := range r.SNATs() {
			fmt.Fprint(&b, s.From.Addr().As4()[1])
		}
		return b.String()
	}
	const want = "1:321 rr 321; 2:321 rr 321; 3:321 rr 321; 012"
	if got := order(); got != want {
		t.Fatalf("at first %s", got)
	}
	serials := r.Services()

	ok(r.DelService(service(1)))
	ok(r.AddService(ServiceSpec{ServiceKey: service(1), Scheduler: "rr"}))
	for _, j := range []byte{2, 3, 1} {
		ok(r.AddServer(service(1), server(j)))
	}
	ok(r.DelServer(service(2), server(2).Addr, 80))
	ok(r.AddServer(service(2), server(2)))
	ok(r.DelSNAT(snat(1).From))
	ok(r.AddSNAT(snat(1)))
	if got := order(); got != "2:231 rr 231; 3:321 rr 321; 1:132 rr 132; 021" {
		t.Fatalf("after deleting and adding %s", got)
	}

	var services []ServiceKey
	var servers [][]netip.AddrPort
	for i := range byte(3) {
		services = append(services, service(i+1))
		servers = append(servers, []netip.AddrPort{endpoint(1), endpoint(2), endpoint(3)})
	}
	r.Arrange(append(services, service(9)), append(servers, nil), []netip.Prefix{snat(0).From, snat(1).From, snat(2).From})
	if got := order(); got != want {
		t.Errorf("arranged %s", got)
	}
	for i, s := range r.Services()[1:] {
		if s.Serial != serials[i+1].Serial || s.Servers[0].Serial != serials[i+1].Servers[0].Serial {
			t.Errorf("%s is counted anew", s.Addr)
		}
	}
}
