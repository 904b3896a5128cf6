// SPDX-License-Identifier: Apache-2.0

package director

import (
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// nextSteps say what to do about a problem whose text has a part like that; the first
// one counts.
var nextSteps = []struct{ part, next string }{
	{"its check", "vsnat health"},
	{"servers are down", "vsnat health"},
	{"servers is down", "vsnat health"},
	{"stands in", "vsnat health"},
	{"of max-conns", "raise max-conns, or see vsnat conn list --state SYN_RECV"},
	{"of the ports of snat", "add an address to snat, or narrow who uses it"},
	{"connection table is nearly full", "raise max-conns, or see vsnat conn list --state SYN_RECV"},
	{"address of another station", "vsnat events says who has it since when"},
	{"no local port", "add to local-addresses"},
	{"no network interface", "vsnat doctor"},
	{"offload:", "bpftool net shows who is at the links; a restart tries again"},
}

// findings are what is known about problems: since when, as of the last tick, and what
// to do next.
func (d *director) findings(problems []string) (list []control.Finding) {
	for _, p := range problems {
		f := control.Finding{Problem: p, Since: d.problems[p], Next: "vsnat doctor"}
		for _, s := range nextSteps {
			if strings.Contains(p, s.part) {
				f.Next = s.next
				break
			}
		}
		list = append(list, f)
	}
	return list
}
