// SPDX-License-Identifier: Apache-2.0

// Package shard is the packet loop: the one place where package nat, which judges
// packets, and package iface, which moves frames, meet. It knows no configuration and
// decides nothing; package director does, and tells it.
//
// A [Shard] is one goroutine on a thread of its own, which has a part of the connections
// and a queue of each [Port]. A frame is borrowed from Read until the next Read of its
// port; what leaves is written before that, and earlier where the outbox of the Forwarder
// fills, as with super-packets that go through tunnels in segments. The packet's way is in
// shard.go and depart.go, in the order in which a frame meets it.
//
// A [Set] is all shards. They divide the connections by outside addresses (package nat),
// and what arrives by queues (package iface). Nothing depends on what the kernel makes of
// that: a packet that came to the wrong shard is copied to the right one through a ring
// (handover.go), which is bounded and never waited for. ARP and the like are no shard's:
// Neighbours is one for all, and the first shard keeps its time.
//
// # Who owns what
//
//	queues, Forwarder, batch, MAC cache    the shard
//	Neighbours                             a mutex; the shards, and who changes the host
//	the snapshot of the rules              immutable; loaded once a batch
//	a ring                                 one shard puts, another takes
//
// There are two ways into a shard: Do, a function that is called between two batches and
// waited for, and the snapshot. The shard waits for nobody. In particular it writes no
// log: of a port that failed, and of a packet that may be for the host, it tells by
// functions that do not wait.
//
// # Shortcuts
//
// What is in the middle of connections may be forwarded by the kernel (package shortcut).
// Which of them, and when, a Forwarder finds out; shortcuts.go brings it to the rows of a
// table, each shard to its own: ports become links, next hops link addresses. When a
// neighbour may have another link address all rows are looked at, and those that lead
// elsewhere are closed; so are those of a link whose program gets nothing of what the
// filters have left to it.
//
// # Time
//
// A shard that expects something looks for it for a while before it sleeps (linger.go).
// What is due by time alone, ageing and neighbours, is done ten times a second. The clock
// is read when the shard wakes and when a batch was sent, which tells how long packets
// were in the director (latency.go).
package shard
