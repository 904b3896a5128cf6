// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/vsnat/vsnat/conntrack"
)

// How Forwarders are made: one, or several beside each other.

// ForwarderConfig is what a Forwarder is made from.
type ForwarderConfig struct {
	Rules    *Rules
	MaxConns int       // entries of the connection table, claimed at the start
	Seed     [2]uint64 // secret of the hash tables; zero: a random one
	Key      ShardKey  // of several Forwarders
}

// NewForwarder returns a Forwarder with an empty connection table. Its memory
// is known then: Stats says how much.
func NewForwarder(c ForwarderConfig) (*Forwarder, error) {
	list, err := NewForwarders(c, 1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// NewForwarders returns n Forwarders, at most MaxForwarders, which divide the connections
// among themselves; c.MaxConns is for all of them, in equal parts. What they are given has
// to come from one clock.
func NewForwarders(c ForwarderConfig, n int) (list []*Forwarder, err error) {
	if c.Seed == [2]uint64{} {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("seed of the hash tables: %w", err)
		}
		c.Seed = [2]uint64{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
	}
	shared := new(commons)
	shared.mapper.init(c.Seed[1], c.MaxConns)
	all := c.MaxConns
	for i := range n {
		c.MaxConns = max(1, (all+n-1-i)/n)
		f, err := newForwarder(c, shared, place{self: i, n: n, key: c.Key})
		if err != nil {
			for _, f := range list {
				_ = f.Close() // the first error is the one to tell
			}
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// MaxForwarders is how many may share the connections.
const MaxForwarders = 32

func newForwarder(c ForwarderConfig, shared *commons, where place) (*Forwarder, error) {
	f := &Forwarder{rules: c.Rules, common: shared, mapper: &shared.mapper, place: where}
	table, err := conntrack.NewTable(conntrack.Config{MaxConns: c.MaxConns, Seed: c.Seed, Removed: f.removed})
	if err != nil {
		return nil, err
	}
	f.table = table
	f.clients.seed, f.clients.maxRows = c.Seed[1], c.MaxConns
	f.frags = newFragments(c.Seed[0])
	f.outbox.init()
	f.limit.next = &shared.next
	f.farewells = newLimiter(farewells)
	f.id, f.cutID = uint16(where.self), uint32(where.self)
	f.scratch = make([]byte, ipv4MaxLen)
	f.Begin(0)
	return f, nil
}
