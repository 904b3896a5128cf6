// SPDX-License-Identifier: Apache-2.0

// Package iface moves frames between network links and the shards that
// translate them.
//
// # Goals
//
// A shard must be able to read and write 64 frames with one system call each,
// among them super-packets of 64 KiB, without an allocation, a lock or a copy
// beyond the two the kernel makes. Nobody must be asked to run ethtool: segments
// that the kernel merged and checksums that it left open pass through with the
// offload header that describes them.
//
// # Limits
//
// One packet socket reads one link, or its share of one. Links are Ethernet-like or carry bare IP
// packets. Frames above 64 KiB (the kernel's BIG TCP) do not fit a slot; they
// are flagged as truncated and never sent on. 802.1Q tags that the kernel took
// off are flagged, not put back.
//
// # Storage
//
// A packet queue owns [BatchSize] receive slots of 64 KiB and the message
// headers that point at them; they are made once. Read lends the slots to the
// caller until the next Read. Write borrows the memory of the frames until it
// returns, so that a frame read from one queue is written to another without a
// copy in between. The slots belong to the Go heap, although they hold no
// pointers: a frame still in use when another goroutine closes the queue stays
// readable. Beside them there are two rings of small slots, shared with the kernel: one
// that frames arrive in, and on Ethernet one that small frames are sent through.
//
// # States
//
// A queue is open or closed. While it is open its link may go down and come
// back: Read and Write then report an error for which [IsDown] is true, and work
// again when the link does, with no help from the caller. When the link is
// removed or leaves the network namespace, the error is one for which [IsGone]
// is true, and the queue can only be closed. The kernel wakes a poller for a
// link that goes down, but not for one that disappears while down; who must
// know that watches the topology.
//
// # Flow
//
// The kernel hands each arriving frame to the packet socket before its own
// stack, and the stack sees it as well ("tap"): keeping the host from answering
// is the business of the guard. The classic BPF program built from [Filter]
// decides which frames are copied for us. It is in place before the socket is
// bound to its link, so no other frame is ever delivered. Our own transmissions
// are not looped back (PACKET_IGNORE_OUTGOING). Networks that mark rules are about
// are read whole, although most of what goes to them may be the host's to forward.
//
//	link → Filter → Queue.Read → (the shard translates in place) → Queue.Write → link
//	                  ↑                                              │
//	               Poller ← Wake (other goroutines)                  └ drops are counted, never waited for
//
// Where the link has a queueing discipline frames go through it, as the host's own do
// (see [EgressByLink]). A write never blocks. A frame that the kernel refuses is skipped and counted;
// when the link's transmit queue is full the frame is tried a bounded number
// of times, then dropped and counted.
//
// Where somebody nearer to the link takes frames for itself, a [Sieve] attaches the filter
// instead, and leaves those out (package shortcut).
//
// # Several queues
//
// A link may have one queue for each shard ([OpenPackets]). The kernel divides what
// arrives between them by a program of ours (PACKET_FANOUT_CBPF), which computes by an
// outside address whose packet it is ([Steering]); it is replaced with the filter. The
// queues are opened, and have to be closed, together. A TUN device has several as well
// ([OpenTUNs]); there the kernel remembers by which one a flow was written last. Either is
// a help that may fail for a packet: who reads has to look, and hand over.
//
// # Cost
//
// A super-packet is copied twice, into a slot and out of it: a third of what a shard's
// thread does for it. Another third is the work of a receiver on the same host, which
// the kernel does inside of our sendmmsg; judging and rewriting are one part in fifty.
// So a plain relay is no faster, and what a kernel saves that copies nothing cannot be
// had from here. What can is that the copies come from the processor's own cache, which
// is why large frames are read a few at a time.
//
// For small frames it is the number of calls and of things prepared for each that counts,
// and on which processor that is done, hence the rings. In the one for sending the kernel
// finds all frames of a batch by one call. In the one for receiving it has copied a frame
// when we come to know of it, on the processor that the frame arrived on; without that our
// thread, which is the one that is short of time, has to receive each, and to give back
// memory that came from another processor. A frame that is too long for its slot is
// received by a call, in its turn. A socket whose ring has failed goes on without, and so
// does one that cannot have any (packet_receive_ring.go).
//
// What looks as if it paid, and does not:
//
//   - Busy polling in the kernel (SO_BUSY_POLL, SO_PREFER_BUSY_POLL, EPIOCSPARAMS). A socket
//     is polled for by way of the receive queue of hardware that its last packet came from,
//     and packet sockets keep no note of that, whatever the driver.
//   - TPACKET_V3 holds frames back for a millisecond.
//   - poll instead of epoll, system calls that Go's scheduler does not hear of, other
//     settings of the garbage collector: the loop makes no garbage, so that it hardly ever runs.
//   - A thread for each port that blocks in recvmmsg: both directions of a connection are one
//     thread's, or each packet takes a lock and finds its entry in another processor's cache.
//   - To send super-packets from the memory of a ring copies nothing on hardware, but where
//     the receiver is on this host, the kernel copies then (skb_orphan_frags): nothing is won.
//   - To pass a queueing discipline by. Where there is one, a burst of super-packets needs it.
//   - Huge pages for the slots, and receiving without addresses and control messages, make no
//     difference that can be measured.
//
// # Files
//
//	frames       what a queue is (frame.go), waiting for one (poller.go), offload headers
//	             and their checksums (offload.go), super-packets in segments (segment.go)
//	packet…      the queue of a link, in the order a frame meets it: filter.go, steering.go,
//	             packet_fanout.go, packet_group.go, packet_receive.go,
//	             packet_receive_ring.go, packet_send.go, packet_ring.go
//	tun…         the TUN device (tun.go), and the host's routing into it (tunhost.go)
//	guard…       what keeps the host's own stack away (guard.go has the methods)
//	neighbour…   who has which address on a link (neighbour.go), by ARP (arp.go) and
//	             neighbour discovery (nd.go); group memberships (mld.go)
//	the host     links, addresses and routes (topology.go, watch.go), which links are
//	             served (serving.go), by which way it sends (hostway.go), ports it uses
//	             (busyports.go), whether it has SCTP (sctphost.go)
//
// Package userstack is a TCP/IP stack on links, for checks. Package ifacetest has queues
// in memory and the helper that gives tests a network namespace.
package iface
