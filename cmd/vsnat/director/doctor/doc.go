// SPDX-License-Identifier: Apache-2.0

/*
Package doctor examines a host that is, or is going to be, a director: whether
anything there, or at the real servers, keeps the cluster from working, and what
to do about it.

# Goals and limits

Every finding says what is wrong in words of the cluster and, where there is one,
the command that mends it. On a healthy host there is none. Nothing is changed,
neither here nor at a server, and what is sent is a handful of small packets for
each server, over at most three seconds.

It works beside a running director, whose configuration it takes then, and before
the first start, from a file. Without the right to open packet sockets the servers
cannot be asked, which is a finding of its own; what could not be looked at is
said, never taken for good.

# How

	facts     what the kernel says of this host, read once (facts.go)
	plan      which addresses are ours, which servers there are and by which link
	          they are reached, from facts and configuration (plan.go)
	checks    functions of both, one subject each (host.go, legs.go)
	probes    packets to what the plan names, and the answers (wire.go, frames.go,
	          probes.go)
	servers   what the answers mean (servers.go)

A server whose default gateway is another than this director answers whoever is in
its own network and nobody else as far as we can see. So it is asked twice, from an
address in its network and from one of ours outside it (the virtual address): the
frame is made here, so that no address needs to be the host's, and the answer is
seen by a packet socket before any guard. A host that does not know the port of
the answer resets it by itself; an address that is vsnat's alone is answered for by
the running director.
*/
package doctor
