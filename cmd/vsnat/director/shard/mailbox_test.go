// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vsnat/vsnat/nat"
)

// FAULTS 119: many who ask and change, traffic, and an end in the middle of it.
// Whoever asked gets an answer, and what was answered with true was done.
func TestMailboxUnderTraffic(t *testing.T) {
	for range 3 {
		mailboxUnderTraffic(t)
	}
}

func mailboxUnderTraffic(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	go r.shard.run()

	var asked, done atomic.Int64
	var all sync.WaitGroup
	ask := func() bool {
		// Not a race: the shard is alone between two batches.
		return r.shard.Do(func() { _ = r.shard.forwarder.Stats(); done.Add(1) })
	}
	for range 8 {
		all.Go(func() {
			for range 200 {
				if !ask() {
					return
				}
				asked.Add(1)
			}
		})
	}
	all.Go(func() { // the one who owns the rules
		for i := range 50 {
			must := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			must(r.rules.EditServer(web, nat.ServerSpec{Addr: serverIP, Port: 8080, Weight: 1 + i}))
			r.rules.Publish()
			if !r.shard.Do(func() { r.shard.forwarder.Begin(r.shard.now) }) {
				return
			}
		}
	})
	all.Go(func() {
		for port := range 500 {
			r.ports[wan].Inject(syn(20000 + port))
		}
	})
	for asked.Load() < 300 {
		if !ask() {
			t.Error("the shard has ended")
			break
		}
		asked.Add(1)
	}
	r.shard.Do(func() { r.shard.stop = true })
	all.Wait()
	<-r.shard.exited
	if asked.Load() > done.Load() {
		t.Errorf("%d answered, %d done", asked.Load(), done.Load())
	}
	if r.shard.Do(func() { t.Error("done after the end") }) {
		t.Error("answered after the end")
	}
	for _, p := range r.ports {
		if _, err := p.Write(nil); err == nil {
			t.Error("a queue is open after the end")
		}
	}
}

// The loop by itself: it wakes by traffic and by mail, and ends when told.
func TestLoop(t *testing.T) {
	r := newRig(t)
	r.introduce(lan, serverIP, serverMAC)
	go r.shard.run()
	r.ports[wan].Inject(syn(40000))
	for len(r.ports[lan].Sent()) == 0 {
		if !r.shard.Do(func() {}) {
			t.Fatal("the shard has ended")
		}
	}
	if !r.shard.Do(func() { r.shard.stop = true }) {
		t.Error("the last request was not answered")
	}
	<-r.shard.exited
	if r.shard.failure != nil {
		t.Error(r.shard.failure)
	}
}
