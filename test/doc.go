// SPDX-License-Identifier: Apache-2.0

// Package test holds the end-to-end tests: a director that is the real
// program, in the cluster of package lab, with the kernel's own TCP, UDP and
// ICMP at the far ends. It has no code for others.
//
// # Theory of operation
//
// [lab.Main] takes the test binary into namespaces of its own, so that the tests
// need neither root nor any program but Go, and leave nothing behind. In there
// main_test.go builds cmd/vsnat once, as it is released; whatever a node
// of the cluster calls vsnat or ipvsadm is that program.
//
// A list of scenarios that share a cluster is one test function; eachIO runs it for
// both ways of input and output, eachFamily in both families besides. Where
// /dev/net/tun may not be opened, its half for io: tun asserts that the director
// refuses to start and says so.
//
// # What is trusted
//
//   - The kernel verifies each checksum that the director rewrote: a wrong one
//     shows as data that do not arrive.
//   - What is measured on the wire (wire_test.go) is decoded by gopacket, which
//     shares no code with the director.
//   - Amounts are bounded, times are not measured: a limit in a test is there to
//     end a hang.
//
// Subjects, one file each:
//
//	seed        the commands of the reference cluster, byte for byte
//	http        round robin, half-close, RST, a thousand connections
//	transfer    hundreds of megabytes with a digest, path MTU changes under way
//	offload     ends that leave nothing to their links
//	ftp         control and data connections of every kind
//	udp, icmp   datagrams, fragments, ping, traceroute, errors
//	sctp        associations of pion/sctp over raw sockets: no kernel of ours has SCTP
//	snat        connections of the inside hosts; hairpin
//	past        direct routing: servers that have the VIP and answer past the director
//	tunnel      the same through tunnels, which the tests unwrap for the servers
//	host        addresses of ours on the host: one answer to each packet
//	edit        services, servers and configuration changed under load
//	mark        services by mark, and a network that is routed to the director
//	endings     connections of deleted servers, of a deleted rule, and idle ones; a port used again
//	kill        the ends of a director, and what the host looks like after it
//	persist     clients that come back to the server that they met
//	flood       exhaustion: SYN flood, half datagrams, full table, forgeries
//	links       links that go, come, and change
//	neighbour   what stations say about who has an address, true or forged
//	tun         what io: tun does to the host
//	workers     the same traffic with several workers
//	health      checks of servers that fail, hang and come back
//	checkpath   checks from whatever address there is
//	passive     what clients see of servers that do not answer
//	fullnat     servers whose gateway is not the director
//	doctor      faults of the cluster, each found and named
package test
