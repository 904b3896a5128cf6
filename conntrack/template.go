// SPDX-License-Identifier: Apache-2.0

package conntrack

import "time"

// A template remembers which server a client was given, for the connections
// that it opens later (persistence). It is a [Conn] with the flag Template:
//
//	Client   the client's address, or the network of it that counts as one client; port 0
//	Virtual  the service: its address and port; port 0 for a service of all ports
//	Dest     the server; port 0 where the packet's is used
//	State    None, or Assured once a connection under it was established
//
// A template of a service by mark has [ProtoMark] for a protocol and the mark in
// place of the virtual address. No packet finds a template, and what a template
// stands for makes no packet ambiguous: two services may have sent a client to
// the same server.

// Assured is the state of a template under which a connection was established.
const Assured = SCTPClosed + 1

// MarkAddr stands for a service by mark in templates: 0.0.0.1 is mark 1 of IPv4,
// 0:1:: that of IPv6, as ip_vs_conn_fill_param_persist has it.
func MarkAddr(mark uint32, ip4 bool) Addr {
	b := [4]byte{byte(mark >> 24), byte(mark >> 16), byte(mark >> 8), byte(mark)}
	if ip4 {
		return AddrFrom4(b)
	}

	return Addr{b[0], b[1], b[2], b[3]}
}

// FindTemplate finds the template of a client for a service, or nil. One past
// its deadline is found until a sweep has ended it.
func (t *Table) FindTemplate(client, virtual *Endpoint, proto uint8) *Conn {
	for i := *t.bucket(client, proto); i != 0; {
		c := t.conn(i)
		if c.Client == *client && c.Virtual == *virtual && c.Proto == proto && c.Flags&(Template|retired) == Template {
			return c
		}
		i = c.next
	}

	return nil
}

// Restart gives a template its whole life again. It is to be called for each
// connection under it, and for no other packet.
func (t *Table) Restart(c *Conn, now Time) { t.SetDeadline(c, now.Add(c.life())) }

// Retire has a template never be found again, and another may take its place; it
// stays until its time is over. IPVS gives it port 65535 (ip_vs_check_template).
func (t *Table) Retire(c *Conn) {
	c.Virtual.Port, c.Dest.Port = 0xffff, 0xffff
	c.Flags |= retired
}

// A template's life is its own, since that of its service may change without it.
// It stands where a TCP connection has the first window.

func (c *Conn) life() time.Duration { return time.Duration(c.Window[0].End) * time.Second }

func (c *Conn) setLife(d time.Duration) {
	c.Window[0].End = uint32(min((max(d, 0)+time.Second-1)/time.Second, 1<<32-1))
}
