// SPDX-License-Identifier: Apache-2.0

/*
Package conntrack remembers connections: who talks to whom through which of
our addresses, in which state, and until when. It is the memory of the
forwarder in package nat and knows nothing of packets' bytes, services,
schedulers or clocks.

# Goals

A packet costs one bucket and a few comparisons, whichever way it goes and
however many connections there are; it allocates nothing, takes no lock and
reads no clock. A connection costs 160 bytes with everything, IPv6 or not, and
the garbage collector sees none of them. A full table, a flood of first
packets, chosen addresses and a jumping clock each have a defined answer.

# Limits

The size is fixed when a [Table] is made. A table has one owner, which alone
calls it, from one goroutine; several shards have a table each. There is no
per-client limit here. A template serves the connections of its own table only:
with several shards, the clients that it stands for meet in one (package nat).

# Geometry

Every connection has an outside endpoint (Client), an address of ours (Virtual)
and an inside endpoint (Dest), whoever opened it:

	            Client            Virtual            Dest
	DNAT       the client     the service's VIP    the server     opened by Client
	SNAT       the remote     the SNAT address     the host       opened by Dest
	FullNAT    the client     the service's VIP    the server     Dest sees Local instead of Client
	InputOnly  the client     the service's VIP    the server     Dest has Virtual too, answers past us

A packet that arrives for an address of ours comes from the outside endpoint; a packet
that leaves goes to it. So one hash, of the outside endpoint and the protocol, finds the
bucket of a DNAT connection for both directions; it is what IPVS does
(ip_vs_conn_hashkey_param) and why a shard can be chosen by the address in that key, for
SNAT too. Only a bucket needs more there: the remote of SNAT may be one server that the
whole inside talks to, and all of that would be one chain. SNAT connections are
therefore chained twice, by (client, virtual) for what arrives and by (client, dest) for
what leaves, and looked for second. Whether the destination is an address of ours is the
one thing [Table.Lookup] has to be told.

A FullNAT connection, which exists so that an inside host can be the client of
a service on its own network and that a server with another gateway can answer, breaks
the rule: its reply, Dest to Local, arrives
for an address of ours too, and from another endpoint. It therefore takes a
second slot, an alias with the key (Dest, Local) that points to the first. The
alias is found like any connection, which keeps the walk free of special cases,
and is never handed out, listed or counted.

A connection may be waited for before its client has a port: it is then in the table
with port 0 for it ([Conn.HalfKnown]), found by a tuple that has port 0 too, and
chained by (client, virtual), so that a client that is waited for at many ports is no
long chain.

# Storage

One anonymous private mapping holds the slab, an array of [Conn] of 152 bytes
each, and behind it the heads of the buckets, three for two connections, and seven
for sixteen for the second chains of SNAT, which without SNAT are never touched.

	memory   ┌─ slab: MaxConns × Conn ───────────────┬─ heads: 4 bytes each ─┐
	bucket        ┌──────────────┐◀── next ──┐       │   ▲
	              │ 152 bytes    │           └───────┼───┘ keys.hash(outside endpoint, proto)

All links are slot numbers plus one, 0 meaning none, so that fresh zeroed
memory is an empty table, which can be mapped anywhere. Slots are handed out in
order and taken again last in, first out: memory for connections that never
were is never touched. Connections never move. The heads outnumber the
connections so that a chain is short even in a full table: 1.3 connections are
looked at for a hit, 0.7 for a miss. What leaves through SNAT is looked for in a
second chain, of 2.3 connections in a table that is full of SNAT and 0.6 where a
quarter is. A look-up that finds nothing in the cache then waits for memory two or
three times; a batch of packets waits for all of them at once: see ahead.go. A
connection lies in three lines of the cache, and what a packet needs of it in those
too: that one of 128 bytes would lie in two matters little, since lines that are
waited for together cost less than a tenth of one that is waited for alone.

The hash is keyed with a secret from the system (see keys): whoever sends
packets can't tell which addresses share a bucket.

# Ambiguity

[Table.Insert] refuses a connection whose packets could be mistaken for
another's. Exists: the same first packet. Clash: the same reply. One client
endpoint that talks to two services may be given the same server and port; the
two replies would then be equal, and only one of them could be right.

# Templates

With persistence a client's later connections go to the server of its first. What
remembers it is a [Conn] too, a template, with port 0 for the client's port, in the
same table and with the same ageing: see template.go. [Table.FindTemplate] finds
it, and no packet does. It has a life of its own, restarted by each connection under
it ([Table.Restart]) and by no other packet. One that is no longer true retires: it
is found no more, and another takes its place.

# Parents

A connection may be inserted under a parent ([Table.InsertChild]): under the template
that it obeyed, a data connection under its control connection. The child has a link
to the parent, the parent a count of its children. As long as there are any the parent
does not end by its time, but lives on for 60 s at a turn, and makes room for nobody.
The fields for both are shared with what is idle then: the link with the second chain,
which is for SNAT, the count with the links of the list that a parent is not on.

A service may schedule each datagram anew. Where its answers can't be told from others
without, it leaves an entry that only they find, marked OnePacket.

# States

[State.Next] is the table of IPVS for TCP, with its directions and its quirks,
[SecureTCP] the one of its setting secure_tcp, [State.NextChunk] that for SCTP, by
the first chunk of a packet, and
[DefaultTimeouts] are its timeouts. "Inbound" there means from the initiator. The
caller stores the new state, sets the deadline to now plus the state's timeout
on every packet, and counts [State.Active] for the server: of SCTP, ESTABLISHED
alone.

# Ageing

A packet writes a deadline and no more. A wheel of 4,096 slots of 268 ms holds
every connection once, in the slot where its deadline was when it was last
looked at. [Table.Sweep] passes the slots that are due: what is over ends,
what has a later deadline now moves to its slot, which happens about once in
its life and not with each packet. A deadline that moves to earlier (a RST, a
shorter timeout set) moves the connection at once. So a connection ends within
one tick after its deadline and never before it; IPVS takes up to two seconds.

The time is a parameter and must come from a monotonic clock. A sweep has a
budget, so that when a great many are due, as after a suspension, they go in
portions between the packets and not in a lump.

# Eviction

When there is no room, something less dear makes it. The classes are half-open
TCP and SCTP, one-way UDP and ICMP, templates, and held; a list of the first three,
oldest first, makes the choice constant in time. A connection begins in one of the first two
and is moved to held by the caller once it has been answered. Held connections
are never evicted: a full table refuses new connections and keeps the old.

Templates begin like the connections that they are made for and move to their own
class once one of those is held: from then on they go last, the one whose
last connection ended first before the others. A template that has served nobody goes
with its last connection when that is evicted. So of a flood of first packets, each
with a client and thus a template of its own, nothing is left, and neither a held
connection nor a template of a client that was answered had to give way to it.

How many there are in each class and in each state is counted as they move
([Table.Counts], [Table.States]), so that who asks need not look at all of them.

# Windows

[Conn.Follow] keeps for each side the end of what it sent, its last
acknowledgement and its window, and [Conn.InWindow] says from that where a
sequence number lies for its receiver. It serves two ends. A blind RST (RFC
5961 section 1.2) must not end an entry here while the two ends, which check,
go on: the entry's loss would cut the connection just as well. And a
connection that we end ourselves needs a RST that is believed, for which
[Conn.NextSeq] has the number.

It is loose on purpose. We see what the ends see, but not what they do with it;
a checker that throws away what it does not understand breaks connections, as
the history of such checkers shows. So no data segment is ever refused. What
lies more than twice the receiver's window (at least 128 KiB) off only teaches
us nothing, so that a forged segment can't prepare a forged RST. A sender's
first segment is taken at its word, since a connection may be met in its
middle. A window scale counts if both SYNs offered one; if a SYN was not seen
the largest is assumed, because calling a true RST Outside does harm and
calling a forged one Inside does not: the receiver answers that with a
challenge (RFC 5961 section 3.2). All comparisons are differences of 32 bits,
so the wrap at 2^32 is no event.

Where somebody else forwards segments past the caller and follows them by the same rules,
[Conn.Reach] is what that takes, and [Conn.Advance] what comes back.

What a verdict means for the entry is the caller's rule: Exact ends it, Inside
is passed on but does not end it unless it is closing, Outside is dropped,
Unknown is believed or not by state.

Of an InputOnly connection (direct routing, a tunnel) only the client is seen, and
there is no acknowledgement to judge it by. The end of what it sent is then all
there is: see inWindowAlone.

# Tags

An SCTP association has no window that everybody could tell; what keeps strangers
out is a tag for each direction, which its ends agree on in the handshake.
[Conn.FollowChunk] keeps both, in the room of the windows, and [Conn.HasTag] judges.
What it means for the entry is the caller's rule again. Tags that were not seen to
be agreed fit everything, as with IPVS, which knows of none.

# Records

A connection can be written down as a [Record] and restored in another table, with its
state, its class, its windows and the time it has left: that of the next process, later
perhaps that of another host. The form is versioned by growing only: what a version has
written all later ones read. What stands for something outside of the table, a server, a
port, a mapping, its caller says in numbers of its own. [Record.Parse] believes nothing
that could not be, so that a table has no connections which no packets could have made.

# Flow

	Lookup ── found ──▶ Next, Follow, SetDeadline, perhaps SetClass
	   └───── not ────▶ FindTemplate, with persistence ──▶ Restart, or Insert
	                      └──▶ Insert, InsertChild ──▶ Inserted | Exists | Clash | Full
	                             └─ room needed ──▶ evict ──▶ Removed
	Sweep, between batches ──▶ expired ──▶ Removed, or prolonged for its children
*/
package conntrack
