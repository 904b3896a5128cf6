// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"testing"
	"time"
)

// A set in demand grows, the newest first, and after a day without a change loses
// its most loaded server, one at a time.
func TestReplicationShrinks(t *testing.T) {
	w := newLocalWorld(t, "lblcr", 2, 2, 2)
	w.SetOptions(Options{Expiration: time.Hour})
	size := func() int32 {
		return w.Pool.scheduler.(*localLeastConnReplicated).table.find(destinationRequest(1, 0).Virtual.Addr()).value.len
	}
	got := ""
	for range 9 {
		w.now += time.Minute
		n := w.ask(1)
		got += fmt.Sprint(n)
		w.servers[n].ConnOpened()
		w.servers[n].ConnActivated()
	}
	if want := "444333222"; got != want || size() != 3 {
		t.Errorf("chose %s, want %s; a set of %d", got, want, size())
	}
	w.servers[3].ConnOpened()             // the most loaded
	for w.now < time.Hour+7*time.Minute { // the last one came in the seventh
		w.now += time.Minute
		w.ask(1)
	}
	if size() != 3 {
		t.Errorf("a set of %d after an hour, want 3", size())
	}
	w.now += time.Minute
	w.ask(1)
	w.ask(1)
	if size() != 2 {
		t.Errorf("a set of %d after more than an hour, want 2", size())
	}
	for range 2 {
		if n := w.ask(1); n == 3 {
			t.Error("the most loaded is still in the set")
		}
	}
	w.now += 2 * time.Hour
	w.ask(2) // the full check comes first and would drop the set
	w.check(t)
}
