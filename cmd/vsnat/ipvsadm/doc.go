// SPDX-License-Identifier: Apache-2.0

// Package ipvsadm is the ipvsadm command line on top of a vsnat director: the
// grammar, the messages, the exit codes and the listings of ipvsadm 1.31, so that
// people and scripts that know it need not learn anything.
//
// # Flow
//
//	args ── Parse ──► Command ── run ──► Director ── services, conns ──► listing
//	        args.go    command.go        director.go                     format.go
//	        options.go                   (adapter.go: control.Director)  conns.go, rules.go
//	        parse.go
//
// [Parse] turns words into a [Command] and does no input or output of its own;
// host and service names go through a [Resolver]. Run calls a [Director], a small
// interface with everything the grammar can ask for. The adapter ([Adapt]) puts a
// running vsnat behind it, and refuses with a hint what vsnat doesn't do. The
// tests put a model of the kernel behind it and replay recorded transcripts of
// the real tool, byte for byte.
//
// # Who refuses what
//
// Like the tool, Parse only knows what is wrong with the words themselves. What
// exists, and which scheduler is known, the director decides. Its refusals are
// printed in the kernel's words.
//
//	exit  1  a service was to be listed and is not there
//	exit  2  the words are wrong, or there is no director to talk to
//	exit 255 the director refused; an option is unknown or has no value
//
// # Differences from the tool
//
// Words are checked before the director is asked for, so that -h, -v and a wrong
// option work without one. -r may stand before the service and still takes its
// port from it. Names are looked up for at most a short time per command; then
// numbers are shown. A restore line may begin with the word ipvsadm. Services
// have no kernel hash order: --nosort lists them as they were added.
//
// vsnat masquerades: servers need -m, and -g (the default of the grammar) and -i
// are refused. Not there yet either, and refused by the adapter: firewall marks,
// SCTP, persistence, one-packet scheduling, scheduler flags, sync daemons.
package ipvsadm
