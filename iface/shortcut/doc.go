// SPDX-License-Identifier: Apache-2.0

// Package shortcut has the kernel forward what is in the middle of connections.
//
// # Goals
//
// A super-packet that goes through user space is copied twice and wakes a thread, which is
// most of what it costs (package iface). What is to be done to it is always the same,
// as long as its connection is in the middle: other addresses and ports, another link
// address, one hop less. A BPF program at the link does that to the frame where it is.
// Which connections, and how, it is told for each: it decides nothing. All that is
// unusual goes on as if it were not there.
//
// # Limits
//
// TCP between links with link addresses, and segments as the Forwarder of package nat
// takes them the shortest way: no SYN, FIN or RST, no fragments, no options of IP, more
// than one hop left, a size that fits, a sequence number and an acknowledgement near what
// was seen (the rules of conntrack.Conn.Follow), from the neighbour that it comes from.
// Linux 6.6 (TCX); the programs are assembled here, for little endian machines. Memory is
// taken from nobody's RLIMIT_MEMLOCK since Linux 5.11.
//
// # Storage
//
//	keys      hash     addresses, ports and link, as a packet arrives → row, way
//	rows      array    both ways of a connection: what to write, and what was counted;
//	                   mapped into this process, so that to read it costs no call
//	open      array    how many rows are in use: as long as none is, nothing is looked for
//	hosts     hash     what the filter of packet sockets admits: single addresses,
//	networks  trie     and networks
//
// # Flow
//
// A packet socket sees a frame before the program of its link does. So the same question is
// asked twice, by the same instructions: by the filter of the socket, which leaves what
// takes a shortcut, and by the program, which forwards it.
//
//	link → packet socket → filter: a shortcut? ── yes → not copied
//	  │                                  └─────── no → what iface.Filter says
//	  └──→ program at the link: a shortcut? ──── yes → rewritten, sent by the other link
//	                                     └────── no → guard, host
//
// Between the two a row may be filled or emptied: a frame is then forwarded twice, or
// lost, which TCP mends. Should something at the link take frames before the program
// does, they would be lost for good; so the filter counts what it leaves, and who looks
// after the rows compares ([Passed]).
//
// # Writers
//
// A row is written while it is in no key, and is in use when its key is. It is emptied by
// one store, and then taken out of the keys. A processor may still be reading it then: it
// has to rest before it is filled again. The kernel writes counters only, on cache lines of
// their own.
//
// # Rights and ends
//
// Programs and maps are loaded by [Open], with CAP_BPF and CAP_NET_ADMIN in the first user
// namespace. After that neither is needed, nor the call that loads programs: changes of
// the filter are changes of maps, links are attached by what is loaded. Everything hangs
// on descriptors of this process, so that nothing outlives it, however it ends; what was
// forwarded comes to the host then, as if vsnat had never been there.
//
// # Checksums
//
// A checksum may be whole, or only begun where the card or the peer's kernel is to finish
// it, and a program cannot see which. The kernel's helper can, if it is told what changed
// of the addresses and what of the rest: the differences are computed once for a row.
//
// # Files
//
// program.go, filter.go: the programs; row.go, table.go: what they read; attach.go.
package shortcut
