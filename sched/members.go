// SPDX-License-Identifier: Apache-2.0

package sched

import "net/netip"

// members numbers the servers. A number outlives its server's removal for as long
// as a table refers to it, so that a server that comes back under its address
// finds its destinations waiting, as one in IPVS's trash does.
type members struct {
	member []member
	number map[netip.AddrPort]uint32
}

type member struct {
	server *Server // nil: the number is free
	refs   int     // how many places in a table hold the number
	listed bool
}

// update takes the list as it is now.
func (m *members) update(servers []*Server, c Change) {
	if c.Kind == Edited {
		return
	}
	if m.number == nil {
		m.number = make(map[netip.AddrPort]uint32)
	}
	for i := range m.member {
		m.member[i].listed = false
	}
	for _, s := range servers {
		n, ok := m.number[s.Addr]
		if !ok {
			n = m.unused()
			m.number[s.Addr] = n
		}
		m.member[n].server, m.member[n].listed = s, true
	}
	for i := range m.member {
		if b := &m.member[i]; b.server != nil && !b.listed && b.refs == 0 {
			delete(m.number, b.server.Addr)
			*b = member{}
		}
	}
}

func (m *members) unused() uint32 {
	for i := range m.member {
		if m.member[i].server == nil {
			return uint32(i)
		}
	}
	m.member = append(m.member, member{})
	return uint32(len(m.member) - 1)
}

// hold returns the number of a listed server, for a table to keep.
func (m *members) hold(s *Server) uint32 {
	n := m.number[s.Addr]
	m.member[n].refs++
	return n
}

func (m *members) release(n uint32) { m.member[n].refs-- }

// get returns the server of a number and whether it is in the list.
func (m *members) get(n uint32) (s *Server, listed bool) {
	return m.member[n].server, m.member[n].listed
}
