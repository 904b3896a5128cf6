// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"

	"github.com/vsnat/vsnat/conntrack"
)

// Servers that are to get rid of their connections. That a scheduler gives them no
// new ones is a matter of their weight, which is set beside this.

// A Drain says how far a server is to get rid of its connections.
type Drain uint8

// Drains.
const (
	NoDrain  Drain = iota
	DrainNew       // no persistence leads there any more: the client's next connection is scheduled anew
	DrainAll       // and what is there ends: TCP and SCTP are told, UDP goes to another server
)

// SetDrain tells how far a server is to get rid of its connections. It lasts until the
// server is deleted, or something else is said.
func (r *Rules) SetDrain(k ServiceKey, addr netip.Addr, port uint16, drain Drain) error {
	_, d, err := r.server(k, addr, port)
	if err != nil {
		return err
	}
	if drain == DrainAll && d.drain != drain {
		r.departed++ // Forwarders visit their tables
	}
	d.drain = drain
	return nil
}

// ServerConns returns how many connections of its service a server has.
func (r *Rules) ServerConns(k ServiceKey, addr netip.Addr, port uint16) (active, inactive int, err error) {
	_, d, err := r.server(k, addr, port)
	if err != nil {
		return 0, 0, err
	}
	active, inactive = d.sched.Conns()
	return active, inactive, nil
}

// ends reports whether connections of the server are to be ended by a visit.
func (e *serverEntry) ends() bool { return e.gone || e.drain == DrainAll }

// endDrained does at once with an entry of a server with DrainAll what is to be done.
// It reports false if that has to wait.
func (f *Forwarder) endDrained(c *conntrack.Conn) bool {
	switch {
	case c.Flags&conntrack.Template != 0, over(c.State):
		return true // a template retires when its client comes
	case c.Proto == ProtoUDP, unanswered(c):
		// The client's next datagram, or its next SYN, is a first one.
	case !f.mayTell():
		return false
	default:
		f.tell(c)
	}
	f.table.Remove(c, conntrack.ServerGone)
	return true
}
