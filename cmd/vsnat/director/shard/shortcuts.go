// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"io"
	"sync/atomic"

	"github.com/vsnat/vsnat/conntrack"
	"github.com/vsnat/vsnat/iface"
	"github.com/vsnat/vsnat/iface/shortcut"
	"github.com/vsnat/vsnat/nat"
)

// Shortcuts: the kernel forwards what is in the middle of a connection. Package nat says
// which and when, package shortcut has the programs, and here one is brought to the
// other: ports become links, next hops link addresses.

// TakeShortcuts gives each shard its part of the rows of a table. It is called before Run.
func (all Set) TakeShortcuts(t *shortcut.Table, rows int) {
	each := rows / len(all)
	for i, s := range all {
		s.short = &shortcuts{table: t, shard: s, first: i * each, rows: make([]shortcutRow, each)}
		s.forwarder.SetShortcuts(s.short)
	}
}

// A ShortcutLink is a link that shortcuts begin at. Any goroutine may call it.
type ShortcutLink struct {
	index    int
	attached atomic.Bool
	program  io.Closer
	failure  atomic.Pointer[string]
}

// NewShortcutLink is for a link with a program, which it closes.
func NewShortcutLink(index int, program io.Closer) *ShortcutLink {
	l := &ShortcutLink{index: index, program: program}
	l.attached.Store(true)
	return l
}

// Close has all that arrives there come to the queues again, as soon as the shards have
// looked at their rows. Nil has nothing to close.
func (l *ShortcutLink) Close() {
	if l != nil && l.attached.Swap(false) {
		_ = l.program.Close() // there is nothing to be done about it
	}
}

// fail closes it for a reason that Failure tells.
func (l *ShortcutLink) fail(why string) {
	l.failure.Store(&why)
	l.Close()
}

// Failure is why it was closed by itself, or "".
func (l *ShortcutLink) Failure() string {
	if l == nil {
		return ""
	}
	if why := l.failure.Load(); why != nil {
		return *why
	}
	return ""
}

// shortcuts are a shard's part of the table. It implements nat.Shortcuts.
type shortcuts struct {
	table      *shortcut.Table
	shard      *Shard
	first      int
	rows       []shortcutRow
	generation uint32 // of the neighbours, that the rows were looked at with
}

// A shortcutRow is what one was opened with.
type shortcutRow struct {
	ways    [2]shortcut.Way
	in, out [2]*Port
	next    [2]nat.Verdict // to be resolved: To is zero
	passed  [2]shortcut.Passed
}

// Rows implements nat.Shortcuts.
func (t *shortcuts) Rows() int { return len(t.rows) }

// Open implements nat.Shortcuts.
func (t *shortcuts) Open(row int, ways *[2]nat.ShortWay, from *[2]conntrack.Window) bool {
	r := &t.rows[row]
	*r = shortcutRow{}
	for dir := range ways {
		w := &ways[dir]
		in, out := t.shard.ports[w.In%nat.MaxPorts], t.shard.ports[w.Out.Port%nat.MaxPorts]
		if in == nil || out == nil || in.Shortcuts == nil || out.Shortcuts == nil || !in.Shortcuts.attached.Load() {
			return false
		}
		r.in[dir], r.out[dir], r.next[dir] = in, out, w.Out
		to, ok := t.resolve(r, dir)
		if !ok {
			return false
		}
		r.ways[dir] = shortcut.Way{
			In: in.Shortcuts.index, From: w.From, Anybody: w.From == conntrack.LinkAddr{},
			Src: shortcutEnd(w.Arrives.Src), Dst: shortcutEnd(w.Arrives.Dst),
			Out: out.Shortcuts.index, ToMAC: to, FromMAC: out.MAC,
			NewSrc: shortcutEnd(w.Leaves.Src), NewDst: shortcutEnd(w.Leaves.Dst), MTU: int(w.MTU),
			Reached: shortcut.Reached{End: from[dir].End, Ack: from[dir].Ack, Window: from[dir].Win, Shift: from[dir].Scale},
		}
	}
	return t.table.Put(t.first+row, &r.ways) == nil
}

func shortcutEnd(e conntrack.Endpoint) shortcut.Endpoint {
	return shortcut.Endpoint{Addr: e.Addr, Port: e.Port}
}

// resolve is the link address that a way leads to.
func (t *shortcuts) resolve(r *shortcutRow, dir int) (conntrack.LinkAddr, bool) {
	if to := r.next[dir].To; to != (conntrack.LinkAddr{}) {
		return to, true
	}
	mac, ok := t.shard.neighbours.Lookup(iface.Time(t.shard.now), int(r.out[dir].Index), r.next[dir].NextHop.Netip())
	return mac, ok
}

// suspicious is how many frames a filter may leave to the program of its link without
// one of them being forwarded.
const suspicious = 8

// Passed implements nat.Shortcuts.
func (t *shortcuts) Passed(row int, passed *[2]nat.Passed) bool {
	r := &t.rows[row]
	var now [2]shortcut.Passed
	t.table.Passed(t.first+row, &now)
	sound := true
	for dir := range now {
		p, w := &now[dir], &r.ways[dir]
		passed[dir] = nat.Passed{
			Packets: p.Packets, Bytes: p.Bytes,
			Reached: conntrack.Window{End: p.Reached.End, Ack: p.Reached.Ack, Win: p.Reached.Window},
		}
		in, out := r.in[dir], r.out[dir]
		if t.shard.ports[in.Index] != in || t.shard.ports[out.Index] != out || !in.Shortcuts.attached.Load() {
			sound = false
			continue
		}
		if to, ok := t.resolve(r, dir); !ok || to != w.ToMAC {
			sound = false
		}
		if p.Packets == r.passed[dir].Packets && p.Left-r.passed[dir].Left > suspicious {
			in.Shortcuts.fail("something else takes packets there before the program of vsnat sees them")
			t.generation-- // look at all rows
			sound = false
		}
	}
	r.passed = now
	return sound
}

// Close implements nat.Shortcuts.
func (t *shortcuts) Close(row int) { t.table.Take(t.first+row, &t.rows[row].ways) }

// follow looks at all rows when a neighbour may have another link address.
func (t *shortcuts) follow() {
	if t == nil {
		return
	}
	if g := t.shard.neighbours.Generation(); g != t.generation {
		t.generation = g
		t.shard.forwarder.RecheckShortcuts()
	}
}
