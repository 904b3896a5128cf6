// SPDX-License-Identifier: Apache-2.0

// Package sched chooses the real server of a new connection.
//
// # Goals
//
// The choices are those of IPVS, one by one: the same servers, weights and
// connections give the same sequence as the Linux kernel's ip_vs_rr, ip_vs_wrr,
// ip_vs_lc and ip_vs_wlc. The recordings in testdata/ipvs hold what a real
// kernel did, and the tests replay every line of them. A new scheduler should
// be short: one method that looks at a list and returns one of it.
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
// # Who writes what
//
// The director's goroutine adds, removes and edits servers. Any number of shards
// call [Pool.Schedule] and the Conn methods of Server at the same time. The pool
// has one small mutex, taken once per new connection; a [Scheduler] runs under it
// and needs no lock of its own. Nothing here reads a clock, and Schedule does not
// allocate.
//
// # A connection's life in the counters
//
//	Schedule ── ConnOpened ── ConnActivated ⇄ ConnDeactivated ──┬─ ConnClosedActive
//	            (inactive)     (active)        (inactive)        └─ ConnClosedInactive
//
// A connection is counted inactive from the moment it exists, active while its
// state is one of the active ones (for TCP: SYN_SENT, SYN_RECV, SYNACK,
// ESTABLISHED), and inactive again until its entry is gone. UDP never becomes
// active.
//
// # Limits
//
// A removed server keeps its counters; whoever wants IPVS's "trash" behaviour (a
// server that comes back within its time finds its old connections counted) keeps
// the *Server and adds the same one again. Counts end at 2³¹−1 active and 2³²−1
// inactive connections per server.
package sched
