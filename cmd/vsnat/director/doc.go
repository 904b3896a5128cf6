// SPDX-License-Identifier: Apache-2.0

// Package director is the control plane: it decides, and tells the packet loops
// what to do. What it is told itself comes from a file (package config) and over
// a socket (package control).
//
// # Where to look
//
//	run, options, privileges,      start and stop; what is given up, what the service
//	notify, keep                   manager is told, what is left for the next director
//	decide                         the goroutine that owns all, and the ways to it
//	changes, answers, refuse       what is asked for over the socket, and what is refused
//	reload, trial, running         whole configurations; words: theirs and those of nat.Rules
//	checking, checkpath            checks of servers; drain: servers out of service
//	passive, account, wayback      what the packets of clients say of servers
//	world, ports, routes, marks,   the host: links, ways, what its own stack must not get;
//	hostports, shield, tunport     workers: what several shards mean for rules;
//	offload                        offload: what the kernel forwards
//	listings, health, ready,       what is told: lists, how it goes, problems and what to
//	findings, nearly, events,      do about them, counters
//	rates, metrics
//
// Each of the rest is a package: roster (servers and their weights), shard (the packet
// loop), state (the file for the next director), metrics (what Prometheus is shown), doctor
// (what keeps a cluster from working), confine (what a process gives up).
//
// # At work
//
// [Run] starts three goroutines and a thread, and one goroutine for each check of a
// server:
//
//	decide    decide.go   owns all that is configured; the only one that changes it
//	watch     decide.go   reads links, addresses and routes when the kernel says that they changed
//	control   control/    serves the socket; each request is a goroutine that asks decide
//	shard     shard/      reads, judges and sends packets; a thread of its own, one for
//	                      each of workers
//	checks    checking.go a health.Monitor finds out which servers serve
//
// and every piece of state has one owner:
//
//	nat.Rules, roster, Config, world, guard, rates   decide
//	results of checks                                the Monitor's mutex; decide asks for them
//	queues, nat.Forwarder, batch, MAC cache          shard; see there
//	Neighbours                                       a mutex; shards, and decide when the host changes
//	the published snapshot of the rules              immutable; decide stores it, shards load it once a batch
//
// The director asks all shards where it has one question, one after the other, between two
// batches of each.
//
// There are five ways between them, and no other. Into decide: calls, which the
// caller waits for; tell, which never waits and may forget; and the Monitor's word
// that it has news, which decide then reads. Into the shard:
// Do, a function that is called between two batches and waited for, and the
// snapshot. The shard waits for nobody: what it has to say goes by tell, so that a log
// nobody reads holds up decide at most, and what tell forgets (a port that failed) is
// found by auditPorts.
//
// # Start and stop
//
// A start makes all that can fail before it says ready: control socket (so that
// a second director is refused by name), rules, topology, connection table,
// guard, ports, the first publish; then it gives up its capabilities but two, and the
// system calls that a director at work has no use for (package confine).
// What fails there ends it, and everything made so far is given back.
//
// A stop is the context's end, or the end of any of the four. decide refuses
// what is still asked, the shard ends after the batch at hand and closes its
// ports, the host's routing is put back, and the guard goes last: as long as
// there are connections to be let go of, the host must not answer for them.
//
// What packets and checks have taught it, and what operators have ordered, a director
// leaves in a file for the next one (keep.go, package state): written when the shards
// have ended and the guard still stands, read before the first publish, which brings the
// connections together with the rules, and removed when the next one serves. What is
// configured is not in it, so that a change of the configuration holds for what goes on.
// Who is killed leaves nothing: what is sent on its connections is answered with a RST.
//
// A service manager (notify.go) is told of start, reload and stop, and each tick that
// decide and all packet loops go on.
//
// # Offload
//
// If `offload` asks for it, the kernel forwards what is in the middle of connections that
// move much (offload.go, package shortcut). The table is made, and the programs are
// loaded, before capabilities are given up; a link gets its program before its queues are
// opened, and loses it before they are closed. Without, all goes through the shards.
//
// # Changes
//
//	a call of the socket    change: checked, made in the rules, publish
//	a reload                tried on a copy of the rules; only if each step is
//	                        accepted are they made, and then published as one
//	a whole configuration   the same, from the socket; on trial it is taken back
//	                        unless it is confirmed in time (trial.go)
//	a drain                 an order that the roster heeds, and a job that counts
//	                        what is left, with each tick (drain.go)
//	the host                hostChanged, follow: ports, routes, addresses,
//	                        neighbours; then publish
//	the host's sockets      refreshHost every 5 s, if an address is shared; within a
//	                        second when a packet is refused that may be for one
//	a port that failed      portLost; follow with the next tick
//	what clients see        judgeClients, ten times a second: servers that do not answer
//	                        or refuse (passive.go), answers that go elsewhere (wayback.go)
//	time                    tick: deleted servers, announcements, estimator
//	a check                 heard; publish if a server came or went
//
// All end in publish, whose order matters: the guard learns of the new rules
// before the shard does, so that the host never answers for what is about to be
// ours; then the snapshot, then the filters; new addresses are announced when
// all of it is in force, and again 2 s later (RFC 5227, 2.3), those of IPv6 when it
// is known that nobody has them (RFC 4862, 5.4). What was accepted
// stays accepted: a guard that fails, or a port that does not open, is a problem
// that Health tells of, that is tried again each second, and that goes away when
// it is over.
//
// # Servers and their weights
//
// What is configured of a server and what is in force are two things, and package roster
// keeps both: it says what the weight of a server is, and has the rules follow. Who
// changes services and servers asks the roster; heed (checking.go) has it learn what
// checks have found out, and tells of what came of it.
//
// Checks go the way of their server's packets (checkpath.go): by the host's stack
// where that leads there by the same link, else, from an address that vsnat alone
// has, by a stack beside the packet loop (package userstack), which passes by what
// comes for it. Scripts run in another process, see health.Runner.
//
// # Monitoring
//
// Who measures gets a snapshot (metrics.go): one call of decide, and in it one visit
// to each shard between two batches, for copies of counters. Nothing is counted for
// monitoring alone but the time of a batch, for which a shard reads the clock once when
// the batch was sent. ready.go answers yes or no: alive, if decide and each
// shard answer; ready, if links are open and the host is kept away. The address for
// them is opened at the start, if there is one, and served by package control.
//
// # Events
//
// What an operator may want to hear of later goes to the event log as well
// (events.go): who changed what, links, addresses, and each problem when it
// begins and when it is over, compared once a tick. decide notes them, and any
// goroutine may that is allowed to take a lock.
//
// # The host
//
// An index stands for a link in connections, so that it stays with the link
// through a new name, and with the name through a new link; see ports.go. Routes
// that say no, and those by links that are not served, are kept as routes
// without a port: what they match must not leave by a wider one.
//
// What mark rules take (marks.go) is read, and kept from the host, as what is sent
// to services is: ports of single addresses of the host by endpoint, the rest by a
// rule of the guard for each. A network is never answered for. With io: tun no rule
// matches a link: Health says so.
//
// With io: tun there is one port, the device that the host routes to. The host
// sends, so that all its links count as ways out, and what is none of ours goes
// back to it as it came; if it forwards nothing by itself, only what is for it.
package director
