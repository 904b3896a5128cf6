// SPDX-License-Identifier: Apache-2.0

// Vsnat is LVS-NAT without the kernel module: it turns a Linux host into the
// director of a VS/NAT cluster.
//
// One file per command; each has a constructor that returns the command with
// its options in a struct, and nothing is global. "vsnat run" is the director;
// all other commands are clients of its control socket, or work without one.
// Called by the name of ipvsadm, ipvsadm-save or ipvsadm-restore, the program
// is that tool.
package main
