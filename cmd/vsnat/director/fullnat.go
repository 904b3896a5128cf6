// SPDX-License-Identifier: Apache-2.0

package director

import (
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/nat"
)

// keepNAT has an edit that says nothing of it leave full NAT as it is: ipvsadm knows no
// word for it.
func (d *director) keepNAT(s *control.ServerSpec, k nat.ServiceKey) {
	if s.NAT != "" || s.Method != "" && s.Method != control.MethodNAT {
		return
	}
	if m := d.roster.Member(k, s.Address); m != nil {
		s.NAT = wordOf(sources, m.Spec().Source)
	}
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
