// SPDX-License-Identifier: Apache-2.0

// Package ipvsadm is the ipvsadm command line on top of a vsnat director: the
// grammar, the messages, the exit codes and the listings of ipvsadm 1.31, so that
// people and scripts that know it need not learn anything.
//
// # Flow
//
//	args ── Parse ──► Command ── run ──► Director ── services, conns ──► listing
//	        args.go    command.go        director.go                     format.go
//	        options.go                   (adapter.go, wire.go:           conns.go, rules.go
//	        parse.go                      control.Director)
//	        finish.go
//
// [Parse] turns words into a [Command] and does no input or output of its own;
// host and service names go through a [Resolver]. Run calls a [Director], a small
// interface with everything the grammar can ask for. The adapter ([Adapt]) puts a
// running vsnat behind it. The tests put a model of the kernel behind it and play
// sessions with the real tool again (package recorded), byte for byte; those of
// package director do the same with a director. The interop tests compare random
// command lines and listings with the real tool.
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
// # Forwarding
//
// A server without -m, -i or -g is reached by direct routing, as with the tool:
// somebody who types what the books say, or keeps files of ipvsadm -S, gets what
// the kernel would do, and the listing says Route. `vsnat server add` and the
// configuration masquerade where nothing is said.
//
// # Differences from the tool
//
//	words                are checked before the director is asked for, so that
//	                     -h, -v and a wrong option work without one
//	names                are looked up for at most a short time per command; then
//	                     numbers are shown
//	--stats              counts to the last packet, where the kernel shows what
//	                     its estimator summed up to 2 s ago: whoever looks wants
//	                     to know now. --rate moves every 2 s, as there
//	--nosort             the kernel mixes a number into the order of services that
//	                     is another one at each start; here it is always the same
//	-S                   saves thresholds too (-x, -y): the tool does not, but
//	                     reads them
//	flag-3               of sh and mh is listed and saved: the tool writes nothing
//	                     in its place
//	large numbers        of servers are shown whole, not modulo 2^32
//	-R                   says which line failed, and how many did not; a line may
//	                     begin with the word ipvsadm
//	ipvsadm-restore      changes nothing if a line makes no sense, and a refused
//	                     line makes its exit code 255: half a restore is none
//	--pe sip             is refused as by a kernel without ip_vs_pe_sip
//	--start-daemon       is refused: there is one director only
//	hint:                a second line where the kernel would not have refused
//
// The director refuses what can only be a mistake, where the kernel takes it: a
// service or server with an address that no host can have or that never leaves
// one (0.0.0.0, multicast, broadcast, loopback), a server with its service's or
// the host's own address, a weight above 65535. It has the scheduler twos, which
// that kernel had not.
package ipvsadm
