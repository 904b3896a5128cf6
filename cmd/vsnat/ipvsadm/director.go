// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"net/netip"
	"time"
)

// A Director is what the command line talks to. Its refusals are an [*Error],
// possibly wrapped; any other error is trouble on the way.
type Director interface {
	// Info is what the first line of a listing tells.
	Info() (Info, error)

	AddService(Service) error
	EditService(Service) error // replaces all but the key
	DeleteService(ServiceKey) error
	Flush() error

	AddServer(ServiceKey, Server) error
	EditServer(ServiceKey, Server) error // replaces all but address and port
	DeleteServer(ServiceKey, netip.AddrPort) error

	// Services lists services in an order of the director's own, each with its
	// servers newest first. The result belongs to the caller.
	Services() ([]ServiceEntry, error)

	// Conns calls f for each connection until it returns an error, which Conns
	// returns then.
	Conns(f func(Conn) error) error

	// Zero sets the counters of one service to 0, or of all if key is nil.
	Zero(key *ServiceKey) error

	Timeouts() (Timeouts, error)
	SetTimeouts(Timeouts) error // what is not 0

	Daemons() ([]Daemon, error) // the master first
	StartDaemon(Daemon) error
	StopDaemon(Daemon) error
}

// A Batcher is a Director that makes many changes of services and servers at once,
// as a restore has them.
type Batcher interface {
	// Changes makes them one after the other, and goes on after one that is
	// refused: each has its error, or nil. On an error of its own some may have
	// been made.
	Changes([]*Command) ([]error, error)
}

// Info describes the director itself.
type Info struct {
	Version [3]int // of IPVS, whose behaviour it has
	Size    int    // rows of the connection table, as the kernel counts them
}

// A ServiceEntry is a service with its state.
type ServiceEntry struct {
	Service
	Stats   Counters
	Rate    Counters // per second
	Servers []ServerEntry
}

// A ServerEntry is a real server with its state.
type ServerEntry struct {
	Server
	InForce    *int // weight that the listing shows; nil: Weight, which is the one that -S saves
	Active     int
	Inactive   int
	Persistent int // templates
	Stats      Counters
	Rate       Counters // per second
}

// weight is what the listing shows.
func (s *ServerEntry) weight() int {
	if s.InForce != nil {
		return *s.InForce
	}
	return s.Weight
}

// Counters count what a service or a server carried. Bytes are of IP packets,
// without link headers.
type Counters struct{ Conns, InPackets, OutPackets, InBytes, OutBytes uint64 }

// A Conn is a connection as listed.
type Conn struct {
	Proto   string // TCP, UDP, SCTP, or IP for a template of a mark
	State   string
	Expires time.Duration
	Client  netip.AddrPort // port 0 for a template
	Virtual netip.AddrPort
	Server  netip.AddrPort

	Engine, EngineData string // of persistence, "" for none
}
