// SPDX-License-Identifier: Apache-2.0

/*
Bench compares vsnat with what else can stand in its place.

	go run ./bench compare

builds the reference cluster (package lab), where client, director and three real
servers are namespaces of one machine and share its processors, so that every
wasted cycle of the director shows. In it the peers serve the virtual address one
after the other:

	vsnat          all through user space: packet sockets, offload: none
	vsnat-offload  the same, but the kernel forwards what is in the middle of
	               connections that move much: offload: tcx
	vsnat-tun      io: tun
	kernel         nftables: DNAT to the servers in turn, SNAT
	haproxy        mode tcp, one thread
	nginx          stream, one worker
	forward        the kernel as a plain router, the client asks the servers
	               themselves: what the path costs without any NAT

# How it measures

Machines are noisy, so nothing is believed that was measured once: a round lets
each peer carry each load once, each round begins with another peer, and what
counts are medians of the rounds, and ratios of medians. The spread is printed
beside them: a ratio within it says nothing.

The loads are made here, by this very program in the namespaces of the client and
of the servers (loads.go has the list), so that no other program is needed. If iperf3
or wrk is installed it measures the same once, as a check on ours: rows of that
name. A peer whose program is missing is named with how to install it, and left out.

Beside the load's own figure each run notes what the whole machine spent for one
operation (all processors, /proc/stat), since the work of a kernel's NAT is nobody's
process. Memory is what the peer's process and the kernel hold more than before. With
TCP connections the kernel's part is that of the whole machine, ends included: the row of
forward is what these take alone.

The loads named flows fill the peer's table first. A peer that can't hold as many
connections does not carry them: proxies, which hold TCP alone, with two sockets for
each, and the kernel's NAT beyond nf_conntrack_max, which is the whole machine's and
not ours to change.

A peer must not pay for what the one before has left. Servers remember the ends of
connections for a minute, so forward, which speaks to them by other addresses than all
others, has addresses of the client for itself; the kernel's NAT has its connections
taken away at the end of its turn.

# Files

	main.go       commands
	compare.go    rounds
	bed.go        the cluster, and what runs in its nodes
	usage.go      processor time and memory
	peers.go      who is compared
	loads.go      what they carry
	held.go       connections that are held
	client_*.go   load generators, in the client
	server.go     what answers, in the servers
	report.go     medians and ratios
	page.go       tables, for a terminal and for README
	picture.go    the same as SVG
	compare.*     what was measured last, as README shows it
*/
package main
