// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// Strangers are connections of full NAT from before a restart that has changed the number
// of Forwarders: their local ports tell of another one than has them now. What is known
// of their answers is kept beside, written while the connections are restored and never
// after, so that all may read it. An answer that its port brings to the wrong Forwarder
// finds nothing there, is looked for here, and handed on; it is never given to a new
// connection.

// An answer is how packets of a server that answers a local endpoint look.
type answer struct {
	from, to conntrack.Endpoint
	proto    uint8
}

type strangers map[answer]uint8 // the Forwarder that has the connection

// strange is the kind of the mappings of strangers, which no new connection shares.
func (w *place) strange() portKind { return portKind{uint8(w.self), 255} }

// note has answers to a connection that is about to be restored find f.
func (s *strangers) note(c *conntrack.Conn, f *Forwarder) {
	if *s == nil {
		*s = make(strangers)
	}
	(*s)[answer{c.Dest, c.Local, c.Proto}] = uint8(f.place.self)
}

// told is whose connection a packet is of that may be an answer of full NAT.
func (f *Forwarder) told(t *conntrack.Tuple) int {
	if len(f.common.strangers) > 0 {
		if s, ok := f.common.strangers[answer{t.Src, t.Dst, t.Proto}]; ok {
			return int(s)
		}
	}
	return f.place.told(t.Dst.Port)
}

// strangersAnswer reports whether answers to c would be taken for those to a stranger.
func (f *Forwarder) strangersAnswer(c *conntrack.Conn) bool {
	if len(f.common.strangers) == 0 {
		return false
	}
	_, ok := f.common.strangers[answer{c.Dest, c.Local, c.Proto}]
	return ok
}
