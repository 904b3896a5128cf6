// SPDX-License-Identifier: Apache-2.0

// Package interop tries vsnat with programs that nobody here wrote: curl, iperf3,
// tcpdump, nft, ip, ping, traceroute, nc, vsftpd and lftp, in the lab's cluster, and
// its command line with ipvsadm. What they say is the oracle: a checksum is right
// when tcpdump calls it correct, a host is as before when ip and nft list the same.
//
// The tests need those programs and so have a build tag:
//
//	go test -tags interop ./test/interop
//
// A program that is missing fails its test. Speeds are logged and not judged,
// except for one that can only come from a fault.
package interop
