// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"net/netip"
	"time"
)

// What lblc and lblcr have in common: a table of destinations that is cleared of
// old ones now and then (Linux ip_vs_lblc.c, ip_vs_lblcr.c, whose numbers these
// are). All its memory is one slab, made at the start and touched as it fills:
// neither a choice nor an expiry allocates, and since servers go by number in it
// the garbage collector does not look inside.
const (
	localityBits  = 10
	localityRows  = 1 << localityBits
	localityMax   = localityRows * 16   // above this the idle ones are dropped
	localityLimit = localityMax * 3 / 2 // above this none is added

	localityTick    = int64(time.Minute)     // between two checks
	localityIdle    = int64(6 * time.Minute) // what a check drops when there are too many
	localityRound   = 30                     // checks with nothing to do, then a full one
	localityExpires = int64(24 * time.Hour)  // what a full check drops
)

// locality is a table from destination to V.
type locality[V any] struct {
	row     [localityRows]uint32 // first entry, or 0
	entry   []localEntry[V]      // number 0 is not used
	touched uint32               // entries ever used
	free    uint32               // first of those given back, or 0
	len     int

	expires int64 // idle time after which a full check drops an entry
	rover   int   // row at which the last check ended
	round   int   // checks since the last full one, from 1
	next    int64 // time of the next check
	running bool  // next is set
}

type localEntry[V any] struct {
	addr  [16]byte
	used  int64
	next  uint32 // in the row or among the free, or 0
	value V
}

func newLocality[V any]() locality[V] {
	return locality[V]{entry: make([]localEntry[V], localityLimit+1), expires: localityExpires, round: 1}
}

// setExpiration takes Options.Expiration.
func (l *locality[V]) setExpiration(d time.Duration) {
	if l.expires = localityExpires; d > 0 {
		l.expires = int64(d)
	}
}

func localityRow(addr netip.Addr) int { return int(hash32(fold(addr), localityBits)) }

// find returns the entry of a destination, or nil.
func (l *locality[V]) find(addr netip.Addr) *localEntry[V] {
	key := addr.As16()
	for i := l.row[localityRow(addr)]; i != 0; i = l.entry[i].next {
		if l.entry[i].addr == key {
			return &l.entry[i]
		}
	}
	return nil
}

// insert adds the entry of a destination that has none, or returns nil: full.
func (l *locality[V]) insert(addr netip.Addr, now int64) *localEntry[V] {
	i := l.free
	switch {
	case i != 0:
		l.free = l.entry[i].next
	case int(l.touched) < len(l.entry)-1:
		l.touched++
		i = l.touched
	default:
		return nil
	}
	head := &l.row[localityRow(addr)]
	l.entry[i] = localEntry[V]{addr: addr.As16(), used: now, next: *head}
	*head = i
	l.len++
	return &l.entry[i]
}

// tick makes up for the checks that were due until now. The first is due a minute
// after the first connection.
func (l *locality[V]) tick(now int64, drop func(V)) {
	if !l.running {
		l.running, l.next = true, now+localityTick
		return
	}
	for ; now >= l.next; l.next += localityTick {
		if l.len == 0 {
			// Nothing to drop in any of them; only the count goes on.
			ticks := (now - l.next) / localityTick
			l.round = int((int64(l.round)-1+ticks)%localityRound) + 1
			l.next += ticks * localityTick
		}
		l.check(l.next, drop)
	}
}

// check drops entries that were idle too long: in the usual case none, of too
// many entries some, and all there are if nothing was dropped for half an hour.
func (l *locality[V]) check(now int64, drop func(V)) {
	if l.round == localityRound {
		for range localityRows {
			l.rove(now-l.expires, drop)
		}
		l.round = 1
		return
	}
	if l.len <= localityMax {
		l.round++
		return
	}
	goal := min((l.len-localityMax)*4/3, localityMax/2)
	for range localityRows {
		if goal -= l.rove(now-localityIdle, drop); goal <= 0 {
			return
		}
	}
}

// rove goes to the next row, drops the entries not used since, and returns their
// number.
func (l *locality[V]) rove(since int64, drop func(V)) (dropped int) {
	l.rover = (l.rover + 1) % localityRows
	for link := &l.row[l.rover]; *link != 0; {
		i := *link
		e := &l.entry[i]
		if e.used > since {
			link = &e.next
			continue
		}
		drop(e.value)
		*link = e.next
		e.next, l.free = l.free, i
		dropped++
	}
	l.len -= dropped
	return dropped
}

// crowded reports whether s has more active connections than its weight while
// another server has fewer than half of its own.
func crowded(s *Server, servers []*Server) bool {
	return s.Active() > s.Weight() && roomy(servers) != nil
}

func roomy(servers []*Server) *Server {
	for _, s := range servers {
		if 2*s.Active() < s.Weight() {
			return s
		}
	}
	return nil
}
