// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"time"

	"github.com/vsnat/vsnat/conntrack"
)

// A ConnQuery selects entries for a listing. Zero fields select everything.
type ConnQuery struct {
	Proto   uint8
	Client  netip.Prefix   // outside address
	Virtual netip.AddrPort // exact; port 0: any
	Server  netip.AddrPort // inside endpoint; port 0: any
	State   string
	SNAT    Selection
	Cursor  int // slot to begin at: 0, or Next of the page before
	Limit   int // entries of a page, at most MaxPage; 0: MaxPage
}

// Selection says which of two kinds of entries a listing has.
type Selection uint8

const (
	SelectAll Selection = iota
	SelectServices
	SelectSNAT
)

const (
	// MaxPage is the largest page of entries.
	MaxPage = 512
	// maxScan bounds the slots that one page looks at, so that a listing
	// never holds up packets for long.
	maxScan = 8192
)

// A ConnPage is a part of a listing.
type ConnPage struct {
	Conns []ConnInfo
	Next  int // cursor of the next page, or -1 at the end
}

// A ConnInfo is a copy of an entry.
type ConnInfo struct {
	Proto   uint8 // 0 of a template of a service by mark
	State   conntrack.State
	Expires time.Duration // from now; not below 0
	Client  netip.AddrPort
	Virtual netip.AddrPort
	Local   netip.AddrPort // valid with full NAT only
	Dest    netip.AddrPort
	SNAT    bool // opened from inside
	Method  Method
	Replied bool // seen both ways
	Over    bool // both ends have said all: the entry waits for what is late

	Shortcut bool // somebody else forwards its packets

	Template  bool // of persistence: Client is an address or a network, port 0
	OnePacket bool // for answers alone
}

// Conns copies entries for a listing. It is to be called between batches. A
// page looks at a bounded part of the table: it may be empty and still have a
// Next.
func (f *Forwarder) Conns(q ConnQuery) ConnPage {
	limit := q.Limit
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	page := ConnPage{Next: -1}
	extent := f.table.Extent()
	end := min(extent, max(q.Cursor, 0)+maxScan)
	for i := max(q.Cursor, 0); i < end; i++ {
		c := f.table.At(i)
		if c == nil || !q.selects(c) {
			continue
		}
		if len(page.Conns) == limit {
			page.Next = i
			return page
		}
		if page.Conns == nil {
			page.Conns = make([]ConnInfo, 0, min(limit, f.table.Len()))
		}
		page.Conns = append(page.Conns, f.info(c))
	}
	if end < extent {
		page.Next = end
	}
	return page
}

func (q *ConnQuery) selects(c *conntrack.Conn) bool {
	snat := c.Flags&conntrack.SNAT != 0
	switch {
	case q.Proto != 0 && q.Proto != c.Proto,
		q.SNAT == SelectServices && snat,
		q.SNAT == SelectSNAT && !snat,
		q.State != "" && q.State != c.State.String(),
		q.Client.IsValid() && !q.Client.Contains(c.Client.Addr.Netip()):
		return false
	}
	return matches(q.Virtual, c.Virtual) && matches(q.Server, c.Dest)
}

func matches(want netip.AddrPort, e conntrack.Endpoint) bool {
	return !want.IsValid() || want.Addr() == e.Addr.Netip() && (want.Port() == 0 || want.Port() == e.Port)
}

func (f *Forwarder) info(c *conntrack.Conn) ConnInfo {
	info := ConnInfo{
		Proto: c.Proto, State: c.State, Expires: max(0, time.Duration(c.Deadline-f.now)),
		Client: c.Client.AddrPort(), Virtual: c.Virtual.AddrPort(), Dest: c.Dest.AddrPort(),
		SNAT: c.Flags&conntrack.SNAT != 0, Method: methodOf(c), Replied: c.Flags&conntrack.Replied != 0, Over: over(c.State),
		Template: c.Flags&conntrack.Template != 0, OnePacket: c.Flags&conntrack.OnePacket != 0,
		Shortcut: c.Flags&conntrack.Shortcut != 0,
	}
	if c.Flags&conntrack.FullNAT != 0 {
		info.Local = c.Local.AddrPort()
	}
	if c.Proto == conntrack.ProtoMark {
		info.Proto = 0
	}
	return info
}
