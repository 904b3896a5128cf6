// SPDX-License-Identifier: Apache-2.0

// Package sched chooses the real server of a new connection.
//
// # Goals
//
// The choices are those of IPVS, one by one: the same servers, weights and
// connections give the same sequence as the Linux kernel's schedulers. The
// recordings in testdata/ipvs hold what a real kernel did, and the tests replay
// every line of them. A new scheduler should be short: one method that looks at
// a list and returns one of it.
//
//	in turn           rr wrr
//	by load           lc wlc sed nq twos
//	by weight alone   fo ovf
//	by client         sh mh
//	by destination    dh lblc lblcr
//
// # Storage
//
// A [Server] carries what a choice may depend on: its weight, its counts of
// active and inactive connections, and its overload flag. All are atomics. The
// two counts and the flag share one 64-bit word, so that a reader always sees
// counts that belong together, and the flag can never be left behind by two
// writers who overtake each other.
//
// A [Pool] holds the servers of one virtual service, the newest first, because
// that is the order in which IPVS walks them: of .2, .3 and .4 added in that
// order, rr chooses .4, .3, .2. Every tie goes to the server that stands earlier
// in this list.
//
// Schedulers that need more than the list make it when they hear of a change: sh,
// dh and mh their table of buckets, lblc and lblcr the numbers by which their
// tables name servers. Those two also keep what they chose, in a slab of a fixed
// size that is made with the scheduler: 24,576 destinations, above 16,384 of which
// the idle ones go. It takes 0.8 MB for lblc and 2 MB for lblcr, per service, once
// it is full.
//
// # Options and reasons
//
// A service's flags (sh-port, sh-fallback, mh-port, mh-fallback) are [Options] of
// its pool: they stay when the scheduler changes, and act at once on one that goes
// on. [Pool.Explain] chooses as [Pool.Schedule] does, by the same code, and says
// why; the explanations stand below each Pick and cost it nothing.
//
// # Who writes what
//
// The director's goroutine adds, removes and edits servers. Any number of shards
// call [Pool.Schedule] and the Conn methods of Server at the same time. The pool
// has one small mutex, taken once per new connection; a [Scheduler] runs under it
// and needs no lock of its own. Schedule does not allocate. Nothing here reads a
// clock: the time comes with the [Request], and what lblc and lblcr forget with time
// they forget at the next connection, as if at the minute when it was due. Chance,
// for twos, comes from a source that a test or a simulation may choose.
//
// # A connection's life in the counters
//
//	Schedule ── ConnOpened ── ConnActivated ⇄ ConnDeactivated ──┬─ ConnClosedActive
//	            (inactive)     (active)        (inactive)        └─ ConnClosedInactive
//
// A connection is counted inactive from the moment it exists, active while its
// state is one of the active ones (for TCP: SYN_SENT, SYN_RECV, SYNACK,
// ESTABLISHED), and inactive again until its entry is gone. UDP never becomes
// active. A persistence template is counted apart (TemplateOpened, TemplateClosed):
// no scheduler sees it and no threshold counts it. A datagram that is scheduled for
// itself is opened and closed at once.
//
// # Limits
//
// The minutes of lblc and lblcr are counted from a service's first connection, in
// the kernel from the moment it got its scheduler. Where the kernel refuses more
// than 4093 servers for mh, those at the end of the list have no clients.
//
// A removed server keeps its counters; whoever wants IPVS's "trash" behaviour (a
// server that comes back within its time finds its old connections counted) keeps
// the *Server and adds the same one again. Counts end at 2³¹−1 active and 2³²−1
// inactive connections per server.
package sched
