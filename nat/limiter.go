// SPDX-License-Identifier: Apache-2.0

package nat

import "github.com/vsnat/vsnat/conntrack"

// limiter is a token bucket that bounds the packets we make ourselves: an
// answer to each packet of a flood would be a second flood (RFC 1812 section
// 4.3.2.8). It keeps the time at which the bucket would be full of debt
// instead of a count, so that nothing has to be refilled.
type limiter struct {
	interval conntrack.Time // of one token
	depth    conntrack.Time // interval times burst
	next     conntrack.Time // when the bucket is full again
}

// newLimiter allows perSecond events a second in the long run, and burst at
// once after a rest. Both must be positive.
func newLimiter(perSecond, burst int) limiter {
	const second = conntrack.Time(1e9)
	interval := second / conntrack.Time(perSecond)
	return limiter{interval: interval, depth: interval * conntrack.Time(burst)}
}

// allow takes a token if there is one. now must not go backwards.
func (l *limiter) allow(now conntrack.Time) bool {
	next := max(l.next, now) + l.interval
	if next > now+l.depth {
		return false
	}
	l.next = next
	return true
}
