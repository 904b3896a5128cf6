// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// The first packet of a connection on the tuple of an entry that is there.

// renews reports whether a SYN or INIT of the client on the tuple of c is scheduled anew
// (ip_vs_core.c, is_new_conn_expected and what stands before it).
func (f *Forwarder) renews(c *conntrack.Conn) bool {
	if c.Server == conntrack.NoSlot {
		return false
	}
	s := &f.snap.settings
	if s.ConnReuseMode != 0 && f.table.Parent(c) == nil && (over(c.State) ||
		s.ConnReuseMode&2 != 0 && c.State == conntrack.FinWait && c.Flags&conntrack.InputOnly != 0) {
		return true
	}
	if f.snap.server[c.Server].full && c.Flags&conntrack.FullNAT == 0 && unanswered(c) {
		return true // its answer went elsewhere; see Rules.SetFullNAT
	}
	if f.snap.server[c.Server].server.Weight() != 0 {
		return false
	}
	return s.ExpireNodestConn || !s.HoldGoneSYN && unanswered(c)
}

// covered reports whether a rule still has the inside end of c leave as it does.
func (f *Forwarder) covered(c *conntrack.Conn) bool {
	rule := f.snap.snatFor(&c.Dest.Addr)
	return rule != nil && rule.to == c.Virtual.Addr
}

// reopen makes an entry that is over, and stays, ready for a new connection of
// the same endpoints: of SNAT, whose mapping stays with it, or under a parent.
func (f *Forwarder) reopen(c *conntrack.Conn) {
	c.Window = [2]conntrack.Window{}
	c.Flags &^= conntrack.Replied
	f.asked(c)
	f.table.SetClass(c, conntrack.ClassHalfOpen)
	f.table.SetState(c, conntrack.None)
}
