// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/conntrack"
)

// The next packet of a busy flow is often there within microseconds, while to
// sleep and be woken takes tens of them on a virtual machine, at both ends: the
// sender has to interrupt an idle processor. So a shard that expects something
// soon looks for it for a while before it sleeps.
//
// That is good on a processor that would be idle, and bad on one that others
// want: to look keeps them off it, and to yield costs a shard its turn until they
// have had theirs, while one that sleeps is let in as soon as a packet comes. So it
// yields between two looks, and if that took long it leaves looking alone for some
// time. A port with a ring tells from memory whether something has come (iface.Looker), so
// that to look takes no other system call. To look without yielding is no faster, nor is a
// thread with a processor or a shorter time slice of its own.

const (
	// patience bounds how long a shard looks before it sleeps. It has to outlast an
	// answer: a server that is woken, and has to be interrupted for it, takes a
	// hundred microseconds.
	patience = conntrack.Time(200 * time.Microsecond)
	// impatience is what is not worth looking for.
	impatience = conntrack.Time(5 * time.Microsecond)
	// wanted is how long it takes to yield a processor that others want for good, and
	// not just to deal with what they were sent.
	wanted = conntrack.Time(500 * time.Microsecond)
	// retreat is for how long it is left to them.
	retreat = conntrack.Time(20 * time.Millisecond)
)

// linger says how long to look. It is all of patience as long as packets come
// within that, and half as long after each time that none did, so that a slow flow
// costs no processor.
type linger struct {
	length conntrack.Time
	not    conntrack.Time // no looking before
}

// after is told at the time now how long nothing came.
func (l *linger) after(now, quiet conntrack.Time) {
	switch {
	case now < l.not:
		l.length = 0
	case quiet < patience:
		l.length = patience
	default:
		if l.length /= 2; l.length < impatience {
			l.length = 0
		}
	}
}

// crowded is told at the time now that others want the processor.
func (l *linger) crowded(now conntrack.Time) { l.length, l.not = 0, now+retreat }

// await returns when a port can be read, something was asked for, or at the
// latest after a pause.
func (s *Shard) await(ids []int) (int, error) {
	if s.behind {
		return s.poller.Wait(ids, 0)
	}
	began := s.Clock()
	for now := began; now-began < s.linger.length; {
		n, err := s.look(ids)
		if n > 0 || err != nil || len(s.mail) > 0 || s.beside.expected() {
			return n, err
		}
		looked := s.Clock()
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if now = s.Clock(); now-looked > wanted {
			s.linger.crowded(now)
		}
	}
	n, err := s.sleep(ids)
	now := s.Clock()
	s.linger.after(now, now-began)
	return n, err
}

// look says which ports can be read now. It asks the kernel only if there is a port that
// cannot tell; that a port has failed is then found when the shard sleeps, or in time.
func (s *Shard) look(ids []int) (int, error) {
	n := 0
	for _, p := range &s.ports {
		if p == nil {
			continue
		}
		ready, known := false, false
		if p.looker != nil {
			ready, known = p.looker.Ready()
		}
		if !known {
			return s.poller.Wait(ids, 0)
		}
		if ready {
			ids[n] = int(p.Index)
			n++
		}
	}
	return n, nil
}

// sleep waits, unless another shard has sent something: who sends after the look finds
// the shard asleep, and wakes it.
func (s *Shard) sleep(ids []int) (int, error) {
	timeout := pause
	s.beside.asleep.Store(true)
	defer s.beside.asleep.Store(false)
	if s.beside.expected() {
		timeout = 0
	}
	return s.poller.Wait(ids, timeout)
}
