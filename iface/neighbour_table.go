// SPDX-License-Identifier: Apache-2.0

package iface

// The entries of Neighbours, in a map and in three lists, the one used longest
// ago first: those that are asked for, those learned from requests, those
// confirmed. Room is made in that order. What is in use and confirmed goes last.

// neighbourList is a list of entries, the one used longest ago at the head.
type neighbourList struct {
	head, tail *neighbour
	length     int
}

func (l *neighbourList) append(e *neighbour) {
	e.list, e.prev, e.more = l, l.tail, nil
	if l.tail != nil {
		l.tail.more = e
	} else {
		l.head = e
	}
	l.tail = e
	l.length++
}

func (l *neighbourList) remove(e *neighbour) {
	if e.prev != nil {
		e.prev.more = e.more
	} else {
		l.head = e.more
	}
	if e.more != nil {
		e.more.prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.list, e.prev, e.more = nil, nil, nil
	l.length--
}

// moveTo puts an entry at the end of a list, its own or another.
func (e *neighbour) moveTo(list *neighbourList) {
	e.list.remove(e)
	list.append(e)
}

// insert makes an entry in a list, and room for it if need be.
func (n *Neighbours) insert(key neighbourKey, list *neighbourList) *neighbour {
	for len(n.entries) >= maxNeighbours {
		for _, l := range []*neighbourList{&n.asking, &n.learned, &n.confirmed} {
			if l.head != nil {
				n.forget(l.head)
				n.stats.Evicted++
				break
			}
		}
	}
	e := &neighbour{key: key}
	n.entries[key] = e
	list.append(e)
	return e
}

// forget removes an entry and what waits for it.
func (n *Neighbours) forget(e *neighbour) {
	n.queue.drain(e, func([]byte, Offload) { n.stats.QueueDisplaced++ })
	n.revoke(e)
	e.list.remove(e)
	delete(n.entries, e.key)
}

// revoke moves the Generation if a cache may hold what e says.
func (n *Neighbours) revoke(e *neighbour) {
	if e.answered {
		e.answered = false
		n.generation.Add(1)
	}
}
