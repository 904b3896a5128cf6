// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// eventsKept is how many events a log remembers.
const eventsKept = 1024

// EventLog remembers the last events for those who ask. Adding one waits for no
// reader: who is slower than the log is told how many it has missed. Its zero
// value is empty; it is safe for concurrent use.
type EventLog struct {
	mu     sync.Mutex
	ring   [eventsKept]Event
	last   uint64 // Seq of the newest
	counts map[EventKind]uint64
	more   chan struct{} // closed when another event is there; nil if nobody waits
}

// Add notes an event, whose Seq and Time it sets.
func (l *EventLog) Add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Seq, e.Time = l.last, time.Now()
	l.ring[e.Seq%eventsKept] = e
	if l.counts == nil {
		l.counts = make(map[EventKind]uint64)
	}
	l.counts[e.Kind]++
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Counts is how many events of each kind there were.
func (l *EventLog) Counts() map[EventKind]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// after returns the events behind seq, one that stands for those that are gone
// before them, and what is closed when there are more.
func (l *EventLog) after(seq uint64) (list []Event, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq = min(seq, l.last) // of a director before this one
	if oldest := l.last - min(l.last, eventsKept); seq < oldest {
		n := oldest - seq
		list = append(list, Event{
			Seq: oldest, Time: l.ring[(oldest+1)%eventsKept].Time, Kind: EventMissed, Missed: n,
			Text: fmt.Sprintf("%d events are gone: only the last %d are kept", n, eventsKept),
		})
		seq = oldest
	}
	for ; seq < l.last; seq++ {
		list = append(list, l.ring[(seq+1)%eventsKept])
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return list, l.more
}

// Read calls each for the events that q selects. With Follow it returns when ctx
// or closed is done, after the last one; what each says of an error it returns at
// once. closed may be nil.
func (l *EventLog) Read(ctx context.Context, q EventQuery, closed <-chan struct{}, each func(Event) error) error {
	for over := !q.Follow; ; {
		list, more := l.after(q.After)
		for _, e := range list {
			if err := each(e); err != nil {
				return err
			}
			q.After = e.Seq
		}
		if over {
			return nil
		}
		select {
		case <-more:
		case <-closed:
			over = true
		case <-ctx.Done():
			return nil
		}
	}
}
