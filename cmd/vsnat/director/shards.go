// SPDX-License-Identifier: Apache-2.0

package director

import (
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/nat"
)

// shards are all that a director has, each with a part of the connections. What is
// asked of the director is asked of all of them, and what they say is added up.
type shards []*shard

// newShards makes a shard for each Forwarder, which closes them.
func newShards(forwarders []*nat.Forwarder, n *iface.Neighbours, lost func(*port, error), refused func()) (all shards, err error) {
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

// do has each shard call f between two of its batches, one shard after the other, and
// waits for all. It reports false if one has ended.
func (all shards) do(f func(s *shard)) bool {
	whole := true
	for _, s := range all {
		whole = s.do(func() { f(s) }) && whole
	}
	return whole
}

// first is the shard for what one does for all: what it sends leaves as it would from
// any other.
func (all shards) first() *shard { return all[0] }

// run starts them. Their clock is one, since they share limits and neighbours.
func (all shards) run() {
	all.connect()
	for _, s := range all {
		s.start = all.first().start
		go s.run()
	}
}

// ended is closed, or is about to be, when one of them ends; the others are of no use
// without it.
func (all shards) ended() <-chan struct{} {
	one := make(chan struct{}, len(all))
	for _, s := range all {
		go func() {
			<-s.exited
			one <- struct{}{}
		}()
	}
	return one
}

// failure is why the first that ended by itself did so.
func (all shards) failure() error {
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

// stop ends them and gives their memory back.
func (all shards) stop() (first error) {
	all.do(func(s *shard) { s.stop = true })
	for _, s := range all {
		<-s.exited
		first = cmpError(first, s.forwarder.Close())
		_ = s.poller.Close() // nothing waits on it any more
	}
	return first
}

// A shardStats is what a shard counts, beside and with its Forwarder, or all of them.
type shardStats struct {
	nat.Stats
	packets, sent         uint64
	ignored               uint64
	unsent                [nat.NumReasons]uint64
	handedOver, takenOver uint64
	latency               latency
}

func (s *shard) stats() shardStats {
	return shardStats{
		Stats: s.forwarder.Stats(), packets: s.packets, sent: s.sent, ignored: s.ignored, unsent: s.unsent,
		handedOver: s.beside.handedOver, takenOver: s.beside.takenOver, latency: s.latency,
	}
}

// drops is how many packets were dropped for a reason.
func (s *shardStats) drops(r nat.Reason) uint64 { return s.Drops[r] + s.unsent[r] }

// stats copies what all have counted, and what each has. It reports false if one has
// ended.
func (all shards) stats() (sum shardStats, each []shardStats, ok bool) {
	ok = all.do(func(s *shard) { each = append(each, s.stats()) })
	for i := range each {
		one := &each[i]
		sum.Stats.Add(&one.Stats)
		sum.packets += one.packets
		sum.sent += one.sent
		sum.ignored += one.ignored
		for r := range sum.unsent {
			sum.unsent[r] += one.unsent[r]
		}
		sum.latency.merge(&one.latency)
	}
	return sum, each, ok
}

// signals are what the packets of clients say about servers, by slot.
func (all shards) signals() (sum []nat.ServerSignals) {
	for _, s := range all {
		var one []nat.ServerSignals
		s.do(func() { one = s.forwarder.Signals(nil) })
		for len(sum) < len(one) {
			sum = append(sum, nat.ServerSignals{})
		}
		for i := range one {
			sum[i].Add(&one[i])
		}
	}
	return sum
}

// defence says which defences are in force in some shard.
func (all shards) defence() (sum nat.Defence) {
	all.do(func(s *shard) { sum.Add(s.forwarder.Defence()) })
	return sum
}

// conns lists connections from a place on, which is a slot of the table of a shard: q.Cursor
// says which, and so does the cursor of the page. It reports false if one has ended.
func (all shards) conns(q nat.ConnQuery) (page nat.ConnPage, ok bool) {
	which := q.Cursor % len(all)
	q.Cursor /= len(all)
	s := all[which]
	if !s.do(func() { page = s.forwarder.Conns(q) }) {
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

// forgetPort makes the connections of all forget a port, a part of them between two
// batches.
func (all shards) forgetPort(i uint16) {
	for _, s := range all {
		for cursor := 0; cursor >= 0; {
			if !s.do(func() {
				s.closePort(s.ports[i])
				cursor = s.forwarder.ForgetPort(i, cursor)
			}) {
				return
			}
		}
	}
}

// A portGroup is a port of all shards: one queue for each, of one link. They are opened
// and closed together, as the kernel shares what comes in between those there are.
type portGroup []*port

// setPort hands a port to all shards, each its own queue, or closes the queues.
func (all shards) setPort(g portGroup) (first error) {
	for i, s := range all {
		s.do(func() { first = cmpError(first, s.setPort(g[i])) })
	}
	if first != nil {
		all.closePort(g)
		for _, p := range g {
			_ = p.queue.Close() // the first error is the one to tell
		}
	}
	return first
}

// closePort takes a port out of service, where it is in service still. One that is not
// open has no queues.
func (all shards) closePort(g portGroup) {
	for i, s := range all[:len(g)] {
		s.do(func() { s.closePort(g[i]) })
	}
}

// stats are those of all queues of a port.
func (g portGroup) stats() (sum iface.QueueStats) {
	for _, p := range g {
		sum.Add(p.queue.Stats())
	}
	return sum
}
