// SPDX-License-Identifier: Apache-2.0

package sched

import "fmt"

// sourceHash takes the server that the client's address hashes to, and with
// [UsePort] its port, so that a client always meets the same server (Linux
// ip_vs_sh.c). A server owns buckets in proportion to its weight. One that may
// not be chosen is replaced only with [Fallback]; without, its clients are refused
// rather than moved.
type sourceHash struct {
	bucket [hashBuckets]*Server // nil: there are no servers
	flags  Flags
}

func newSourceHash() Scheduler { return &sourceHash{} }

func (sh *sourceHash) Name() string { return "sh" }

func (sh *sourceHash) SetOptions(o Options) { sh.flags = o.Flags }

// Changed gives each server as many buckets in a row as its weight, around and
// around from the head of the list. One without weight has one bucket all the
// same: it keeps the clients from being mapped anew when it is quiesced, if its
// weight was 1.
func (sh *sourceHash) Changed(servers []*Server, _ Change) {
	sh.bucket = [hashBuckets]*Server{}
	if len(servers) == 0 {
		return
	}
	i, given := 0, 0
	for b := range sh.bucket {
		sh.bucket[b] = servers[i]
		if given++; given >= servers[i].Weight() {
			i, given = (i+1)%len(servers), 0
		}
	}
}

func (sh *sourceHash) Pick(_ []*Server, r *Request) *Server {
	s, _, _ := sh.look(r)
	return s
}

// look returns the server of the first bucket that has one to choose, the bucket
// where it began and the one where it ended.
func (sh *sourceHash) look(r *Request) (s *Server, home, at uint32) {
	home = hash32(clientKey(r, sh.flags), hashBits)
	s = sh.bucket[home]
	if s == nil || s.Eligible() {
		return s, home, home
	}
	if sh.flags&Fallback == 0 {
		return nil, home, home
	}
	// The kernel adds an offset that begins at the bucket's own number.
	for n := range uint32(hashBuckets) {
		at = (n + 2*home) % hashBuckets
		if s = sh.bucket[at]; s.Eligible() {
			return s, home, at
		}
	}
	return nil, home, home
}

func (sh *sourceHash) Explain(_ []*Server, r *Request, name Namer) (*Server, string) {
	s, home, at := sh.look(r)
	why := fmt.Sprintf("client %s hashes to bucket %d of %d, %s",
		hashed(r, sh.flags), home, hashBuckets, whose(sh.bucket[home], name))
	if at != home {
		why += fmt.Sprintf("; falling back to bucket %d, %s", at, whose(s, name))
	}
	return s, why
}

// hashed is the client as clientKey sees it.
func hashed(r *Request, flags Flags) string {
	if flags&UsePort != 0 {
		return r.Client.String()
	}
	return r.Client.Addr().String()
}
