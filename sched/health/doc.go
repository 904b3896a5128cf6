// SPDX-License-Identifier: Apache-2.0

// Package health finds out whether real servers serve.
//
// # Rise and fall
//
// A [Machine] turns results into a [State]:
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
// What the packets of clients tell ([Signal]) counts as results of the same machine.
//
// Nothing here reads a clock that a test cannot replace, and nothing here changes a
// weight: what a state means for a server is the director's business.
package health
