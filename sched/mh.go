// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"math/bits"
	"slices"
)

// The size of the table, a prime, and the keys of the two hashes (Linux
// ip_vs_mh.c; CONFIG_IP_VS_MH_TAB_INDEX 12).
const (
	maglevSlots    = 4093
	maglevBits     = 6 // no server claims 2⁶ slots or more in a row
	maglevKey      = 2654435761
	maglevSkipsKey = 2654446892
)

// maglev takes the server that the client's address hashes to, with [UsePort] its
// port too, like sh; but when a server comes or goes, few clients of the others
// move (Eisenbud and others, "Maglev: a fast and reliable software network load
// balancer", 2016, section 3.4; Linux ip_vs_mh.c). A server that may not be chosen
// is replaced only with [Fallback].
//
// Each server has an order of its own in which it likes the slots, made from its
// address and port. In turns, as many at a time as its weight says, they claim the
// slot they like best of those left. The weight that counts is the last one above
// 0: quiescing a server maps nobody anew, and when its weight returns so do its
// clients.
type maglev struct {
	slot  [maglevSlots]*Server // nil: no server has ever had a weight
	flags Flags
}

func newMaglev() Scheduler { return &maglev{} }

func (mh *maglev) Name() string { return "mh" }

func (mh *maglev) SetOptions(o Options) { mh.flags = o.Flags }

// A claimant is a server that claims slots.
type claimant struct {
	server *Server
	next   int // the slot it likes best and has not tried
	skip   int // from there to the next, modulo the table
	turns  int // slots it claims in a row
}

// Changed fills the table. Of more servers than slots, those at the end of the
// list get none.
func (mh *maglev) Changed(servers []*Server, _ Change) {
	mh.slot = [maglevSlots]*Server{}
	claimants := maglevClaimants(servers)
	for left := maglevSlots; left > 0 && len(claimants) > 0; {
		for i := range claimants {
			c := &claimants[i]
			for n := c.turns; n > 0 && left > 0; n-- {
				mh.slot[c.claim(&mh.slot)] = c.server
				left--
			}
		}
	}
}

// claim goes on to a free slot, of which there must be one.
func (c *claimant) claim(slot *[maglevSlots]*Server) int {
	for slot[c.next] != nil {
		c.next = (c.next + c.skip) % maglevSlots
	}
	return c.next
}

// maglevClaimants returns the servers that ever had a weight, in the order of the
// list. Weights are divided by what they have in common, and if one is still
// large, by a power of two that makes all of them small.
func maglevClaimants(servers []*Server) []claimant {
	divisor, largest := 0, 0
	for _, s := range servers {
		divisor, largest = gcd(s.LastWeight(), divisor), max(largest, s.LastWeight())
	}
	if divisor == 0 {
		return nil
	}
	shift := max(0, bits.Len(uint(largest/divisor))-maglevBits)
	var claimants []claimant
	for _, s := range servers {
		if s.LastWeight() == 0 {
			continue
		}
		key := fold(s.Addr.Addr()) + uint32(s.Addr.Port())
		claimants = append(claimants, claimant{
			server: s,
			next:   int(hsipHash(key, maglevKey) % maglevSlots),
			skip:   int(hsipHash(key, maglevSkipsKey)%(maglevSlots-1)) + 1,
			turns:  max(1, s.LastWeight()/divisor>>shift),
		})
	}
	return claimants
}

func (mh *maglev) Pick(servers []*Server, r *Request) *Server {
	s, _, _ := mh.look(servers, r)
	return s
}

// look returns the server of the first slot that has one to choose, the slot
// where it began and the one where it ended.
func (mh *maglev) look(servers []*Server, r *Request) (s *Server, home, at uint32) {
	key := clientKey(r, mh.flags)
	home = hsipHash(key, maglevKey) % maglevSlots
	s = mh.slot[home]
	if s == nil || s.Eligible() {
		return s, home, home
	}
	// Without the second condition thousands of hashes would find nobody.
	if mh.flags&Fallback == 0 || !slices.ContainsFunc(servers, (*Server).Eligible) {
		return nil, home, home
	}
	for n := range uint32(maglevSlots) {
		at = hsipHash(key+(n+home)%maglevSlots, maglevKey) % maglevSlots
		if s = mh.slot[at]; s.Eligible() {
			return s, home, at
		}
	}
	return nil, home, home
}

func (mh *maglev) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	s, home, at := mh.look(servers, r)
	why := fmt.Sprintf("client %s hashes to slot %d of %d, %s",
		hashed(r, mh.flags), home, maglevSlots, whose(mh.slot[home], name))
	if at != home {
		why += fmt.Sprintf("; falling back to slot %d, %s", at, whose(s, name))
	}
	return s, why
}
