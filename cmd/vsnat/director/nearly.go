// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"time"

	"github.com/vsnat/vsnat/nat"
)

// What is about to run out is a problem before it has: from nearlyFull on, until it is
// well below again, so that one that stands on the line does not come and go.
const (
	nearlyFull = 90 // percent
	wellBelow  = 80
)

// scarcity remembers what was nearly full, by name.
type scarcity map[string]bool

// nearly reports whether used is so much of all that it has to be told.
func (s scarcity) nearly(name string, used, all int) bool {
	bound := nearlyFull
	if s[name] {
		bound = wellBelow
	}
	s[name] = all > 0 && used*100 >= all*bound
	if !s[name] {
		delete(s, name)
	}
	return s[name]
}

// scarce lists what is nearly full: the connection table, and the ports of SNAT rules.
func (d *director) scarce(s *nat.Stats) (list []string) {
	if d.scarcity.nearly("table", s.Conns, s.MaxConns) {
		list = append(list, fmt.Sprintf("more than %d %% of max-conns (%d) are in use", wellBelow, s.MaxConns))
	}
	for _, r := range d.rules.SNATs() {
		for _, m := range s.Mappings {
			if m.Addr.Netip() == r.To && d.scarcity.nearly("snat "+r.From.String(), m.Mappings, d.rules.Capacity(r)) {
				list = append(list, fmt.Sprintf("more than %d %% of the ports of snat %s to %s are in use", wellBelow, r.From, r.To))
			}
		}
	}
	return list
}

// exhaustedFor is how long Health tells of local ports that were used up.
const exhaustedFor = time.Minute

// exhausted tells of new connections that were refused a short while ago since no local
// port was left.
func (d *director) exhausted(now time.Time) []string {
	if at := d.alarmed[nat.ReasonNoLocal]; at.IsZero() || now.Sub(at) > exhaustedFor {
		return nil
	}
	return []string{alarms[nat.ReasonNoLocal]}
}
