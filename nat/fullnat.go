// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsnat/vsnat/conntrack"
)

// Full NAT: the server sees the client with a local address of ours and a port of it
// (DPVS fullnat), so that its answers come to us whatever its routes say. A server
// needs it whose default gateway is another one.
//
//	which address  one of Rules.SetLocal in the server's network, else any of them; where
//	               none is set the address of ours in that network (the gateway), else that
//	               of the host there, else the virtual one. A client has the same one for
//	               all its connections, as long as it has ports left
//	which port     the client's own if it is free, else one from 1024 on that a keyed hash
//	               leads to. A port serves one connection for each server endpoint: what must
//	               be free is not the port but the answers' tuple, which the connection table
//	               knows, so that nothing else is kept
//	not            ports of services on that address, and where the host has it too, none
//	               that it uses or takes for itself
//	used up        what nobody has answered gives its port; else ReasonNoLocal, and the
//	               client is told by ICMP host unreachable

// A SourceNAT says whose address a server with Method Masquerade sees as its client's.
type SourceNAT uint8

const (
	// SourceKept: the client's own, as IPVS does. The server's way back must lead here.
	SourceKept SourceNAT = iota
	// SourceFull: a local address of ours.
	SourceFull
	// SourceAuto: the client's own, until [Rules.SetFullNAT] says otherwise.
	SourceAuto
)

func (s SourceNAT) String() string {
	switch s {
	case SourceFull:
		return "full"
	case SourceAuto:
		return "auto"
	}
	return "masquerade"
}

func checkSourceNAT(s ServerSpec) error {
	switch {
	case s.Source > SourceAuto:
		return fmt.Errorf("%w: source NAT %d", ErrInvalid, s.Source)
	case s.Source != SourceKept && s.Method != Masquerade:
		return fmt.Errorf("%w: the source is rewritten where packets come back to us, with masquerading only", ErrInvalid)
	}
	return nil
}

// SetLocal tells which addresses clients appear with at servers with full NAT, each with
// the length of its network. They become ours.
func (r *Rules) SetLocal(p []netip.Prefix) { r.local = slices.Clone(p) }

// SetFullNAT switches a server with SourceAuto, for new connections and for handshakes
// that it has not answered; see [ServerInfo].FullNAT. Of others it changes nothing.
func (r *Rules) SetFullNAT(k ServiceKey, addr netip.Addr, port uint16, on bool) error {
	_, d, err := r.server(k, addr, port)
	if err != nil {
		return err
	}
	d.switched = on
	return nil
}

// hides says whether d sees its clients with a local address.
func (d *server) hides() bool {
	return d.Source == SourceFull || d.Source == SourceAuto && d.switched
}

// localAddresses lists what clients appear with at a server, if it has full NAT, in
// the order of preference; none if there is no address of ours of its family.
func (r *Rules) localAddresses(k ServiceKey, server netip.Addr) []netip.Addr {
	var near, far []netip.Addr
	for _, p := range r.local {
		switch {
		case p.Contains(server):
			near = append(near, p.Addr())
		case p.Addr().Is4() == server.Is4():
			far = append(far, p.Addr())
		}
	}
	if len(near)+len(far) > 0 {
		if len(near) > 0 {
			return near
		}
		return far
	}
	if p, ok := r.Neighbourhood(server); ok {
		return []netip.Addr{p.Addr()}
	}
	if k.Mark == 0 && k.Addr.Is4() == server.Is4() {
		return []netip.Addr{k.Addr}
	}
	return nil
}

// Neighbourhood returns an address of ours or of the host in the network that a server is
// in, with the length of that network: what its gateway should be. It reports false if
// there is none.
func (r *Rules) Neighbourhood(server netip.Addr) (netip.Prefix, bool) {
	for _, p := range r.owned {
		if p.Contains(server) {
			return p, true
		}
	}
	for _, port := range r.ports {
		for _, p := range port.Addrs {
			if p.Contains(server) && !p.Addr().IsLinkLocalUnicast() {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// localsInUse are the local addresses of all servers that have or may get full NAT, and
// those that are set.
func (r *Rules) localsInUse() []netip.Addr {
	var list []netip.Addr
	for _, p := range r.local {
		list = append(list, p.Addr())
	}
	for _, d := range r.servers.all {
		if d != nil && d.Source != SourceKept {
			list = append(list, r.localAddresses(d.key, d.Addr)...)
		}
	}
	return list
}

// publishLocals fills in what clients appear with. A deleted server gets no new
// connections.
func (r *Rules) publishLocals(s *snapshot) {
	for i, d := range r.servers.all {
		if d == nil || d.gone || !d.hides() {
			continue
		}
		e := &s.server[i]
		e.full = true
		for _, a := range r.localAddresses(d.key, d.Addr) {
			addr := conntrack.AddrFrom(a)
			e.locals = append(e.locals, s.own.find(&addr))
		}
	}
}

// hideClient has the client of c appear with an address of ours, if its server has full
// NAT or the reply would go past us. It reports why that can't be.
func (f *Forwarder) hideClient(c *conntrack.Conn, oneLink bool) Reason {
	if e := &f.snap.server[c.Server]; e.full {
		if !f.localise(c, e.locals) {
			return ReasonNoLocal
		}
		return ReasonNone
	}
	if oneLink && !f.hairpin(c) {
		return ReasonNoPort
	}
	return ReasonNone
}

// localise gives c a local endpoint. It reports false if there is none left.
func (f *Forwarder) localise(c *conntrack.Conn, locals []int32) bool {
	if len(locals) == 0 {
		return false
	}
	client := f.mapper.seed ^ hashAddr(&c.Client.Addr)
	first := int(uint32(client>>32)) % len(locals)
	for i := range locals {
		own := locals[(first+i)%len(locals)]
		c.Local.Addr = f.snap.own.entries[own].addr
		if f.pickLocalPort(c, own) {
			c.Flags |= conntrack.FullNAT
			return true
		}
	}
	c.Local = conntrack.Endpoint{}
	return false
}

const (
	// firstLocalPort is the lowest port of ours that a client gets without having it itself.
	firstLocalPort = 1024
	// localPortTries bounds the ports that are looked at for one connection: when the last
	// hundredth of them is left, one new connection in thirteen is refused.
	localPortTries = 256
)

// pickLocalPort finds a port of one of our addresses with which answers of c's server are
// nobody else's.
func (f *Forwarder) pickLocalPort(c *conntrack.Conn, own int32) bool {
	r := &f.snap.reserved[own]
	c.Local.Port = c.Client.Port
	if free, _ := f.localPortFree(c, r); free {
		return true
	}
	n := 0
	for _, s := range r.spans {
		n += localSpan(s)
	}
	if n == 0 {
		return false
	}
	h := mix(f.mapper.seed^hashAddr(&c.Client.Addr), uint64(c.Client.Port)<<32^uint64(binary.BigEndian.Uint16(c.Dest.Addr[14:]))<<16^uint64(c.Dest.Port)^1<<63)
	at, stride := int(uint32(h))%n, localStride(n, uint32(h>>32))
	var spare *conntrack.Conn
	for range min(n, localPortTries*f.place.n) {
		c.Local.Port = localPortAt(r, at)
		free, other := f.localPortFree(c, r)
		if free {
			return true
		}
		if other != nil && givesLocalWay(other) && (spare == nil || other.Deadline < spare.Deadline) {
			spare = other
		}
		at = (at + stride) % n
	}
	if spare == nil {
		return false
	}
	c.Local.Port = spare.Local.Port
	f.table.Remove(spare, conntrack.Deleted)
	return true
}

// localPortFree says whether c.Local may be handed out and no answer of c's server goes
// there yet, or else to which connection one goes.
func (f *Forwarder) localPortFree(c *conntrack.Conn, r *portReserve) (bool, *conntrack.Conn) {
	if !f.tells(c.Local.Port) || !r.leaves(c.Proto, c.Local.Port) || f.strangersAnswer(c) {
		return false, nil
	}
	t := conntrack.Tuple{Src: c.Dest, Dst: c.Local, Proto: c.Proto}
	other, _ := f.table.Lookup(&t, conntrack.DstOurs)
	return other == nil, other
}

// givesLocalWay says whether a connection gives its local port to a new one when there
// are no others: as with a full table, what nobody has answered does, so that a flood of
// first packets does not hold them all.
func givesLocalWay(c *conntrack.Conn) bool {
	return c.Flags&conntrack.FullNAT != 0 && (unanswered(c) || c.State == conntrack.UDP && c.Flags&conntrack.Replied == 0)
}

// localSpan is how many ports of a span may be handed out by number.
func localSpan(s [2]uint16) int {
	return max(0, int(s[1])-max(int(s[0]), firstLocalPort)+1)
}

// localPortAt is the port number i of those of the spans.
func localPortAt(r *portReserve, i int) uint16 {
	for _, s := range r.spans {
		n := localSpan(s)
		if i < n {
			return uint16(max(int(s[0]), firstLocalPort) + i)
		}
		i -= n
	}
	return 0
}

// localStride is a step that comes by all of n places, since the two have no factor in
// common.
func localStride(n int, salt uint32) int {
	stride := int(salt)%n | 1
	for gcd(n, stride) != 1 {
		stride += 2
	}
	return stride % n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
