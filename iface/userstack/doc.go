// SPDX-License-Identifier: Apache-2.0

// Package userstack is a TCP/IP stack of our own on the host's links: for what the
// director itself has to say from an address that the host does not have, and that
// the host's stack can therefore not speak from. Checks of servers are made by it
// where vsnat alone has an address in their network.
//
// # Way
//
//	DialContext → gVisor's stack → channel → Route of the destination → Neighbours → packet socket
//	packet socket (its filter) → channel → gVisor's stack → the connection
//
// Each source address is a network card of the stack; what a connection is from
// follows from its destination alone ([Route]). Ports are those between MinPort and
// MaxPort, which nobody else may use on these addresses: the packet loop sees what
// comes for them too, and has to leave it alone.
//
// # Who does what
//
// One goroutine takes what the stack sends, and one for each link what comes. A
// packet to a destination without a Route is dropped. Neighbours resolves next hops as
// for forwarded packets, and may keep a frame for a while. Connections end with a
// reset, so that none waits in TIME_WAIT.
//
// # Limits
//
// Frames of at most 1,514 bytes are sent. Fragments and IPv6 extension headers are
// not received.
package userstack
