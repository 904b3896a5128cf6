// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// hashBits is the size of the tables of dh and sh: 2⁸ buckets (Linux Kconfig,
// IP_VS_DH_TAB_BITS and IP_VS_SH_TAB_BITS).
const (
	hashBits    = 8
	hashBuckets = 1 << hashBits
)

// destinationHash takes the server that the destination address hashes to (Linux
// ip_vs_dh.c). It is made for caches in front of many destinations, which are one
// service by firewall mark; a service with one address has one destination, and
// hence one server. Weights do not count, and a server that may not be chosen is
// not replaced: its share is refused.
type destinationHash struct {
	bucket [hashBuckets]*Server // nil: there are no servers
}

func newDestinationHash() Scheduler { return &destinationHash{} }

func (dh *destinationHash) Name() string { return "dh" }

// Changed deals out the buckets like cards, from the head of the list.
func (dh *destinationHash) Changed(servers []*Server, _ Change) {
	dh.bucket = [hashBuckets]*Server{}
	if len(servers) == 0 {
		return
	}
	for b := range dh.bucket {
		dh.bucket[b] = servers[b%len(servers)]
	}
}

func (dh *destinationHash) Pick(_ []*Server, r *Request) *Server {
	if s := dh.bucket[hash32(fold(r.Virtual.Addr()), hashBits)]; s != nil && s.Eligible() {
		return s
	}
	return nil
}

func (dh *destinationHash) Explain(servers []*Server, r *Request, name Namer) (*Server, string) {
	bucket := hash32(fold(r.Virtual.Addr()), hashBits)
	return dh.Pick(servers, r), fmt.Sprintf("destination %s hashes to bucket %d of %d, %s",
		r.Virtual.Addr(), bucket, hashBuckets, whose(dh.bucket[bucket], name))
}
