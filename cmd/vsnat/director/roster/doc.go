// SPDX-License-Identifier: Apache-2.0

// Package roster keeps what is configured of services and servers beside what of it is in
// force, and decides what the weight of a server is.
//
// In the rules a server has the weight that its standing gives it (weight.go, the only
// place that says so): what an operator ordered comes before what clients' packets and
// checks say, and that before the configuration. Every change of services and servers goes
// by the [Roster]. Then, as often as there may be news:
//
//	Targets    what is to be checked
//	Learn      takes up what checks have found out (learn.go)
//	Settle     has the rules follow (settle.go)
//
// What follows from a standing:
//
//	down                weight 0; with on-check-failed: remove it is deleted from the
//	                    rules, and its connections fare as on-server-down says
//	not checked yet     weight 0, unless start: up; a check that is new to a server
//	                    that is in use takes nothing away before its first result
//	shunned             weight 0, for what clients' packets said (shun.go)
//	slow start          while one rises all weights of its service are multiplied, so
//	                    that the share has steps to grow by; listings divide again
//	too few left        with panic, those that are down have their weight all the same
//	none left           the sorry server is added; later it has weight 0 until its
//	                    connections are over, or with persistence is deleted at once
//	quorum              whoever calls Settle is told when it is gained or lost, with the
//	                    program to be run
//
// A weight is in force at once, since schedulers read it; that a server came or went is
// when the rules are published. The connections of a server of weight 0 stay with it.
//
// Nothing here waits, knows a clock or writes a log: time is a parameter, and what happened
// is returned. One goroutine owns a Roster and its rules.
package roster
