// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
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
