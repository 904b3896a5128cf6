// SPDX-License-Identifier: Apache-2.0

package sched

import "net/netip"

// A Request describes the connection that needs a server.
type Request struct {
	Proto   uint8          // IANA protocol number: 6 TCP, 17 UDP
	Client  netip.AddrPort // who connects
	Virtual netip.AddrPort // what it connects to: the packet's destination, also if the service is a firewall mark

	// Now is the time in nanoseconds, on a clock that never goes back; its zero
	// is anywhere. Only lblc and lblcr look at it: where it stands still they
	// forget nothing.
	Now int64
}

// A Scheduler chooses a server for each new connection of one service. Its
// methods are called under the pool's lock: it may keep state without one, but
// must not call the pool, block, or keep the list.
type Scheduler interface {
	// Name is the word for it in commands and listings, such as "rr".
	Name() string

	// Pick returns one of servers, or nil if none may be chosen. Servers that
	// are not [Server.Eligible] may not. The list is newest first, may be empty,
	// and is valid only during the call. Pick does not allocate.
	Pick(servers []*Server, r *Request) *Server
}

// A Watcher is a Scheduler that keeps something about the list, such as its
// place in it or a table made from it, and must hear of changes.
type Watcher interface {
	Scheduler

	// Changed is called after each change, with the list as it is now, and once
	// with a Reset when the scheduler takes over a list.
	Changed(servers []*Server, c Change)
}

// A Configurable is a Scheduler with options.
type Configurable interface {
	Scheduler

	// SetOptions is called with the service's options, all of them, before the
	// Reset and at each edit of the service. It leaves all else as it is.
	SetOptions(o Options)
}

// An Explainer is a Scheduler that can say why it chose.
type Explainer interface {
	Scheduler

	// Explain does what Pick does, by the same code, and returns the reason in a
	// few words too.
	Explain(servers []*Server, r *Request, name Namer) (*Server, string)
}

// A Namer is how a server is called in an explanation.
type Namer func(*Server) string

// A Change is what happened to a list.
type Change struct {
	Kind  ChangeKind
	Index int // where the server stands or, if Removed, stood; 0 for Reset
}

// A ChangeKind says what kind of change happened.
type ChangeKind uint8

// The kinds of change. Reset starts over with a list: nothing kept before is
// true. Edited is sent for every edit, also one that set the weight it had.
const (
	Reset ChangeKind = iota
	Added
	Removed
	Edited
)
