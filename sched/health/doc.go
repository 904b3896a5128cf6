// SPDX-License-Identifier: Apache-2.0

// Package health finds out whether real servers serve.
//
// # Checks
//
// A [Spec] is a check, a [Target] a check of one server, and a checker makes it:
// one file for each kind. Each ends at its own time-out, and reads a bounded part of
// what a server sends: 1 MiB of a body, 64 KiB of a header, 100 lines of a greeting.
// Redirects are not followed. Whatever a server says is made printable.
//
// A result is Good, Bad, or Impossible: the server was never asked, for want of a
// descriptor, a port, a route, a right. That is nothing against the server, whose
// state stays as it is.
//
// How a server is reached is not this package's business: a [Dialer] is handed in.
//
// # Rise and fall
//
// A machine (machine.go) turns results into a [State]:
//
//	           first success              Fall failures in a row
//	(Unknown) ──────────────► Up ─────────────────────────────────► Down
//	     │                     ▲                                      │
//	     │ first failure       └───── Rise successes in a row, ───────┘
//	     └──────────────────────────► and not held down any more
//
// The first result of all decides at once. A machine that falls soon after it rose
// is flapping, and is held down, twice as long each time ([Limits].HoldDown): one
// result good and one bad never makes a storm of changes.
//
// What the packets of clients tell ([Signal]) counts as failures of the same machine.
//
// # Monitor
//
// A [Monitor] runs each check in a goroutine of its own, the first within a quarter of
// a second, and then the begin of one an interval after that of the one before; sooner
// ([Spec].Recheck) where a result contradicts the state and is not yet enough. It keeps
// state, counts and the last results, by the content of the check: what is in the list
// that Set is given, and was before, goes on as if nothing had happened. Who wants to
// know what changed waits for News and asks. What it knows survives it as Memories,
// which another one can Recall.
//
// # Scripts
//
// Programs are run by another process ([Runner], [ServeRunner]) that was started
// while the director still had the right to become another user. It gives up all
// rights before it runs anything. When a program ends or its time does all is killed
// that came of it, and be it a daemon in a session of its own (kin.go).
//
// Times come from the runtime's clock, which tests replace; nothing here changes a
// weight: what a state means for a server is the director's business.
package health
