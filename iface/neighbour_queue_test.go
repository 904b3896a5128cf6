// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestQueueOfOneNeighbourIsBounded(t *testing.T) {
	w := newWire(t)
	var first []string
	for i := range maxQueuedEach + 2 {
		want := ResolveFull
		if i < maxQueuedEach {
			want = ResolveQueued
			first = append(first, fmt.Sprintf("1>3 ..%d", i))
		}
		if got := w.resolve("10.0.0.3", fmt.Sprintf("..%d", i)); got != want {
			t.Errorf("frame %d: got %d, want %d", i, got, want)
		}
	}
	if got := w.resolve("10.0.0.4", "..x"); got != ResolveQueued {
		t.Errorf("another neighbour suffers: %d", got)
	}
	w.takes()
	w.answer(4, "10.0.0.4")
	w.want("the other", w.takes(), "1>4 ..x")
	w.answer(3, "10.0.0.3")
	w.want("the first ones", w.takes(), strings.Join(first, "; "))
	if s := w.n.Stats(); s.QueueRefused != 2 {
		t.Errorf("refused %d", s.QueueRefused)
	}
}

// Many dead next hops fill the queue; one that lives still gets its packets.
func TestFullQueueLetsTheLivingPass(t *testing.T) {
	w := newWire(t)
	w.n.SetPorts([]NeighbourPort{{Port: 1, MAC: station(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}})
	for i := range 1000 {
		addr := fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250)
		for range 3 {
			w.resolve(addr, "..s")
		}
	}
	if s := w.n.Stats(); s.Queued != maxQueued || s.QueueDisplaced != 3000-maxQueued {
		t.Errorf("queued %d, displaced %d", s.Queued, s.QueueDisplaced)
	}
	w.takes()
	if got := w.resolve("10.0.0.3", "..x"); got != ResolveQueued {
		t.Fatalf("got %d", got)
	}
	w.takes()
	w.answer(3, "10.0.0.3")
	w.want("delivered", w.takes(), "1>3 ..x")
	w.pass(4 * time.Second)
	if s := w.n.Stats(); s.Queued != 0 || s.QueuedBytes != 0 || len(w.gone) != maxQueued-1 {
		t.Errorf("after all failed: queued %d, %d bytes, failed %d", s.Queued, s.QueuedBytes, len(w.gone))
	}
}

func TestQueuedBytesAreBounded(t *testing.T) {
	w := newWire(t)
	frame := make([]byte, MaxFrame)
	for i := range 200 {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)})
		if got := w.n.Resolve(w.now, 1, addr, frame, Offload{}, w.send); got != ResolveQueued {
			t.Fatalf("frame %d: %d", i, got)
		}
		if s := w.n.Stats(); s.QueuedBytes > maxQueuedBytes {
			t.Fatalf("%d bytes", s.QueuedBytes)
		}
	}
	if got := w.n.Resolve(w.now, 1, netip.MustParseAddr("10.0.0.250"), make([]byte, MaxFrame+1), Offload{}, w.send); got != ResolveFull {
		t.Errorf("too long a frame: %d", got)
	}
}

// The copy is ours: what the caller does with its frame later changes nothing, and
// buffers are used again.
func TestQueueCopies(t *testing.T) {
	w := newWire(t)
	for round := range 3 {
		frame := []byte("............first")
		w.n.Resolve(w.now, 1, netip.MustParseAddr("10.0.0.3"), frame, Offload{}, w.send)
		copy(frame[12:], "XXXXX")
		w.takes()
		w.answer(3, "10.0.0.3")
		w.want(fmt.Sprint("round ", round), w.takes(), "1>3 first")
		w.n.Flush(1)
	}
	if spare := len(w.n.queue.small); spare != 1 {
		t.Errorf("%d buffers for one frame at a time", spare)
	}
}
