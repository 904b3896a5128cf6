// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"testing"
	"time"
)

// TestAhead: more than there is room for, of which some are not there, changes nothing
// and costs no memory; what is told of is loaded.
func TestAhead(t *testing.T) {
	table := newTable(t, 1000)
	for i := range 500 {
		c := numbered(i)
		table.Insert(&c, 0, time.Hour)
	}
	i := 0
	if n := testing.AllocsPerRun(20, func() {
		for range 2 * MaxAhead {
			c := numbered(i)
			table.Ahead(&c.Client, c.Proto)
			i++
		}
		table.Fetch()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if table.Len() != 500 || table.ahead.count != 0 {
		t.Errorf("%d connections, %d still told of", table.Len(), table.ahead.count)
	}
	c := numbered(1)
	table.Ahead(&c.Client, c.Proto)
	if table.Fetch(); table.ahead.sum == 0 {
		t.Error("nothing was loaded")
	}
}
