// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// A Set is all shards that a director has, each with a part of the connections. What is
// asked of the director is asked of all of them, and what they say is added up. The
// methods wait for answers and may be called by any goroutine but those of the shards,
// between Run and Stop.
type Set []*Shard

// NewSet makes a shard for each Forwarder, which closes it. lost is told of a port that
// was closed because it failed, refused that a packet was refused which may be for the
// host. A shard calls them, so that they must not wait.
func NewSet(forwarders []*nat.Forwarder, n *iface.Neighbours, lost func(*Port, error), refused func()) (all Set, err error) {
	for _, f := range forwarders {
		s, err := newShard(f, n, lost)
		if err != nil {
			for _, s := range all {
				_ = s.poller.Close() // the first error is the one to tell
			}
			for _, f := range forwarders {
				_ = f.Close() // the same
			}
			return nil, err
		}
		s.refused = refused
		all = append(all, s)
	}
	return all, nil
}

// Do has each shard call f between two of its batches, one shard after the other, and
// waits for all. It reports false if one has ended.
func (all Set) Do(f func(s *Shard)) bool {
	whole := true
	for _, s := range all {
		whole = s.Do(func() { f(s) }) && whole
	}
	return whole
}

// First is the shard for what one does for all: what it sends leaves as it would from
// any other.
func (all Set) First() *Shard { return all[0] }

// Run starts them. Their clock is one, since they share limits and neighbours.
func (all Set) Run() {
	all.connect()
	for _, s := range all {
		s.start = all.First().start
		go s.run()
	}
}

// Ended is closed, or is about to be, when one of them ends; the others are of no use
// without it.
func (all Set) Ended() <-chan struct{} {
	one := make(chan struct{}, len(all))
	for _, s := range all {
		go func() {
			<-s.exited
			one <- struct{}{}
		}()
	}
	return one
}

// Failure is why the first that ended by itself did so.
func (all Set) Failure() error {
	for _, s := range all {
		select {
		case <-s.exited:
			if s.failure != nil {
				return s.failure
			}
		default:
		}
	}
	return nil
}

// Stop ends them, if Halt has not, and gives their memory back.
func (all Set) Stop() (first error) {
	all.Halt()
	for _, s := range all {
		if err := s.forwarder.Close(); first == nil {
			first = err
		}
		_ = s.poller.Close() // nothing waits on it any more
	}
	return first
}

// A Stats is what a shard counts, beside and with its Forwarder, or all of them.
type Stats struct {
	nat.Stats
	Packets, Sent         uint64 // frames that came, and that left
	Ignored               uint64 // frames that are not for us
	HandedOver, TakenOver uint64 // packets, between shards
	Latency               Latency
	unsent                [nat.NumReasons]uint64
}

func (s *Shard) stats() Stats {
	return Stats{
		Stats: s.forwarder.Stats(), Packets: s.packets, Sent: s.sent, Ignored: s.ignored, unsent: s.unsent,
		HandedOver: s.beside.handedOver, TakenOver: s.beside.takenOver, Latency: s.latency,
	}
}

// Lost is how many packets were dropped for a reason, by the Forwarder or on their way
// out.
func (s *Stats) Lost(r nat.Reason) uint64 { return s.Drops[r] + s.unsent[r] }

// Stats copies what all have counted, and what each has. It reports false if one has
// ended.
func (all Set) Stats() (sum Stats, each []Stats, ok bool) {
	ok = all.Do(func(s *Shard) { each = append(each, s.stats()) })
	for i := range each {
		one := &each[i]
		sum.Stats.Add(&one.Stats)
		sum.Packets += one.Packets
		sum.Sent += one.Sent
		sum.Ignored += one.Ignored
		for r := range sum.unsent {
			sum.unsent[r] += one.unsent[r]
		}
		sum.Latency.merge(&one.Latency)
	}
	return sum, each, ok
}

// Signals are what the packets of clients say about servers, by slot, in the memory of
// sum as far as that goes. It reports false if one has ended.
func (all Set) Signals(sum []nat.ServerSignals) (_ []nat.ServerSignals, ok bool) {
	clear(sum)
	ok = all.Do(func(s *Shard) {
		s.signals = s.forwarder.Signals(s.signals[:0])
		for i := range s.signals {
			if i == len(sum) {
				sum = append(sum, nat.ServerSignals{})
			}
			sum[i].Add(&s.signals[i])
		}
	})
	return sum, ok
}

// Defence says which defences are in force in some shard.
func (all Set) Defence() (sum nat.Defence) {
	all.Do(func(s *Shard) { sum.Add(s.forwarder.Defence()) })
	return sum
}

// Conns lists connections from a place on, which is a slot of the table of a shard: q.Cursor
// says which, and so does the cursor of the page. It reports false if one has ended.
func (all Set) Conns(q nat.ConnQuery) (page nat.ConnPage, ok bool) {
	which := q.Cursor % len(all)
	q.Cursor /= len(all)
	s := all[which]
	if !s.Do(func() { page = s.forwarder.Conns(q) }) {
		return page, false
	}
	switch {
	case page.Next >= 0:
		page.Next = page.Next*len(all) + which
	case which+1 < len(all):
		page.Next = which + 1
	}
	return page, true
}

// ForgetPort makes the connections of all forget a port, a part of them between two
// batches.
func (all Set) ForgetPort(i uint16) {
	for _, s := range all {
		for cursor := 0; cursor >= 0; {
			if !s.Do(func() {
				s.closePort(s.ports[i])
				cursor = s.forwarder.ForgetPort(i, cursor)
			}) {
				return
			}
		}
	}
}

// A PortGroup is a port of all shards: one queue for each, of one link. They are opened
// and closed together, as the kernel shares what comes in between those there are.
type PortGroup []*Port

// SetPort hands a port to all shards, each its own queue, or closes the queues.
func (all Set) SetPort(g PortGroup) (first error) {
	for i, s := range all {
		s.Do(func() {
			if err := s.setPort(g[i]); first == nil {
				first = err
			}
		})
	}
	if first != nil {
		all.ClosePort(g)
		for _, p := range g {
			_ = p.Queue.Close() // the first error is the one to tell
		}
	}
	return first
}

// ClosePort takes a port out of service, where it is in service still. One that is not
// open has no queues.
func (all Set) ClosePort(g PortGroup) {
	for i, s := range all[:len(g)] {
		s.Do(func() { s.closePort(g[i]) })
	}
}

// Stats are those of all queues of a port.
func (g PortGroup) Stats() (sum iface.QueueStats) {
	for _, p := range g {
		sum.Add(p.Queue.Stats())
	}
	return sum
}
