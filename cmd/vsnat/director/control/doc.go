// SPDX-License-Identifier: Apache-2.0

// Package control is the one way into a running director: HTTP/JSON over a
// unix socket. The sub-commands of vsnat, the ipvsadm personality and every
// script are clients of it.
//
// # Shape
//
// [Director] is what can be asked of a director, in Go. The runtime
// implements it; [HTTPServer] offers it on a socket; [Client] implements it again
// at the other end of that socket. A command therefore works the same on a
// live director and on a fake one in a test. The wire types (types.go) are
// plain values with no behaviour of the data plane in them; openapi.yaml
// describes the paths and is served at /v1/openapi.yaml.
//
// Scripts that read /proc/net/ip_vs and its like find the same text, in the kernel's
// words, under /v1/proc ([Proc]).
//
// # Who may speak
//
// The socket is the permission. Its file has mode 0600, or the configured
// mode and group. Beyond the file mode the server asks the kernel who is at
// the other end (SO_PEERCRED) and refuses anybody but root and its own user,
// unless a group was configured: then the file mode decides. The folder of
// the socket is created with mode 0700; a folder that strangers can write to,
// and a symbolic link or a foreign file in the place of the socket, are
// refused ([Listen]).
//
// A socket file left behind by a crash is replaced, but only when a lock
// beside it shows that no living director holds it. A second director on the
// same path is refused with the process id of the first.
//
// # What a client can't do
//
// Every connection has a deadline for its header, its body, its answer and
// its idle time; a body ends at [MaxBody] bytes; at most [MaxConns]
// connections are open at once, and one more takes the place of the oldest
// that only waits. A client that sends half a request, never reads or never
// leaves therefore costs one of those places until the next client comes, and
// nothing else. Nothing here is ever on the way of a packet.
//
// # Monitoring
//
// /metrics, /healthz and /readyz are on the socket, and on a TCP address as well if
// one is configured (public.go): with the same limits, without asking who is there,
// and with nothing else beside them. Pages from elsewhere that a browser asks for are
// refused, and so is any host name that is not known, which could have been made to
// lead here. Profiles (profile.go) are on the socket alone.
//
// # Events
//
// [EventLog] keeps the last events in a ring, numbered from the start of the
// director, and waits for nobody: a reader that was too slow gets one event that
// says how many are gone. GET /v1/events answers with JSON lines, and with
// follow=true goes on until the client leaves; at most 16 clients do that at once.
//
// # Errors
//
// An error crosses the socket as {code, error, hint} ([Error]). The codes are
// the ones of IPVS where IPVS has one, so that ipvsadm can print its text
// ([Code.Kernel]); errors.Is compares by code on both sides of the socket.
package control
