// SPDX-License-Identifier: Apache-2.0

package iface

// What Neighbours does as time passes: ask again, give up, age.

// Tick asks again where no answer came, gives up where none came three times, and
// ages; it claims owned addresses and reports groups. To be called every 100 ms or so. failed gets the frames that waited for
// a neighbour which is given up.
func (n *Neighbours) Tick(now Time, send SendFunc, failedFrame FailedFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	expired := false
	for _, l := range []*neighbourList{&n.asking, &n.learned, &n.confirmed} {
		// An entry that moves to another list goes to its end: it is looked at
		// again at most, and has nothing to do then.
		for e := l.head; e != nil; {
			more := e.more
			expired = n.age(now, e, send, failedFrame) || expired
			e = more
		}
	}
	n.reportGroups(now, send)
	n.claimAddresses(now, send)
	// However many entries became stale, caches are emptied once.
	if expired {
		n.generation.Add(1)
	}
}

// age does what the state of an entry has to do now, and tells whether a cache
// should ask for it again.
func (n *Neighbours) age(now Time, e *neighbour, send SendFunc, failedFrame FailedFunc) (expired bool) {
	if mac, ok := n.permanent[e.key]; ok {
		n.release(e, mac, send)
		n.forget(e)
		return false
	}
	due := now >= e.next
	switch {
	case e.state == stale:
		if now >= e.used.add(idleTime) {
			n.forget(e)
		}
	case !due:
	case e.state == incomplete && e.asked < maxSolicit:
		n.askAll(now, e, send)
	case e.state == incomplete:
		e.state, e.next = failed, now.add(failedTime)
		n.stats.Failed++
		n.queue.drain(e, func(frame []byte, _ Offload) { failedFrame(e.key.port, frame) })
	case e.state == failed:
		n.forget(e)
	case e.state == probe && e.asked < maxSolicit:
		n.askOne(now, e, send)
	case e.state == probe && now >= e.used.add(2*reachableTime):
		n.forget(e)
	case e.state == probe:
		n.askAll(now, e, send)
	case e.state == reachable:
		e.state, expired = stale, e.answered
		e.answered = false
	}
	return expired
}
