// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// Persistence: a client goes to the server that it had before, as long as the
// template of that choice lives (ip_vs_core.c, ip_vs_sched_persist).
//
//	findTemplate    there is one, and its server is there: no scheduler is asked
//	insert          the entry goes under the template, or under one made for it;
//	                the template's life begins anew
//	assure          a connection under it was established, or answered
//
// The server of a template is taken whatever its weight and its number of
// connections. A service that loses its persistence leaves its templates where
// they are: if it gets it back, they count again.

// portFTP is the port of FTP's control connections. A client of a persistent
// service there has one template for all ports, since a server in passive mode
// takes any for its data.
const portFTP = 21

// portFTPData is the port that active data connections come from.
const portFTPData = 20

// maxPersistence is the longest life of a template that ipvsadm accepts.
const maxPersistence = 31 * 24 * time.Hour

// persistence is what a service says of its templates.
type persistence struct {
	life time.Duration  // 0: none
	mask conntrack.Addr // clients that are equal under it are one
}

func newPersistence(p Persistence, ip4 bool) persistence {
	q := persistence{life: p.Timeout, mask: p.Mask}
	whole := 0
	switch {
	case p.Mask == conntrack.Addr{}:
		whole = len(q.mask)
	case ip4:
		whole = len(q.mask) - 4
	}
	for i := range whole {
		q.mask[i] = 0xff
	}
	return q
}

// of returns the address that stands for all clients that are one with a.
func (p *persistence) of(a conntrack.Addr) conntrack.Addr {
	for i := range a {
		a[i] &= p.mask[i]
	}
	return a
}

func checkPersistence(s ServiceSpec) error {
	p := s.Persistence
	switch {
	case p.Timeout < 0 || p.Timeout > maxPersistence || p.Timeout%time.Second != 0:
		return fmt.Errorf("%w: persistence of %v is not a number of seconds up to 31 days", ErrInvalid, p.Timeout)
	case p.Mask != conntrack.Addr{} && p.Mask.Is4() != s.Addr.Is4():
		return fmt.Errorf("%w: persistence mask %s is not of the family of %s", ErrInvalid, p.Mask, s.Addr)
	case p.Timeout == 0 && s.Port == 0 && s.Mark == 0:
		return fmt.Errorf("%w: a service of all ports is persistent", ErrInvalid)
	}
	return nil
}

// at is where a server of the service gets a packet that was sent to port. With
// persistence a server's own port counts for the service's own alone: all others,
// those of a service of all ports among them, stay what they are.
func (v *serviceEntry) at(s *serverEntry, port uint16) conntrack.Endpoint {
	if s.dest.Port == 0 || v.persist.life > 0 && port != v.key.Port {
		return conntrack.Endpoint{Addr: s.dest.Addr, Port: port}
	}
	return s.dest
}

// findTemplate returns the template that a packet's client has for the service,
// or nil. One that does not count any more retires. The key stays in f.template,
// for a template to be made.
func (f *Forwarder) findTemplate(h *parsed, v *serviceEntry) *conntrack.Conn {
	c := &f.template
	*c = conntrack.Conn{
		Client:  conntrack.Endpoint{Addr: v.persist.of(h.tuple.Src.Addr)},
		Virtual: conntrack.Endpoint{Addr: h.tuple.Dst.Addr},
		Proto:   h.tuple.Proto,
		Flags:   conntrack.Template, HopPort: NoPort, InsidePort: NoPort,
	}
	switch {
	case h.tuple.Dst.Port == v.key.Port:
		if v.key.Port != portFTP {
			c.Virtual.Port = v.key.Port
		}
	case v.mark != 0:
		c.Virtual.Addr, c.Proto = conntrack.MarkAddr(v.mark, v.key.Addr.Is4()), conntrack.ProtoMark
	}
	t := f.table.FindTemplate(&c.Client, &c.Virtual, c.Proto)
	if t == nil || f.counts(t) {
		return t
	}
	f.table.Retire(t)
	return nil
}

// counts reports whether the server of a template may be taken
// (ip_vs_check_template); one that drains may not.
func (f *Forwarder) counts(t *conntrack.Conn) bool {
	s := &f.snap.server[t.Server]
	return !s.gone && s.drain == NoDrain && !(f.snap.settings.ExpireQuiescentTemplate && s.server.Weight() == 0)
}

// insert puts the entry of a new connection into the table: with persistence
// under the template t or, if that is nil, under one made from what findTemplate
// left.
func (f *Forwarder) insert(c *conntrack.Conn, v *serviceEntry, t *conntrack.Conn) (*conntrack.Conn, conntrack.Insertion) {
	if v.persist.life == 0 {
		return f.table.Insert(c, f.now, lifeOf)
	}
	made := t == nil
	if made {
		if t = f.newTemplate(v, c.Server); t == nil {
			return nil, conntrack.Full
		}
	}
	n, outcome := f.table.InsertChild(c, t, f.now, lifeOf)
	switch {
	case outcome == conntrack.Inserted:
		f.table.Restart(t, f.now)
	case made:
		f.table.Remove(t, conntrack.Deleted)
	}
	return n, outcome
}

// newTemplate makes the template that findTemplate did not find. It returns nil
// if the table is full.
func (f *Forwarder) newTemplate(v *serviceEntry, server uint32) *conntrack.Conn {
	c, s := &f.template, &f.snap.server[server]
	c.Server = server
	c.Dest = conntrack.Endpoint{Addr: s.dest.Addr}
	if c.Virtual.Port != 0 {
		c.Dest.Port = s.dest.Port
	}
	t, outcome := f.table.Insert(c, f.now, v.persist.life)
	if outcome != conntrack.Inserted {
		return nil
	}
	s.server.TemplateOpened()
	return t
}

// assure marks the template of a connection as one that has served.
func (f *Forwarder) assure(c *conntrack.Conn) {
	if t := f.table.Parent(c); t != nil && t.Flags&conntrack.Template != 0 {
		f.table.SetState(t, conntrack.Assured)
	}
}
