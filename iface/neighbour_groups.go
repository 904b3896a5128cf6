// SPDX-License-Identifier: Apache-2.0

package iface

// Which groups of IPv6 we listen to, told to the switches and routers that ask
// (multicast listener discovery, RFC 3810): the solicited-node groups of owned
// addresses, on every port. A switch that watches these reports gives a group to
// nobody else, and with it the questions for our addresses. What the host listens
// to it reports itself.
//
// A change is reported as soon as Tick can and once more within a second. A query
// is answered at a random time within its delay, by Tick alone: however many
// queries there are, what we say is bounded. A querier of version 1 has the reports
// of its port in that version until it has been silent for four minutes.

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	// listenRepeats (RFC 3810 [Robustness Variable]): how often a change is said.
	listenRepeats = 2
	// listenInterval (RFC 3810 [Unsolicited Report Interval]) between two of them.
	listenInterval = time.Second
	// oldQuerierTime (RFC 3810 [Older Version Querier Present Timeout]): the
	// robustness times a query interval of 125 s, and the delay of an answer.
	oldQuerierTime = 260 * time.Second
)

// listening is what a port says about groups.
type listening struct {
	groups  map[netip.Addr]*listener
	owed    int  // changes that are not said often enough; of all groups the most
	next    Time // when they are said
	asked   bool // by a query that is not answered yet
	answer  Time // when it is
	about   netip.Addr
	oldEnds Time // a querier of version 1 was heard until then
}

// listener is one group of a port. One that was left is kept until that is said.
type listener struct {
	member bool
	owed   int
}

// listenTo makes the solicited-node groups of owned addresses the groups of a port.
func (n *Neighbours) listenTo(port int) {
	l := n.listening[port]
	if l == nil {
		l = &listening{groups: make(map[netip.Addr]*listener)}
		n.listening[port] = l
	}
	want := make(map[netip.Addr]bool)
	for _, addr := range n.ownedList {
		if addr.Is6() {
			want[solicitedNode(addr)] = true
		}
	}
	for group := range want {
		if g := l.groups[group]; g == nil || !g.member {
			l.groups[group] = &listener{member: true, owed: listenRepeats}
			l.owed, l.next = listenRepeats, 0
		}
	}
	for group, g := range l.groups {
		if g.member && !want[group] {
			g.member, g.owed = false, listenRepeats
			l.owed, l.next = listenRepeats, 0
		}
	}
}

// rejoin has a port say all again, as when its link was away.
func (n *Neighbours) rejoin(port int) {
	if l := n.listening[port]; l != nil {
		delete(n.listening, port)
		n.listenTo(port)
	}
}

// inputQuery notes a query; Tick answers it.
func (n *Neighbours) inputQuery(now Time, port int, frame []byte) {
	q, ok := parseQuery(frame)
	if !ok {
		n.stats.MalformedMLD++
		return
	}
	p, known := n.ports[port]
	if !known || p.MAC == [6]byte(frame[6:]) {
		return
	}
	l := n.listening[port]
	if l == nil {
		return
	}
	if q.old {
		l.oldEnds = now.add(oldQuerierTime)
	}
	if g := l.groups[q.group]; !q.group.IsUnspecified() && (g == nil || !g.member) {
		return
	}
	at := now
	if q.delay > 0 {
		at = now.add(rand.N(q.delay))
	}
	if !l.asked {
		l.asked, l.answer, l.about = true, at, q.group
		return
	}
	l.answer = min(l.answer, at)
	if l.about != q.group {
		l.about = netip.IPv6Unspecified() // both, in one answer
	}
}

// reportGroups says what is due on all ports.
func (n *Neighbours) reportGroups(now Time, send SendFunc) {
	for _, port := range n.portList {
		l := n.listening[port]
		if l == nil {
			continue
		}
		if l.owed > 0 && now >= l.next {
			n.report(now, port, l, l.changes(), send)
			l.next = now.add(rand.N(listenInterval) + 1)
		}
		if l.asked && now >= l.answer {
			l.asked = false
			n.report(now, port, l, l.answers(), send)
		}
	}
}

// changes lists what is owed, and takes it for said.
func (l *listening) changes() (records []listenerRecord) {
	l.owed = 0
	for group, g := range l.groups {
		if g.owed == 0 {
			continue
		}
		g.owed--
		l.owed = max(l.owed, g.owed)
		kind := byte(mldBegins)
		if !g.member {
			kind = mldStopped
		}
		records = append(records, listenerRecord{kind, group})
		if !g.member && g.owed == 0 {
			delete(l.groups, group)
		}
	}
	return records
}

func (l *listening) answers() (records []listenerRecord) {
	for group, g := range l.groups {
		if g.member && (l.about.IsUnspecified() || l.about == group) {
			records = append(records, listenerRecord{mldListens, group})
		}
	}
	return records
}

func (n *Neighbours) report(now Time, port int, l *listening, records []listenerRecord, send SendFunc) {
	slices.SortFunc(records, func(a, b listenerRecord) int { return a.group.Compare(b.group) })
	p := n.ports[port]
	source := p.ownLinkLocal()
	if now >= l.oldEnds {
		for _, frame := range buildReports(p.MAC, source, records) {
			send(port, frame, Offload{})
			n.stats.Reports++
		}
		return
	}
	for _, r := range records {
		send(port, buildOldReport(p.MAC, source, r), Offload{})
		n.stats.Reports++
	}
}

// ownLinkLocal is the link-local address of the host on a port; without one :: is
// said, which switches take and routers ignore (RFC 3810 section 5.2.13).
func (p *NeighbourPort) ownLinkLocal() netip.Addr {
	for _, a := range p.Addrs {
		if a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() {
			return a.Addr()
		}
	}
	return netip.IPv6Unspecified()
}
