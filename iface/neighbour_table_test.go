// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestLearnedIsBounded(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	w.learn("10.0.0.3", 3)
	for i := range 2 * maxLearned {
		w.heard(ARPRequest, 9, fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250), 0, "10.0.0.1")
	}
	if s := w.n.Stats(); s.Entries != maxLearned+1 || s.Evicted != maxLearned {
		t.Errorf("got %+v", s)
	}
	w.want("the confirmed one stays", w.lookup("10.0.0.3"), "3")
}

func TestTableIsBoundedAndConfirmedGoLast(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	for i := range maxNeighbours + 1000 {
		w.resolve(fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250), "..s")
	}
	if s := w.n.Stats(); s.Entries != maxNeighbours || s.Evicted != 1001 {
		t.Errorf("entries %d, evicted %d", s.Entries, s.Evicted)
	}
	w.want("a scan evicts only its own", w.lookup("10.0.0.3"), "3")
	if w.n.Generation() != generation {
		t.Error("the scan moved the generation")
	}
}

func TestOldestUnusedConfirmedGoes(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	name := func(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250) }
	for i := range maxNeighbours {
		w.learn(name(i), 9)
	}
	w.lookup(name(0)) // used again: now name(1) is the oldest
	generation := w.n.Generation()
	w.learn("10.0.0.3", 3)
	w.want("used", w.lookup(name(0)), "9")
	w.want("unused", w.lookup(name(1)), "-")
	if w.n.Generation() == generation {
		t.Error("a cache may go on with an evicted neighbour")
	}
}

func TestPermanentEntries(t *testing.T) {
	w := newWire(t)
	entry := PermanentNeighbour{Port: 1, Addr: netip.MustParseAddr("10.0.0.3"), MAC: station(33)}
	w.learn("10.0.0.3", 3)
	generation := w.n.Generation()
	w.n.SetPermanent([]PermanentNeighbour{entry})
	if w.n.Generation() == generation {
		t.Error("caches keep what was there before")
	}
	w.want("honoured", w.lookup("10.0.0.3"), "33")
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.3")
	w.answer(9, "10.0.0.3")
	w.heard(ARPRequest, 9, "10.0.0.3", 0, "10.0.0.1")
	w.pass(time.Minute)
	w.want("never overridden", w.lookup("10.0.0.3"), "33")
	w.want("never asked", w.takes(), "")
	if got := w.resolve("10.0.0.3", "..a"); got != ResolveKnown {
		t.Errorf("resolve: %d", got)
	}

	generation = w.n.Generation()
	w.n.SetPermanent([]PermanentNeighbour{entry})
	if w.n.Generation() != generation {
		t.Error("the same entries moved the generation")
	}
	w.n.SetPermanent(nil)
	w.want("gone", w.lookup("10.0.0.3"), "-")
	if w.n.Generation() == generation {
		t.Error("caches keep a removed entry")
	}
}

func TestPermanentEntryReleasesWhatWaits(t *testing.T) {
	w := newWire(t)
	w.resolve("10.0.0.3", "..a")
	w.takes()
	w.n.SetPermanent([]PermanentNeighbour{{Port: 1, Addr: netip.MustParseAddr("10.0.0.3"), MAC: station(33)}})
	w.pass(50 * time.Millisecond)
	w.want("released", w.takes(), "1>33 ..a")
}

func TestSetPortsForgetsPortsThatWent(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.resolve("10.0.0.4", "..a")
	generation := w.n.Generation()
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1)}})
	w.want("addresses are no reason", w.lookup("10.0.0.3"), "3")
	if w.n.Generation() != generation {
		t.Error("the generation moved")
	}
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(7)}})
	w.want("another MAC is", w.lookup("10.0.0.3"), "-")
	if w.n.Generation() == generation {
		t.Error("the generation did not move")
	}
	if s := w.n.Stats(); s.Entries != 0 || s.Queued != 0 {
		t.Errorf("left: %+v", s)
	}
	w.n.SetPorts(nil)
	if got := w.resolve("10.0.0.3", "..a"); got != ResolveNoPort {
		t.Errorf("without the port: %d", got)
	}
}

func TestIdleEntriesGo(t *testing.T) {
	w := newWire(t)
	w.learn("10.0.0.3", 3)
	w.pass(9 * time.Minute)
	w.want("kept", fmt.Sprint(w.n.Stats().Entries), "1")
	w.pass(2 * time.Minute)
	w.want("gone", fmt.Sprint(w.n.Stats().Entries), "0")
	w.want("never asked", w.takes(), "")
}
