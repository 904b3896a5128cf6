// SPDX-License-Identifier: Apache-2.0

package metrics

import "time"

// Snapshot is what a director shows at one moment. Lists are in a fixed order, so
// that of too many the same ones are shown each time.
type Snapshot struct {
	Version, IO, Guard string

	Problems int  // that Health tells of
	Ready    bool // it would serve

	ReloadRefused bool               // the last reload was
	Reloaded      time.Time          // when the configuration in force was taken up
	Events        map[string]float64 // by kind

	Services []Service
	Checks   []Check
	SNAT     Counters
	Rules    []SNATRule
	Pools    []Pool

	Packets    map[string]float64 // by outcome: forwarded, passed, dropped, held
	Drops      map[string]float64 // by reason; all of them, also those that never happened
	Suppressed map[string]float64 // answers that were not given, by the reason of the drop
	Ignored    float64            // frames that are not for us
	Farewells  float64            // ends of connections told that they are over

	MaxConns    int
	TableBytes  int64
	Classes     map[string]float64 // connections by class
	States      map[string]float64 // connections by state
	Removals    map[string]float64 // by cause
	ExpiredOpen float64
	Offloaded   Offloaded

	Latency    Histogram // from the turn in which a frame was read to its being sent
	Shards     []Shard
	Links      []Link
	Neighbours Neighbours
}

// Key names a service or a server of one.
type Key struct {
	Proto, Service string
	Server         string // of a server only
}

// Counters are those of a service or of a server.
type Counters struct {
	Conns, InPackets, OutPackets, InBytes, OutBytes uint64
}

// Service is a virtual service.
type Service struct {
	Key
	Counters
	Scheduler string
	Servers   []Server
}

// Server is a real server of a service.
type Server struct {
	Key
	Counters
	Active, Inactive, Persistent int
	Weight, Configured           int // in force, and configured
	Overloaded                   bool
	Elsewhere                    bool   // its answers to clients go past the director
	Ordered                      bool   // an operator has taken it out of service
	Checked, Up                  bool   // by its checks
	Asked, Answered, Refused     uint64 // first packets of connections, and what came of them
	Handshake                    Histogram
}

// Check is one check of a server.
type Check struct {
	Server, Name          string // type; with a number if there are several of that type
	Up                    bool
	Good, Bad, Impossible uint64
	Signals               uint64
	Latency               float64 // seconds, of the last
}

// Available reports whether the server takes new connections.
func (s *Server) Available() bool { return s.Weight > 0 && !s.Overloaded }

// SNATRule is a rule for connections that inside hosts open.
type SNATRule struct {
	From, To string
	Capacity int // ports it may hand out, per protocol
}

// Pool is the ports of an address that are in use.
type Pool struct {
	Address string
	Used    int
}

// Shard is one packet loop.
type Shard struct {
	Name           string // its number
	Received, Sent uint64 // frames
	Given, Taken   uint64 // packets that belong to another
	Conns          int
}

// Link is a network interface.
type Link struct {
	Name                       string
	Up, Serving                bool
	InFrames, InBytes          uint64
	OutFrames, OutBytes        uint64
	KernelDrops, ReceiveErrors uint64
	Truncated                  uint64
	SendDrops, SendRefused     uint64
}

// Neighbours are what is known of other stations.
type Neighbours struct {
	Entries, Queued                                   int
	Requests, Replies, Conflicts, Unsolicited, Failed uint64
	Refused                                           uint64 // frames that found no room to wait
}

// Histogram counts observations by size.
type Histogram struct {
	Bounds []float64 // upper bounds of buckets, rising, without +Inf
	Counts []uint64  // of each bucket by itself, and of what is above them
	Sum    float64
}

// Offloaded is what the kernel forwards.
type Offloaded struct {
	Conns          int // now
	Packets, Bytes float64
}
