// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// How long a shard looks depends on what its last looks brought. quiet is the time
// between two packets, always the same.
func TestLingerFollowsTheTraffic(t *testing.T) {
	run := func(l linger, quiet conntrack.Time, packets int) (_ linger, vain int) {
		for i := range packets {
			if l.length > quiet {
				continue // found while looking
			}
			if l.length > 0 {
				vain++
			}
			l.after(conntrack.Time(i)*quiet, quiet)
		}
		return l, vain
	}
	for quiet, found := range map[time.Duration]bool{
		time.Microsecond: true, 10 * time.Microsecond: true, 150 * time.Microsecond: true,
		250 * time.Microsecond: false, time.Millisecond: false, time.Second: false,
	} {
		for _, start := range []linger{{}, {length: patience}} {
			l, vain := run(start, conntrack.Time(quiet), 1000)
			if finds := l.length > conntrack.Time(quiet); finds != found || l.length > 0 != found {
				t.Errorf("packets %v apart, from %v: looks for %v", quiet, time.Duration(start.length), time.Duration(l.length))
			}
			if vain > 10 {
				t.Errorf("packets %v apart: %d of 1000 looks in vain", quiet, vain)
			}
		}
	}
}

// A processor that others want is left to them for a while.
func TestLingerRetreats(t *testing.T) {
	var l linger
	l.after(0, 0)
	if l.length != patience {
		t.Fatalf("looks for %v", time.Duration(l.length))
	}
	now := conntrack.Time(time.Second)
	l.crowded(now)
	for _, later := range []conntrack.Time{0, retreat / 2, retreat - 1} {
		if l.after(now+later, 0); l.length != 0 {
			t.Errorf("looks for %v, %v later", time.Duration(l.length), time.Duration(later))
		}
	}
	if l.after(now+retreat, 0); l.length != patience {
		t.Errorf("looks for %v after the retreat", time.Duration(l.length))
	}
}

// looked is a queue that is asked whether it has something.
type looked struct {
	iface.Queue
	ready, known bool
}

func (q *looked) Ready() (ready, known bool) { return q.ready, q.known }

// The kernel is asked about ports as soon as one of them cannot tell, and about all.
func TestLooksWithoutTheKernel(t *testing.T) {
	r := newRig(t)
	ids := make([]int, nat.MaxPorts)
	for _, row := range []struct {
		wan, lan looked
		polled   bool // a frame waits at the LAN, as the poller tells
		want     []int
	}{
		{looked{known: true}, looked{known: true}, true, nil},
		{looked{known: true}, looked{known: true, ready: true}, false, []int{lan}},
		{looked{known: true, ready: true}, looked{known: true, ready: true}, true, []int{wan, lan}},
		{looked{known: true, ready: true}, looked{}, true, []int{lan}},
		{looked{known: true}, looked{}, false, nil},
	} {
		for i, q := range []looked{row.wan, row.lan} {
			r.plug(i)
			q.Queue = r.ports[i]
			r.shard.ports[i].looker = &q
		}
		if row.polled {
			r.ports[lan].Inject(synAck(40000))
		}
		n, err := r.shard.look(ids)
		if err != nil || !slices.Equal(ids[:n], row.want) {
			t.Errorf("%+v, %+v: %v, %v, want %v", row.wan, row.lan, ids[:n], err, row.want)
		}
	}
}
