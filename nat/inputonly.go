// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"

	"github.com/vsnat/vsnat/conntrack"
)

// Direct routing and tunnels: only the way in passes the director. The servers
// have the virtual address themselves and answer the client past us, so that a
// packet keeps its addresses and ports. It goes to the server's link address
// (ip_vs_xmit.c, ip_vs_dr_xmit), or wrapped in another packet to the server's own
// address (ip_vs_tunnel_xmit; see tunnel.go and wrap.go).
//
// How a connection is forwarded is settled when it begins, and stays: an edit of
// its server changes those to come.

// checkMethod refuses what the method of a server cannot do.
func checkMethod(k ServiceKey, s ServerSpec) error {
	switch {
	case s.Method > Tunnel:
		return fmt.Errorf("%w: method %d", ErrInvalid, s.Method)
	case s.Method != Masquerade && k.Mark == 0 && s.Port != k.Port:
		return fmt.Errorf("%w: server port %d is not that of its service, %d; only masquerading changes ports", ErrInvalid, s.Port, k.Port)
	case s.Method != Tunnel && s.Tunnel != TunnelSpec{}:
		return fmt.Errorf("%w: tunnel options without a tunnel", ErrInvalid)
	case s.Method != Tunnel && s.Addr.Is4() != k.Addr.Is4():
		return fmt.Errorf("%w: server %s is not of the family of its service %s", ErrInvalid, s.Addr, k.Addr)
	case s.Tunnel.Type > GRE, s.Tunnel.Checksum > TunnelRemoteChecksum:
		return fmt.Errorf("%w: unknown kind of tunnel", ErrInvalid)
	case s.Tunnel.Type == GUE && s.Tunnel.Port == 0:
		return fmt.Errorf("%w: a GUE tunnel needs a port", ErrInvalid)
	case s.Tunnel.Type != GUE && s.Tunnel.Port != 0:
		return fmt.Errorf("%w: a port is for GUE tunnels", ErrInvalid)
	case s.Tunnel.Type == IPIP && s.Tunnel.Checksum != TunnelNoChecksum:
		return fmt.Errorf("%w: a checksum is for GUE and GRE tunnels", ErrInvalid)
	}
	return nil
}

// connFlags are those of a new connection to a server with this method.
func (m Method) connFlags() conntrack.Flags {
	switch m {
	case DirectRoute:
		return conntrack.InputOnly
	case Tunnel:
		return conntrack.InputOnly | conntrack.Tunnel
	}
	return 0
}

func methodOf(c *conntrack.Conn) Method {
	switch {
	case c.Flags&conntrack.Tunnel != 0:
		return Tunnel
	case c.Flags&conntrack.InputOnly != 0:
		return DirectRoute
	}
	return Masquerade
}

// wayPastUs completes the way to the server of c. Behind a port without link
// addresses the packet would be routed by its destination, which is ours.
func (f *Forwarder) wayPastUs(c *conntrack.Conn, w *way) {
	if w.port == NoPort {
		return
	}
	if c.Flags&conntrack.Tunnel == 0 {
		if f.snap.ports[w.port%MaxPorts].L3 {
			w.port = NoPort
		}
		return
	}
	t := &f.snap.tunnels[c.Server]
	if t.src == (conntrack.Addr{}) {
		w.port = NoPort // the server would not know who it is from
		return
	}
	w.tunnel = t
	w.mtu = min(w.mtu, f.paths.mtu(&t.dst, f.now))
	w.mtu -= min(w.mtu, t.overhead)
}

// sendPastUs sends a packet of c to its server as it is, but for the hop that we
// are, and says where it goes. What is to be wrapped is wrapped when all has been
// decided.
func (f *Forwarder) sendPastUs(p *Packet, c *conntrack.Conn, w *way) Verdict {
	f.takeHop(ipHeader(p.Data), w.port)
	if w.tunnel != nil {
		f.wrapping = wrapping{on: true, tunnel: w.tunnel, mtu: int(w.mtu) + int(w.tunnel.overhead), port: flowPort(c)}
	}
	return w.verdict()
}

// errorPastUs hands an ICMP error about an answer of the server, which went past
// us, to the server, that alone can do something about it (ip_vs_icmp_xmit). What
// is too big is wrapped and cut: there is no error about an error.
func (f *Forwarder) errorPastUs(p *Packet, h *parsed, c *conntrack.Conn, w *way) Verdict {
	if w.tunnel == nil && len(p.Data) > int(w.mtu) {
		if h.dontFragment {
			return drop(ReasonTooBig)
		}
		f.split = w.mtu
	}
	f.count(c, conntrack.Inbound, len(p.Data))
	return f.sendPastUs(p, c, w)
}

// serverUnreachable is told of a packet, parsed as h, whose next hop did not answer.
// It reports whether it was on its way to a server that answers past us; its client
// has been told then.
func (f *Forwarder) serverUnreachable(p *Packet, h *parsed) bool {
	about := p.Data
	c, _ := f.table.Lookup(&h.tuple, conntrack.DstOurs)
	if t := f.snap.tunnelOf(&h.tuple, h.proto); t != nil {
		var inner quoted
		c, _ = f.innerConn(p.Data, &quoted{l4: h.l4, end: len(p.Data), proto: h.proto}, t, &inner)
		about = about[inner.at:max(inner.at, inner.end)]
	}
	if c == nil || c.Flags&conntrack.InputOnly == 0 {
		return false
	}
	f.tellClient(c, unreachable(icmpHostUnreachable), about, p.In)
	return true
}

// tellClient sends the client of c the error e about a packet of its own, as it left us
// or as far as it was quoted.
func (f *Forwarder) tellClient(c *conntrack.Conn, e icmpError, about []byte, in uint16) {
	w := f.way(c, conntrack.Outbound)
	if w.port == NoPort {
		return
	}
	b := f.reserve(&f.limit, maxErrorLen)
	if b == nil {
		return
	}
	n := buildICMPError(b, e, &c.Virtual.Addr, f.nextID(), &Packet{Data: about})
	f.outbox.put(n, Packet{In: in}, w.verdict())
}
