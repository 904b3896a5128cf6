// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// What is asked of a director is asked of all of its workers: each connection is listed
// once whatever the pages, each is counted, and the table is divided to the last entry.
func TestWorkersAsOne(t *testing.T) {
	d, _ := startDirector(t, "workers: 3\n"+small)
	const clients = 90
	for i := range clients {
		// Wherever it arrives: the Forwarder says whose it is.
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 4000)
		p := nat.Packet{Data: packet(client, netip.AddrPortFrom(vip, 80), "S"), From: clientMAC}
		v := nat.Verdict{Action: nat.Elsewhere, Shard: uint8(i % 3)}
		for v.Action == nat.Elsewhere {
			s := d.shards[v.Shard]
			p.Hops = v.Hops
			s.Do(func() {
				s.Forwarder().Begin(s.Now())
				v = s.Forwarder().Forward(&p)
			})
		}
	}
	s, err := d.Stats(t.Context())
	must(t, err)
	if s.Conns.Len != clients || s.Conns.Cap != 1000 || s.Total.Conns != clients || len(s.Shards) != 3 {
		t.Errorf("%+v, total %+v, shards %+v", s.Conns, s.Total, s.Shards)
	}
	for _, w := range s.Shards {
		if w.Conns < clients/6 {
			t.Errorf("the workers' connections: %+v", s.Shards)
		}
	}
	for _, limit := range []int{1, 7, 1000} {
		seen := make(map[netip.AddrPort]bool)
		for q := (control.ConnQuery{Limit: limit}); ; {
			page, err := d.Conns(t.Context(), q)
			must(t, err)
			for _, c := range page.Conns {
				if seen[c.Client] {
					t.Errorf("%v is listed twice", c.Client)
				}
				seen[c.Client] = true
			}
			if q.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		if len(seen) != clients {
			t.Errorf("%d connections listed in pages of %d", len(seen), limit)
		}
	}
}

// Rules that workers can't be told of are refused, with what to do, and change nothing.
func TestWorkersRefuse(t *testing.T) {
	d, _ := startDirector(t, "workers: 2\n"+small)
	network, inside := netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("10.0.0.0/24")
	mark := control.MarkSpec{Mark: 1, To: network, From: netip.MustParsePrefix("0.0.0.0/0")}
	snat := control.SNATSpec{From: inside, To: vip}
	refuses := func(what string, err error) {
		t.Helper()
		var refusal *control.Error
		if !errors.As(err, &refusal) || refusal.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	_ = d.DeleteSNAT(t.Context(), inside) // if there is one
	must(t, d.AddSNAT(t.Context(), snat))
	refuses("a network marked for all", d.AddMark(t.Context(), mark))
	apart := mark
	apart.From = netip.MustParsePrefix("203.0.113.0/24")
	must(t, d.AddMark(t.Context(), apart))
	must(t, d.DeleteSNAT(t.Context(), inside))
	must(t, d.AddMark(t.Context(), mark))
	refuses("SNAT of hosts that a mark is for", d.AddSNAT(t.Context(), snat))

	spec := control.ServiceSpec{ServiceKey: control.ServiceKey{Proto: control.TCP, Address: netip.AddrPortFrom(vip, 81)}}
	spec.Persistence = control.Persistence{Timeout: control.Duration(60e9), Mask: "255.255.255.0"}
	refuses("clients that are one", d.AddService(t.Context(), spec))
	spec.Persistence.Mask = ""
	must(t, d.AddService(t.Context(), spec))
	spec.Persistence.Mask = "255.255.0.0"
	refuses("clients that become one", d.EditService(t.Context(), spec))
}
