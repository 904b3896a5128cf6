// SPDX-License-Identifier: Apache-2.0

package iface_test

import (
	"slices"
	"testing"
	"time"

	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/ifacetest"
)

func newPoller(t *testing.T) *iface.Poller {
	t.Helper()
	p, err := iface.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func wait(t *testing.T, p *iface.Poller, timeout time.Duration) []int {
	t.Helper()
	ids := make([]int, 8)
	n, err := p.Wait(ids, timeout)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids[:n])
	return ids[:n]
}

func TestPollerReportsAQueueUntilItIsReadEmpty(t *testing.T) {
	p := newPoller(t)
	a, b := ifacetest.NewPair()
	c, d := ifacetest.NewPair()
	for id, port := range []*ifacetest.Port{a, b, c, d} {
		if err := p.Add(port.FD(), id+5); err != nil {
			t.Fatal(err)
		}
	}
	if got := wait(t, p, 0); len(got) != 0 {
		t.Fatalf("ready %v before anything was sent", got)
	}
	frame := []iface.Frame{{Data: make([]byte, 60)}}
	a.Write(frame)
	d.Write(frame)
	d.Write(frame)
	for range 2 {
		if got := wait(t, p, time.Minute); !slices.Equal(got, []int{6, 7}) {
			t.Fatalf("ready %v, want 6 and 7", got)
		}
	}
	into := make([]iface.Frame, 1)
	b.Read(into)
	c.Read(into)
	if got := wait(t, p, time.Minute); !slices.Equal(got, []int{7}) {
		t.Fatalf("ready %v, want 7, which still has a frame", got)
	}
	if err := p.Remove(c.FD()); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, 0); len(got) != 0 {
		t.Fatalf("ready %v after it was removed", got)
	}
}

func TestPollerHasRoomForFewIDs(t *testing.T) {
	p := newPoller(t)
	for id := range 10 {
		a, b := ifacetest.NewPair()
		p.Add(a.FD(), id)
		b.Write([]iface.Frame{{Data: make([]byte, 60)}})
	}
	p.Wake()
	ids := make([]int, 3)
	for range 5 {
		n, err := p.Wait(ids, time.Minute)
		if err != nil || n < 2 || n > 3 {
			t.Fatalf("%d ready, %v; want as many as there is room for", n, err)
		}
	}
}

func TestPollerWakes(t *testing.T) {
	p := newPoller(t)
	p.Wake() // before the Wait: remembered, and once only
	p.Wake()
	if got := wait(t, p, -1); len(got) != 0 {
		t.Fatalf("woken with %v ready", got)
	}
	// Both are used up: the next one sleeps. Only too short a sleep is a failure.
	if start := time.Now(); len(wait(t, p, 50*time.Millisecond)) != 0 || time.Since(start) < 40*time.Millisecond {
		t.Fatal("the poller would spin after a wake")
	}
	done := make(chan int)
	go func() {
		ids := make([]int, 1)
		n, _ := p.Wait(ids, -1)
		done <- n
	}()
	p.Wake() // during the Wait, or just before
	if n := <-done; n != 0 {
		t.Fatalf("woken with %d ready", n)
	}
}

func TestPollerRefusesIDsItCannotCarry(t *testing.T) {
	p := newPoller(t)
	a, _ := ifacetest.NewPair()
	for _, id := range []int{-1, 1 << 31} {
		if err := p.Add(a.FD(), id); err == nil {
			t.Errorf("id %d was taken", id)
		}
	}
}

func TestPollerWakeAfterCloseIsHarmless(t *testing.T) {
	p := newPoller(t)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Wake()
	if err := p.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestPollerDoesNotAllocate(t *testing.T) {
	p := newPoller(t)
	a, b := ifacetest.NewPair()
	p.Add(a.FD(), 1)
	b.Write([]iface.Frame{{Data: make([]byte, 60)}})
	ids := make([]int, 4)
	if n := testing.AllocsPerRun(100, func() { p.Wake(); p.Wait(ids, time.Second) }); n != 0 {
		t.Errorf("%v allocations per wait", n)
	}
}
