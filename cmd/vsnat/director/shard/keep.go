// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	"github.com/vsnat/vsnat/nat"
)

// The connections of all shards, from one process to the next.

// Halt ends all shards. No packet is served any more; what they know is there until Stop.
func (all Set) Halt() {
	all.Do(func(s *Shard) { s.stop = true })
	for _, s := range all {
		<-s.exited
	}
}

// Save writes down all connections of shards that were halted; see nat.Save.
func (all Set) Save(emit func(nat.RecordKind, []byte) error) error {
	return nat.Save(all.forwarders(), all.First().Clock(), emit)
}

// Restore has shards without a connection take up what publish publishes, together with
// the connections of records, which read hands to take. They were written down as long
// ago as elapsed says. No packet is judged by the one and without the other: all shards
// stand still meanwhile. It reports false if one has ended; then nothing was called.
func (all Set) Restore(elapsed time.Duration, publish func(), read func(take func(nat.RecordKind, []byte))) (done nat.Restored, ok bool) {
	free := make(chan struct{})
	defer close(free)
	for _, s := range all {
		stands := make(chan struct{})
		go s.Do(func() { close(stands); <-free })
		select {
		case <-stands:
		case <-s.exited:
			return nat.Restored{}, false
		}
	}
	publish()
	for _, s := range all {
		s.now = s.Clock()
		s.forwarder.Begin(s.now)
	}
	r := nat.NewRestoration(all.forwarders(), elapsed)
	read(r.Take)
	return r.Restored, true
}

func (all Set) forwarders() (list []*nat.Forwarder) {
	for _, s := range all {
		list = append(list, s.forwarder)
	}
	return list
}
