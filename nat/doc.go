// SPDX-License-Identifier: Apache-2.0

/*
Package nat is the data plane: it takes the bytes of one IP packet, rewrites them
in place, and says what is to become of it. It knows no sockets, devices, link
layers or clocks; a test, a replay of a capture and the director drive the same
code.

# Goals and limits

It does what IPVS does with masquerading, direct routing and tunnels (VS/NAT, VS/DR,
VS/TUN), and what netfilter does for the real servers' own traffic (SNAT), on TCP, UDP,
SCTP and ICMP echo, with the ICMP errors about them, in IPv4 and in IPv6, one family on
both sides but for tunnels. It never repairs a damaged packet, never lets a private address of a
real server out, never writes outside the bytes it was lent (what becomes longer
leaves from the outbox), and never allocates, locks or asks for the
time while it forwards. What it drops, it drops for a [Reason], and counts.

It looks into no payload but that of FTP control connections, of services that ask
for it, does not put fragments together, and does not verify transport checksums: a
rewrite keeps their error.

# Who does what

	Rules      one goroutine: services, servers, SNAT rules, addresses, ports, routes
	  │        Publish: an immutable snapshot behind one atomic pointer
	Forwarder  one per shard and goroutine: connection table, port mappings,
	           fragments, counters. Begin loads the snapshot, once per batch.
	scheduler  shared by all: a mutex for one choice, atomic counts of connections
	           (package sched)

A scheduler hears of a change at once, a Forwarder with Publish; a server chosen
that the snapshot does not have yet is passed over for one that it has.

# The walk

	hit         a packet in the middle of a TCP or UDP connection, with nothing out of
	            the ordinary: all of the walk in one piece; see hit.go. The kernel may do
	            it for those that move much; see shortcut.go
	parse       header lengths, IP checksum, options, source, geometry of fragments,
	            offload; the tuple of the packet
	icmpError   an error: found by the packet it quotes
	fragment    a part: waits until its datagram is whole, which is then decided
	            about by its first part
	Lookup      an entry, from either side
	follow      there is one: port and server checked, TTL, way out, MTU, helper,
	            state, window, deadline, counters
	first       there is none. With a mark, or to an address of ours: service,
	            scheduler, insert. From a network with a SNAT rule: port, insert.
	            Else the host's.
	send        addresses, ports, TTL, checksums; where to
	wrap, cut   what goes through a tunnel, or is too large: in the outbox then

The outcome is a [Verdict]: Forward, Pass (the host has it), Drop, or Hold (kept or
answered). What the Forwarder says itself, and fragments it let go, is in the
outbox, 2,048 packets or 2 MiB a batch; who forwards on when it is [Forwarder.Crowded]
may find no room.

# Entries

The geometry is that of package conntrack: Client is outside, Virtual is ours, Dest
is inside, whoever began. States and time-outs are those of IPVS; the state of an
SNAT connection is that of its initiator, the inside host. Each packet restarts the
timer with the time-out that is set then, of what is established with that of its
service, if it has one ([ServiceSpec].Idle). A server's counts move with the entry's
state, and always are a recount of the tables. What comes for a service counts, and
moves its entry, even if it goes no further for its time to live or its size; what
comes from a server counts if it goes on.

A SYN in TIME_WAIT or CLOSE, or to a server that is gone, begins a new connection
at a server chosen anew, and is itself forwarded; on the entry of a connection under
a template it goes on to the same server, as in IPVS. The windows of both sides are
followed: a RST outside them changes nothing and goes no further; one inside that
is not exact goes on, for its receiver to challenge (RFC 5961), and changes nothing
in ESTABLISHED; a FIN outside goes on unbelieved. A SYN of the inside end in
ESTABLISHED that does not fit says that both ends have lost the connection: the
windows begin anew.

Replies to a client go to the neighbour its packets come from. Another neighbour is
believed if the segment is in the window and the routes lead to its port.

# Direct routing and tunnels

A server's [Method] may be DirectRoute or Tunnel. It has the virtual address itself,
without telling its link (on lo; arp_ignore and arp_announce), and answers the client
past us; only the way in is ours. Its port is that of the service, whoever comes to a
service by mark at whatever port, since nothing is rewritten:

	DirectRoute  the packet goes on as it came, one hop older, to the server's link
	             address. The server has to be on a link; behind a gateway it is up to
	             that one, as with IPVS
	Tunnel       the packet goes on inside another one, to the server's own address:
	             behind an IP header alone, or with GRE or GUE in between ([TunnelSpec]),
	             either family in either

	outer        from the route's preferred address, else one of that link, else of any;
	source       never that of a service, which the server would take for its own
	outer header time to live and type of service are the packet's, congestion
	             experienced before is not told twice (RFC 3168), DF as inside unless
	             PMTUDisc is off; no options, no flow label
	room         that of the way less the outer headers: the packet inside is answered
	             with frag-needed. Where it may be cut, or PMTUDisc is off, the outer one
	             is; and where IPv6 would get less than 1,280 bytes
	super-packet segmented before it is wrapped, an open checksum computed: nobody after
	             us could say what is left to be done inside
	errors about answered to the client, as about the packet inside, as far as that is
	the outer    quoted; an MTU is remembered for ten minutes for the server's address,
	packet       at least 552 bytes, since many routers quote too little

An ICMP error about an answer comes to the virtual address; it goes the way of the
connection, and the server knows what to do with it. Of the answers nothing is seen:

	states     the third column of IPVS's tables: the client's FIN leads to FIN_WAIT
	windows    the client's own numbers have to do. A RST or FIN that is not near them is
	           believed in no way, but goes on: the server knows its window
	replies    clash with nothing. What such a server sends from its own address is no
	           business of ours, unless it has masqueraded before
	hairpin    is none: a client on the servers' link gets its answer
	full table the client's ACK makes an entry held; UDP never is

How a connection is forwarded is settled when it begins; an edit of the server is for
those to come. Behind a port without link addresses there is no direct routing.

# Ends

The connections of a deleted server fare as its service said when it was deleted,
alone or with its service ([ServiceSpec].OnServerDown; gone.go has the whole):

	keep    the client's packets are dropped until the server is back. With
	        ExpireNodestConn the entries go at once, in silence
	reset   the entries go at once, and both ends are told; a UDP client by ICMP
	repick  UDP and handshakes that nobody has answered go to another server with the
	        client's next packet; all else as reset

When the last service is deleted, packets of what was kept are met as if there were no
entry, as IPVS does, which is out of the way then. A weight of 0 ends nothing.

A server that drains ([Rules.SetDrain], drain.go) is one that no persistence leads to,
and at the end of it one that gets rid of what it has as with reset, but that UDP goes
to another server; new connections its weight keeps away.

A connection that times out while it is open, in one direction at least, is told to
both ends if [Settings].ResetOnExpiry is set. A RST of ours has the number that its
receiver waits for, as far as was seen; who has missed something challenges it, and
gets the right number then. At most 20,000 ends are told a second, by each Forwarder:
of what times out beyond that nobody is told, which Stats count, and the connections
of deleted servers wait for their turn. The table is visited in portions, between
batches, so that neither holds up packets.

A deleted SNAT rule leaves its connections: its address stays ours while a port of it
is mapped ([Rules.LeavingSNATs]). Nothing begins by it, not even on the tuple of a
connection that is over.

# Signals

Of each server a Forwarder counts how many connections began, how many of them it has
answered or refused, and how long it took from SYN to SYN-ACK ([ServerSignals]; signals.go
has what counts as which). What that says of a server is for others to judge. While a
connection waits for its first answer the client's last packet has set its deadline, so
that the time of the SYN needs no room in the entry. A server may also be sent a SYN of
our own ([Probe]), whose answer is heard as those to clients are: from an address outside
its network it says whether the way back leads here.

# Settings

[Settings] has those of IPVS under names that read like its own, and they mean what
they mean there. A few need a word:

	ConnReuseMode     not 0: a SYN on what is over is scheduled anew. Bit 1 is for direct
	                  routing: also in FIN_WAIT, where the rest will not be seen
	ExpireNodestConn  also: a SYN to a server of weight 0 is scheduled anew in any state
	PMTUDisc          tunnels alone can cut what must not be cut
	ScheduleICMP      the entry that an error opens lives 3 s, in state NONE
	DropEntry,        1 and 2 look at the connection table, not at the memory of the
	DropPacket,       host: when less than a sixteenth of it is free they are at work;
	SecureTCP         see defence.go
	ClientLimit       not of IPVS: how many connections to services a client may have

# Held ports

Somebody beside the Forwarder may speak from an address that is ours alone: the
director's checks, from ports and with identifiers of pings of 62000 to 62999
([Rules.SetHeld]). What comes for them is passed, and no connection is given them.

# Services by mark

A service may be named by a mark instead of an address. Netfilter's marks come too
late for us; [MarkRule] gives packets theirs, by source, destination, protocol,
port of the destination and the link they came in by. The first rule that matches
counts. Only the first packet of a connection is asked for its mark, and its
service is looked for by mark, then by address and port; a mark without a service
says nothing. An entry has the address that the client has used as its Virtual, so
that replies come from there, and a scheduler that chooses by destination sees it
too. A server without a port of its own gets packets at the port that they are for.

A rule to a single address makes that address ours, as a service there would, if a
service has the mark. A rule to a network, or to no destination in particular,
makes nothing ours but the packets that it marks: somebody has routed them here, or
the host has the addresses. So there are destinations that are ours or not by what
is sent to them, and by whom:

	direction          what leaves is looked for first (see lookup): a client in such
	                   a network gets its replies
	real servers       what they send to a network has no mark: it could not come
	                   back to us, and a transparent proxy would ask itself
	all else           pings, other ports, broadcasts: as if there were no rule
	errors of ours     come from an address of ours on the sender's side, resets from
	                   the destination
	hairpin            the client appears with any address of ours of its family; if
	                   there is none its connection is dropped as no-snat-port
	Forwarders         a packet's outside address does not follow from its addresses alone
	                   where an SNAT network meets a marked one: only one Forwarder can
	                   have such rules

A deleted rule marks nothing any more. Its connections go on while something else
makes their packets ours; to an address that is the host's again they end there.

# Persistence

With persistence a client's connections go to the server of its first one, whatever
its weight and its thresholds, as long as its template lives. That is an entry which
no packet finds (package conntrack), by protocol, client under the mask, virtual
address and port; without the port for a service of all ports, and at port 21, where
data connections come to others; by mark, for any protocol, for a service by mark.

	life          what the service said when the template was made. It begins anew with
	              each connection, and with no other packet
	over, with    60 s more, and again; and 60 s is its life from then on
	connections
	ASSURED       from when a connection under it was established, or a datagram
	              answered; until then NONE
	not true any  its server is deleted, or has weight 0 with ExpireQuiescentTemplate:
	more          it keeps its time but not its port, 65535, and another is made
	counted       apart (ServerInfo.Persistent): by no scheduler, by no threshold

An edit of a service changes no template. A service of all ports has what is for no
other service of its address and protocol. The packet's port is the port at the server
then, as it is where a server has none; so it is for a mark with persistence, whatever
the server's. On an address that the host has such a service leaves the host no
connections of that protocol from there; SNAT has ports of it all the same.

# One-packet scheduling

Each datagram is a connection of its own that is over at once: no entry is made, and
the next goes where the scheduler says. Answers get the service's endpoint for their
source. Where the endpoint that they come from does not tell which that is, an entry
for answers alone does (see onepacket.go); two services that one client endpoint asks
at one server are answered for in the name of the last. An ICMP error from the client's
side does not say which server it concerns, and is dropped.

# SCTP

An association goes the way of a TCP connection, with IPVS's states by the first
chunk of each packet: an INIT opens it, on a closed one again; from inside as well.
A packet out of the blue is answered as a host without an association does, with
ABORT or SHUTDOWN COMPLETE (RFC 9260 section 8.4), and so is an INIT to no service.
ABORT, SHUTDOWN and the like are believed with a right verification tag only, once
both ends agreed on the tags; with another one they go on, to be thrown away.

The CRC32c covers ports, not addresses, and is linear: it is brought up to date by
what the ports changed and by the length, without a look at the payload, and an error
stays. Of a datagram in fragments the length is known when all are there. A checksum
left to the hardware is computed here, since no offload header can ask for a CRC.

Addresses in chunks (RFC 9260 section 5.1.2) are not translated: an association has
one path. A host that offers further addresses is reached at the translated one.

# Ambiguity, and hairpins

Two virtual addresses that choose one server for one client endpoint get replies
that are the same. The second connection takes another server, or, if there is
none, is dropped as reply-clash; a connection that is over gives way.

A client on the servers' link would get its reply past us. It appears with the
virtual address and a port of its own there: full NAT.

# Full NAT

A server whose way back does not lead here answers past us, and its clients hear from
somebody they do not know. Full NAT ([ServerSpec].Source) has it see a local address of
ours instead of the client's; see fullnat.go for which address and which port. It is
switched for a server by itself (SourceAuto, [Rules.SetFullNAT]): connections keep what
they began with, but for handshakes without an answer, whose next SYN begins anew. What
the server knows of its client is lost: its log has our address.

A connection takes two slots of the table. Ports are shared by connections to different
server endpoints, so that a local address is good for some 64,000 connections to each,
over ones in TIME_WAIT included (4,535 where the host has the address too). When they are
used up, what nobody has answered gives way, and then new connections are refused as
no-local-port. A local address that is ours no longer takes its connections with it.

# Port mapping

An inside endpoint gets one port of an address, whichever Forwarder has them, for all
its connections of one protocol (endpoint-independent mapping), its own if that is free
and in range, else one of its class (1-511, 600-1023, 1024-65535) found from a keyed
hash. No two endpoints share one. It goes back with the last connection. Ports of
services are never given out, nor are those of mark rules for at most 1,024 of them; of
an address that the host has too, neither are ports that it uses or takes for itself.
Filtering is by address and port: nobody but the peer of a connection reaches a mapped
port, and others are met with silence. When the ports of a rule are used up a new
endpoint is refused with ICMP host unreachable; who has one goes on.

# Several Forwarders

[NewForwarders] makes several, each for a part of the outside addresses, and each with
its part of MaxConns, its fragments, defences by the level of its own table, and its limit
for what is told of ends. A client has all that it has in one of them, so that a limit
for it is exact; one address is never spread. A packet that came to another one is not
touched, and the verdict says where it belongs: see shards.go, which has the rules, and
says what the Forwarders share. An address that two snapshots do not agree about while
one replaces the other may cost a packet, as wrong-shard.

With full NAT a server's answer does not name the client. Ports that stand for clients
are dealt out by their number, so that an answer's port tells whose it is, and an inside
endpoint may have one for each Forwarder; an answer comes by its source and is handed on.
Those of a later process, of another number perhaps, can take up all of it: see keep.go.

# FTP

A service may ask for the helper ([HelperFTP]); then the control connections to its
port are read, and data connections, which they announce, go to the same server:

	PORT, EPRT    the client names a port of its own. The server connects to it from
	              the port below its own, and the client sees the virtual address and
	              the port below the service's
	PASV, EPSV    the reply, 227 or 229, gets the virtual address for the server's, and
	              the client may connect there. The port stays, unless it is a service's,
	              somebody else's or the host's: then it is one that SNAT could hand out

A data connection has an entry ahead of its time, in LISTEN, under the control
connection, which lives as long. That of a passive one has port 0 for the client's,
which is not known yet; a SYN without an entry of its own is looked for there before
any service is. A control connection expects one at a time, the one announced last.

Only the two ends are believed (RFC 2577). A client names its own address and a port
from 1024 on, or nothing is expected; the command goes on as it is. A reply has to be
asked for, to begin where a line begins, outside a reply of several lines, and to name
the server, or the virtual address, or in a 229 nobody. That of another inside host is
replaced and nothing expected; a third host's is nobody's business here.

A reply that changes its length shifts the rest of its stream. Sequence numbers,
acknowledgements and SACK blocks are counted apart for both ends from there on (see
seqedit.go), also in RSTs of our own and in quotations. The windows hold the numbers
of the senders. What is sent again is translated alike, however it is cut; four edits
that are not acknowledged are remembered.

Each byte is read once and in order, so a segment before its turn, or a FIN, is dropped,
as helper-wait, for TCP to send it again. No other is refused for how it is cut, since
it may be cut so for ever. What may be the beginning of an endpoint is kept here and
acknowledged, and goes with the byte that tells what it is; so no part of a private
address leaves, and one that is never finished never leaves. What would be a fifth edit,
or too much for the way out, is cut off and comes again. Of segments in IP fragments
nothing can be read: they are dropped, as helper. After AUTH TLS (234) nothing is read any
more. A persistent service at port 21, with the helper or without, takes what comes to
port 20 and from 1024 on for data, too, to the server of its client; of an address
that the host has, ports that the host does not use. Super-packets are read like others.

For a client on the servers' link PORT and EPRT are rewritten too. Not followed are
connections opened from inside, to servers elsewhere, and those of direct routing and
tunnels. A server whose data connections come from another port than the one below
its own leaves through SNAT as any inside host does.

# Fragments

All fragments of a datagram wait until it is whole, 30 s at most; then the first,
which has the ports, is decided about as a whole packet is, and all go or none, the
first in front. Addresses change in each, ports and checksum in the first. So no half
of a datagram reaches a real server, whose memory for reassembly a flood of halves
would fill (4 MiB in Linux, which then refuses everybody's); and an overlap kills the
datagram before anything of it has left (see fragment.go). What never becomes whole is
dropped without an answer.

4,096 datagrams are known, 256 of one source; 1,024 slots of 2 KiB wait, 128 of one
source, so that a datagram has 128 fragments at most; the oldest give way. The
smallest time to live counts for all, and the largest fragment that must not be cut
is measured for all; what else is larger than the way out is cut. A datagram counts
as one packet of its whole length. What is dropped with the fragment that completed
or killed its datagram is counted too: as fragment-refused, or for that fragment's
reason. A datagram that the host has routed to us and that is its own goes back
whole.

# ICMP

An error is translated if it quotes a connection, is addressed to whom the quotation
names, has right checksums outside and in the quoted IP header, and quotes for TCP a
sequence number that may have been sent, for SCTP a tag in force. Outer and quoted
addresses are exchanged and the quoted transport checksum is brought up to date. No
error changes an entry. Own errors, resets and echo replies have a common limit of rate,
[Settings].ICMPRate a second and a tenth of it at once. What is told of ends has one of
its own.

# IPv6

The walk is one for both families: addresses have 16 bytes everywhere, and a view of
the IP header (ipHeader) knows which family it is of. What differs is below it:

	extension headers  read to find the transport, never changed: 8 of them, 512 bytes;
	                   refused with a routing header that has segments left, a home
	                   address, an order or form that RFC 8200 forbids
	fragments          by (source, destination, identification); the first holds all
	                   headers (RFC 7112); an atomic one is whole (RFC 6946)
	size               nothing is cut: what does not fit is answered with packet too big
	UDP checksum 0     dropped
	ICMPv6             1 to 4 are translated, parameter problem among them; own errors
	                   quote up to 1,280 bytes
	what stays on its  link-local and multicast addresses, and so all of neighbour
	link               discovery: the host's
	broadcast          there is none: the last address of a network is a host's

# When memory ends

Everything is claimed at the start or with a snapshot:

	connection table   160 bytes an entry (conntrack)
	port mappings      40 bytes a row, at most one row an entry; 64 KiB an address,
	                   256 addresses
	fragments          some 4 MiB
	outbox             2 MiB, and 64 KiB to segment in
	client limit       24 bytes an entry and 4 to 8 for its bucket, with the first limit
	FTP                850 bytes a control connection, 32,768 at most, with the first
	                   service that has the helper

A full table evicts the oldest half-open entry, then the oldest one-way one (UDP without
an answer; TCP that is over), then the template that has been without a connection for
longest. An entry heard from both sides is never evicted: the new one is dropped as
table-full. SYN and ACK with a forged source do not count as heard from both sides, but
where only one side is heard at all. A template that has served nobody goes with its
last connection; so of a flood on a persistent service, which has a template for each
packet, neither connections nor templates of true clients have to make room.

# Where it differs from IPVS

	                           IPVS                           here, and why
	RST                        believed                       in the window only (RFC 5961): a blind one ends nothing
	FIN                        believed                       in the window only
	null, xmas, SYN+FIN        move an entry, SYN+FIN opens   dropped: no TCP sends them
	SYN to a deleted server    dropped                        scheduled anew and forwarded; dropped if set
	SYN again to a server      to the same server             scheduled anew if that has not answered; to the same
	whose weight became 0                                     if set
	end of a connection        in silence                     told to both ends, if set
	timers                     up to 2 s late                 up to 0.3 s
	memory is short            few free pages of the host     few free slots of the table
	DropPacket 1, 2            in the end all                 at most every second: a full table makes room
	DropEntry                  looks at random rows           at all rows in turn
	NATICMPSend, deleted       its packet leaks               as of one that is there
	server
	same replies               mixed up                       another server, or reply-clash
	hairpin                    times out                      full NAT
	one-packet answers         leave with the server's        translated
	                           address
	flood, persistent service  a template for each, for all   gone with its connection when the table is full
	                           of its life
	port 0, host's address     what opens nothing passes      refused: the guard can't tell it from the service's
	server without an entry    its address leaks              dropped, RST to the server
	marks                      of netfilter, last rule counts of our rules, the first counts: a tap sees none
	marked, from a server      to any destination             to a single address only: the rest could not come back
	ICMP from it, no entry     its address leaks              dropped
	quoted UDP checksum        left wrong                     right
	UDP checksum 0             computed                       stays 0: nobody answers for those bytes (RFC 768)
	fragments                  reassembled, cut again         wait until all are there, and go on as they came;
	                                                          of a flood the oldest give way, not the newest
	quoted time to live        often less by 1                as it came
	first packet stopped       opens an entry                 none: what never reaches a server is no connection
	ICMP about TCP             any                            sequence number judged (RFC 5927)
	ICMP about SCTP            any                            tag judged (RFC 9260 section 10)
	SCTP ABORT, SHUTDOWN       believed                       with a right tag only
	SCTP out of the blue       left to the host               ABORT, as from a host with SCTP
	INIT with a tag, others    forwarded                      dropped: their receiver must (RFC 9260 section 8.5)
	without
	SCTP checksum              computed anew                  brought up to date: a wrong one stays wrong
	FTP on port 21             followed, with ip_vs_ftp       on any port, where a service asks for it
	FTP line in two segments   left as it is                  read across segments; an address in two goes with the second
	PORT of a third host       expected (bounce)              not expected (RFC 2577)
	227 of a third host        replaced, expected             left as it is; an inside host's is replaced
	227 nobody asked for       left as it is                  its address is replaced, nothing expected
	data port below 1024       expected                       not expected: other services are there
	passive port that is taken two share it, one wins         another one
	FTP without persistence    hides a service of all ports   does not
	client port 20             never scheduled                as any other
	tunnel, from where         any address of that link       none of a service: the server has it too
	tunnel, client's fragments put together, wrapped, cut     wrapped each for itself: as they came
	tunnel, super-packet that  cut                            answered, without DF too: TCP can send smaller ones
	is too big
	tunnel for IPv6 on a link  dropped                        cut outside: every link of IPv6 has 1,280 bytes
	with too little room
	ICMPv6 about a tunnel      for the host                   answered to the client, as in IPv4
	remcsum (GUE)              leaves an open checksum to     computes it: there is none to leave
	                           the server
	table full                 grows to the end of memory     fixed, evicts what is not held
	inside source outside      translated                     dropped as spoofed
	no server                  ICMP                           the same, RST or ABORT if set

As in IPVS, an edit that sets a threshold below the number of connections overloads
a server at once, and replies of a deleted server go on.
*/
package nat
