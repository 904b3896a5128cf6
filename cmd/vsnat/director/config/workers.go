// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// MaxWorkers is how many workers there may be (nat.MaxForwarders).
const MaxWorkers = 32

// DefaultWorkers is one. On two processors that client, director and servers shared, two
// workers were as fast within what rounds differ by, at each load; and one keeps all of a
// table for whoever comes, and has no rule to refuse.
const DefaultWorkers = 1

// CheckWorkers refuses rules that several workers can't have. Which of them a connection
// belongs to is told by its outside address. A mark rule to a network makes outside
// what comes from anywhere, an SNAT rule what goes anywhere: a packet from a host that
// both are about does not tell which. The error is a *control.Error.
func CheckWorkers(workers int, marks []control.MarkSpec, snats []control.SNATSpec) error {
	return refusal(workersFaults(workers, marks, snats))
}

func workersFaults(workers int, marks []control.MarkSpec, snats []control.SNATSpec) []fault {
	if workers < 2 {
		return nil
	}
	for _, m := range marks {
		if m.To.IsValid() && m.To.IsSingleIP() {
			continue
		}
		for _, s := range snats {
			if m.To.IsValid() && m.To.Addr().Is4() != s.From.Addr().Is4() || m.From.IsValid() && !m.From.Overlaps(s.From) {
				continue
			}
			return []fault{{"workers",
				fmt.Sprintf("%d workers can't tell whose the packets of %s are: %s is about them, and so is the SNAT rule", workers, s.From, m),
				"set workers: 1, or give the mark rule a from that leaves the network out"}}
		}
	}
	return nil
}
