// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
)

// The goroutine that decides, and the ways to it.

const (
	tickEvery   = time.Second
	sampleEvery = 2 // ticks; the estimator's step
	auditEvery  = 5 // ticks
	// announceAgain is ANNOUNCE_INTERVAL of RFC 5227, 1.1.
	announceAgain = 2 * time.Second
)

// decide is the one goroutine that changes anything: calls of the control
// socket, changes of the host, reloads and time all meet here.
func (d *director) decide(ctx context.Context) error {
	d.event(control.Event{Kind: control.EventStarted, Text: fmt.Sprintf("vsnat %s serves, as process %d", d.options.Version, os.Getpid())})
	defer close(d.stopped)
	defer d.event(control.Event{Kind: control.EventStopped, Text: "the director ends"})
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	signals := time.NewTicker(signalsEvery)
	defer signals.Stop()
	reloads, ended := d.options.Reload, d.shards.Ended()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return fmt.Errorf("a packet loop ended: %w", d.shards.Failure())
		case f := <-d.calls:
			f()
		case f := <-d.news:
			f()
		case t := <-d.topology:
			d.hostChanged(t)
		case _, ok := <-reloads:
			if !ok {
				reloads = nil // nobody is going to ask any more
				continue
			}
			d.reloadNow()
		case <-d.trialOver():
			d.rollback(byTrial)
		case <-d.monitor.News():
			d.heard()
		case <-d.ramp():
			d.rampTimer = nil
			d.heard()
		case now := <-signals.C:
			d.judgeClients(now)
		case now := <-ticker.C:
			d.tick(n, now)
			n++
		}
	}
}

// watch hands each new topology to decide, which takes the newest.
func (d *director) watch(ctx context.Context) error {
	return d.watcher.Run(ctx, func(t iface.Topology) {
		select {
		case <-d.topology: // not taken yet, and out of date
		default:
		}
		d.topology <- t
	})
}

func (d *director) tick(n int, now time.Time) {
	if gone, left := d.rules.Tick(), d.roster.Tick(); gone || left {
		d.publish() // the guard need not keep their packets away any more
	}
	d.tickDrains(now)
	if d.world.retry {
		d.follow()
	}
	if again := d.world.announceAt; !again.IsZero() && !now.Before(again) {
		d.world.announceAt = time.Time{}
		first := d.shards.First()
		first.Do(first.Announce)
	}
	if d.tunHost != nil {
		d.claim(now)
	}
	if n%sampleEvery == 0 {
		d.sample()
	}
	if n%auditEvery == 0 || d.world.hostAsked {
		d.refreshHost()
	}
	if n%auditEvery == 0 {
		d.auditPorts()
	}
	d.noteProblems(d.listProblems()) // which asks each packet loop
	d.supervisor.alive()
}

// call runs f in decide and waits for it.
func (d *director) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case d.calls <- func() { done <- f() }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return control.Refuse(control.CodeUnavailable, "the director is stopping", "")
	}
}

// change runs a change of the rules in decide, and publishes it.
func (d *director) change(ctx context.Context, what string, f func() error) error {
	by := control.Caller(ctx)
	return d.call(ctx, func() error {
		if err := f(); err != nil {
			return refused(err)
		}
		d.changed(control.Event{By: by, Text: what})
		d.publish()
		return nil
	})
}

// tell has decide call f some time later, and never waits: the packet loop and
// what it calls use it, since whoever reads the log may be slow.
func (d *director) tell(f func()) {
	select {
	case d.news <- f:
	default: // nobody counts on it: a lost port is found by auditPorts too
	}
}

// conflict is told, with a lock held, that another station claims an address
// of ours.
func (d *director) conflict(port int, addr netip.Addr, mac [6]byte) {
	d.tell(func() {
		d.addressEvent(control.EventAddressConflict, "another station claims an address of ours", port, addr, mac)
	})
}

// taken is told, with a lock held, that an address which was to be ours is that of
// another station.
func (d *director) taken(port int, addr netip.Addr, mac [6]byte) {
	d.tell(func() {
		d.addressEvent(control.EventAddressTaken, "an address is in use and is not claimed", port, addr, mac)
	})
}

func (d *director) addressEvent(kind control.EventKind, what string, port int, addr netip.Addr, mac [6]byte) {
	link, station := d.world.ports[port].name, conntrack.LinkAddr(mac).String()
	d.log.Warn(what, "address", addr, "mac", station, "port", link)
	d.event(control.Event{Kind: kind, Link: link, Text: what + ": " + addr.String() + " at " + station})
}

// takenAddresses are those that were to be ours.
func (d *director) takenAddresses() []iface.TakenAddress {
	if d.tunHost != nil {
		return d.tunHost.Taken()
	}
	var list []iface.TakenAddress
	for _, t := range d.neighbours.Taken() {
		list = append(list, iface.TakenAddress{Link: d.world.ports[t.Port].name, Addr: t.Addr, MAC: t.MAC})
	}
	return list
}

// claimed is told, with a lock held, that nobody has such an address any more.
func (d *director) claimed(port int, addr netip.Addr) {
	d.tell(func() {
		link := d.world.ports[port].name
		d.log.Info("an address is claimed that was in use", "address", addr, "port", link)
		d.event(control.Event{Kind: control.EventAddressClaimed, Link: link, Text: "an address is claimed that was in use: " + addr.String()})
	})
}

// warn logs a condition that may come often, once in ten seconds for each key,
// and reports whether it did.
func (d *director) warn(key, message, detail string) bool {
	if now := time.Now(); now.Sub(d.warned[key]) > 10*time.Second {
		if len(d.warned) > 1000 {
			clear(d.warned)
		}
		d.warned[key] = now
		d.log.Warn(message, "detail", detail)
		return true
	}
	return false
}
