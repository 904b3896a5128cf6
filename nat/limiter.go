// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"sync/atomic"

	"github.com/vsnat/vsnat/conntrack"
)

// limiter is a token bucket that bounds the packets we make ourselves: an
// answer to each packet of a flood would be a second flood (RFC 1812 section
// 4.3.2.8). It keeps the time at which the bucket would be full of debt
// instead of a count, so that nothing has to be refilled, and so that several
// limiters can have one bucket: they share that time, and no more.
type limiter struct {
	interval conntrack.Time // of one token
	depth    conntrack.Time // interval times burst
	next     *atomic.Int64  // when the bucket is full again
}

// burstDivisor is the part of a second's allowance that may come at once.
const burstDivisor = 10

// newLimiter allows perSecond events a second in the long run, and a tenth of
// that at once after a rest. A limiter of zero or less allows nothing.
func newLimiter(perSecond int) limiter {
	l := limiter{next: new(atomic.Int64)}
	l.setRate(perSecond)
	return l
}

// setRate changes the rate of a limiter in use; what was spent stays spent.
func (l *limiter) setRate(perSecond int) {
	const second = conntrack.Time(1e9)
	l.interval, l.depth = 0, -1
	if perSecond > 0 {
		l.interval = max(second/conntrack.Time(perSecond), 1)
		l.depth = l.interval * conntrack.Time(max(perSecond/burstDivisor, 1))
	}
}

// allow takes a token if there is one. now must not go backwards.
func (l *limiter) allow(now conntrack.Time) bool {
	for {
		was := l.next.Load()
		next := max(conntrack.Time(was), now) + l.interval
		if next > now+l.depth {
			return false
		}
		if l.next.CompareAndSwap(was, int64(next)) {
			return true
		}
	}
}

// has reports whether n tokens are there.
func (l *limiter) has(now conntrack.Time, n int) bool {
	return max(conntrack.Time(l.next.Load()), now)+conntrack.Time(n)*l.interval <= now+l.depth
}
