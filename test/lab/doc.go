// SPDX-License-Identifier: Apache-2.0

// Package lab builds the reference cluster of vsnat out of Linux network
// namespaces: a client, the director, and real servers with a web page each.
// End-to-end tests, `vsnat lab` and the benchmarks stand on it.
//
// # Goals
//
//   - Nothing but this package is needed: no root, no ip, no brctl, no docker.
//     As root the same code runs.
//   - Nothing is left behind, however the processes of the lab end.
//   - The far ends are the kernel's own TCP and UDP, which verify every
//     checksum that the director rewrote.
//
// It does not try to hide the host: the file system is the host's, and so are
// the programs in it.
//
// # Addresses
//
// A cluster is IPv4 or, with Config.IPv6, IPv6, with the same nodes in the same
// places (addresses.go). In an IPv4 cluster IPv6 is switched off, so that its
// links are silent until somebody sends. In an IPv6 cluster nodes have besides
// the link-local addresses that their kernel makes; no address is detected to be a
// duplicate of another, router advertisements are not listened to, and addresses
// stay when a link is off. One thing is IPv6's own: a kernel does not answer
// solicitations at a link for an address of lo (HostVIPOnLoopback), as it answers
// ARP. Who forwards for such a host must answer them.
//
// # Processes
//
//	outer     what the user or `go test` started            Enter, in the host's namespaces
//	 └ init   process 1 of a new PID namespace              mounts /proc, reaps, waits
//	    └ worker  the program proper: tests or `vsnat lab`  Enter returns Inside here
//	       ├ director   "vsnat run", in the director's network namespace
//	       └ commands   of Node.Command and `vsnat lab exec`
//
// The outer process starts itself again (same file, same arguments) in new
// mount, PID and network namespaces, and in a new user namespace if it has no
// CAP_SYS_ADMIN. When process 1 of a PID namespace ends, the kernel kills all
// others in it: this is what makes the end certain. Process 1 ends when the
// worker does, or when the pipe that the outer process holds open breaks, which
// SIGKILL of the outer process does as well. Network namespaces have no names;
// they vanish with the last process that holds them.
//
// # Storage
//
// The only files are those of the run directory ($XDG_RUNTIME_DIR/vsnat-lab-UID
// or /tmp/vsnat-lab-UID, mode 0700, one directory below it for each lab): the
// control socket, the director's configuration, and links named vsnat and
// ipvsadm to the running program, or to the one that MainBuilt built there.
// Process 1 removes it at the end; the outer process does the same, in case that
// process 1 was killed.
//
// # Nodes
//
// A Node is a network namespace kept by a file descriptor. A thread that enters
// it is locked to its goroutine for the time being; sockets made there stay
// there and may be used from any goroutine. Segments join two nodes by a veth
// pair and more by a bridge in a namespace of its own, with the offloads of the
// kernel left on: the director sees super-packets and partial checksums as on a
// real host.
//
// # In tests
//
//	func TestMain(m *testing.M) { os.Exit(lab.Main(m, vsnat)) } // vsnat: func() int, or nil
//
//	func TestRoundRobin(t *testing.T) {
//		c := lab.Start(t, lab.Config{Servers: 3})
//		d := c.StartDirector(ctx, lab.DirectorOptions{Config: yaml})
//		body, err := c.Client.Get(ctx, "http://192.168.88.23/")
//		…
//	}
//
// The same test binary is outer process, init, worker and, when it is called by
// the name vsnat or ipvsadm, the program under test. With MainBuilt that is the
// released one instead.
package lab
