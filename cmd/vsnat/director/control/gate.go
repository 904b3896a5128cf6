// SPDX-License-Identifier: Apache-2.0

package control

import (
	"container/list"
	"net"
	"sync"
)

// MaxConns is how many connections the server keeps open at once.
const MaxConns = 64

// gate is a listener that keeps at most limit connections. When one more
// comes, the oldest that only waits (for its request, or to be read from) is
// closed for it. However many clients connect and say nothing, the next one
// that has a question is answered.
type gate struct {
	net.Listener
	limit int

	mu      sync.Mutex
	waiting list.List // of *guest, the oldest first
	busy    int       // guests inside a call of the director
}

// guest is a connection that a gate let in.
type guest struct {
	net.Conn
	gate  *gate
	place *list.Element // in gate.waiting; nil while busy or gone
	busy  bool
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if guest := g.admit(c); guest != nil {
			return guest, nil
		}
	}
}

// admit makes room for c. It closes c and returns nil if there is none: every
// place is taken by a call that is being answered.
func (g *gate) admit(c net.Conn) *guest {
	g.mu.Lock()
	var out net.Conn
	switch oldest := g.waiting.Front(); {
	case g.waiting.Len()+g.busy < g.limit:
	case oldest == nil:
		g.mu.Unlock()
		c.Close()
		return nil
	default:
		leaving := g.waiting.Remove(oldest).(*guest)
		leaving.place = nil
		out = leaving.Conn
	}
	in := &guest{Conn: c, gate: g}
	in.place = g.waiting.PushBack(in)
	g.mu.Unlock()
	if out != nil {
		out.Close()
	}
	return in
}

// begin says that the guest's request has come and is being answered; it
// keeps its place until end.
func (c *guest) begin() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.place != nil && !c.busy {
		c.gate.waiting.Remove(c.place)
		c.place, c.busy = nil, true
		c.gate.busy++
	}
}

// end says that the answer is made. Reading it is up to the client.
func (c *guest) end() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.busy {
		c.busy = false
		c.gate.busy--
		c.place = c.gate.waiting.PushBack(c)
	}
}

// Close gives the place back.
func (c *guest) Close() error {
	c.gate.mu.Lock()
	if c.place != nil {
		c.gate.waiting.Remove(c.place)
		c.place = nil
	}
	if c.busy {
		c.busy = false
		c.gate.busy--
	}
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
