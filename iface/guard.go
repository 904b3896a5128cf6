// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Guard keeps the host's own network stack away from packets that vsnat
// handles. A packet socket only receives copies: without a guard the host
// answers a connection to a VIP it has with a RST, a datagram with an ICMP
// port unreachable, and forwards the traffic of the real servers a second time
// where net.ipv4.ip_forward is 1.
//
// Three methods, in the order in which "auto" tries them:
//
//	nft     a table of the nf_tables family netdev, hook ingress. A tap sees a
//	        packet before that hook, so vsnat still reads what the guard drops.
//	        The table carries the owner flag: the kernel removes it with the
//	        netlink socket that made it, however the process ends.
//	socket  for each service on a host address a listening or bound socket with
//	        a filter that drops everything: no RST, no ICMP. It covers services
//	        only; what else stays uncovered is listed by Limits.
//	none    nothing, on request.
//
// A Guard is used by one goroutine. Nothing of it outlives the process, unless another one
// has what a LastingGuard gives away.
type Guard interface {
	// Apply makes rules the ones in force, all at once: no packet meets
	// neither the old nor the new ones. On an error the old rules stay. The
	// rules are copied. Applying equal rules again repairs what links coming
	// and going took away and changes nothing else.
	Apply(rules GuardRules) error

	// Limits lists, in plain sentences for the operator, what this guard
	// does not cover of the rules last applied. It reads the host's
	// settings anew at each call. Empty: everything is covered.
	Limits() []string

	// Method is one of GuardNFT, GuardSocket, GuardNone.
	Method() string

	// Close removes everything. A second Close does nothing.
	Close() error
}

// GuardCount is how many packets one kind of guard rule kept from the host,
// since the guard was opened.
type GuardCount struct {
	Rule    string // a counter's name in `nft list counters`: owned, services, snat, marks, servers, icmp-errors, inside
	Packets uint64
	Bytes   uint64
}

// GuardCounter is a Guard that counts what it drops. Only the nft method does.
type GuardCounter interface {
	Counts() ([]GuardCount, error)
}

// LastingGuard is a Guard that can stay in force from one process to the next. Only the
// nft method can.
type LastingGuard interface {
	// File is a copy of what the guard lives by. As long as one is open anywhere, the
	// rules applied last stay in force, whatever becomes of the Guard and its process; a
	// second guard beside it does no harm. The caller closes it.
	File() (*os.File, error)
}

// Names of the methods, as the configuration and Guard.Method spell them.
const (
	GuardAuto   = "auto"
	GuardNFT    = "nft"
	GuardSocket = "socket"
	GuardNone   = "none"
)

// OpenGuard opens a guard in the network namespace of the calling thread. The
// method "auto", or "", takes the first that works; why earlier ones did not is
// part of what Limits tells. A method asked for by name is taken or refused.
func OpenGuard(method string) (Guard, error) {
	switch method {
	case GuardNFT:
		return guardOr(openNFTGuard())
	case GuardSocket:
		return guardOr(openSocketGuard(""))
	case GuardNone:
		return &noGuard{}, nil
	case GuardAuto, "":
		return chooseGuard([]guardChoice{
			{GuardNFT, func(string) (Guard, error) { return guardOr(openNFTGuard()) }},
			{GuardSocket, func(why string) (Guard, error) { return guardOr(openSocketGuard(why)) }},
		})
	}
	return nil, fmt.Errorf("unknown guard method %q\nhint: use auto, nft, socket or none", method)
}

// guardOr keeps a nil pointer from becoming an interface that is not nil.
func guardOr[G Guard](g G, err error) (Guard, error) {
	if err != nil {
		return nil, err
	}
	return g, nil
}

// guardChoice is one method of the automatic choice. open is told why those
// before it were not taken.
type guardChoice struct {
	method string
	open   func(why string) (Guard, error)
}

// chooseGuard takes the first method that opens. Its error lists every reason.
func chooseGuard(choices []guardChoice) (Guard, error) {
	var whys []string
	for _, c := range choices {
		g, err := c.open(strings.Join(whys, "; "))
		if err == nil {
			return g, nil
		}
		whys = append(whys, c.method+": "+firstLine(err))
	}
	return nil, errors.New("no way to keep the host away from the traffic of vsnat: " + strings.Join(whys, "; ") +
		"\nhint: run with CAP_NET_ADMIN and nf_tables in the kernel, or set `guard: none` and keep the VIP off the host")
}

// firstLine drops the hint of an error that becomes part of another.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}
