// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/nat"
)

// What is nearly full is told until it is well below, and told by name.
func TestScarce(t *testing.T) {
	d, _ := startDirector(t, small)
	must(t, d.call(t.Context(), func() error {
		capacity := d.rules.Capacity(d.rules.SNATs()[0])
		table := "more than 80 % of max-conns (1000) are in use"
		ports := "more than 80 % of the ports of snat 10.0.0.0/24 to 192.168.88.23 are in use"
		for i, row := range []struct {
			conns, mappings int
			want            []string
		}{
			{899, capacity * 89 / 100, nil},
			{900, capacity, []string{table, ports}},
			{800, 0, []string{table}},
			{799, 0, nil},
			{899, capacity, []string{ports}},
			{0, capacity * 81 / 100, []string{ports}},
			{0, 0, nil},
		} {
			got := d.scarce(&nat.Stats{Conns: row.conns, MaxConns: 1000, Mappings: []nat.PoolStats{
				{Addr: conntrack.AddrFrom(netip.MustParseAddr("192.168.88.23")), Mappings: row.mappings},
			}})
			if !slices.Equal(got, row.want) {
				t.Errorf("row %d: %q, want %q", i, got, row.want)
			}
		}
		return nil
	}))
}

// Health tells that local ports are used up, for as long as somebody may want to know.
func TestExhausted(t *testing.T) {
	d := &director{}
	now := time.Now()
	if got := d.exhausted(now); got != nil {
		t.Errorf("nothing was refused: %q", got)
	}
	d.alarmed[nat.ReasonNoLocal] = now
	if got := d.exhausted(now.Add(exhaustedFor)); len(got) != 1 {
		t.Errorf("refused a minute ago: %q", got)
	}
	if got := d.exhausted(now.Add(exhaustedFor + 1)); got != nil {
		t.Errorf("long over: %q", got)
	}
}
