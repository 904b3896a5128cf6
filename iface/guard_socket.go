// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// socketGuard holds one socket per service. The kernel looks a packet's socket
// up before it decides to refuse it: as long as a listener (TCP) or a bound
// socket (UDP) is found there is no RST and no ICMP, and the socket's filter
// discards the packet (tcp_filter in tcp_v4_rcv, sk_filter_trim_cap in
// udp_queue_rcv_one_skb). The sockets close with the process.
//
// A host without SCTP says protocol unreachable, but not while a raw socket of the
// protocol is bound to the address (ip_protocol_deliver_rcu). To a host that has
// SCTP that makes no difference, so that services of SCTP are not guarded there.
type socketGuard struct {
	why     string // why a better method was not taken; "" where none was tried
	rules   GuardRules
	sockets map[GuardService]int
}

// openSocketGuard tries one socket on a loopback port of the kernel's choice.
func openSocketGuard(why string) (*socketGuard, error) {
	fd, err := newGuardSocket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("guard socket: %w", err)
	}
	unix.Close(fd)
	return &socketGuard{why: why, sockets: map[GuardService]int{}}, nil
}

// Apply opens what is new before it closes what is not needed any more, and
// takes all or nothing.
func (g *socketGuard) Apply(rules GuardRules) error {
	normal, err := rules.Normal()
	if err != nil {
		return err
	}

	next := make(map[GuardService]int, len(normal.Services))
	var errs []error
	for _, s := range normal.Services {
		if !canGuard(s) {
			continue
		}
		if fd, ok := g.sockets[s]; ok {
			next[s] = fd
			continue
		}
		fd, err := openGuardSocket(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next[s] = fd
	}

	drop, keep := g.sockets, next
	if len(errs) > 0 {
		drop, keep = next, g.sockets
	}
	for s, fd := range drop {
		if _, ok := keep[s]; !ok {
			unix.Close(fd)
		}
	}
	g.sockets = keep
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	g.rules = normal
	return nil
}

// canGuard: a socket stands for one port of TCP or UDP, or for all of SCTP.
func canGuard(s GuardService) bool {
	if s.Proto == unix.IPPROTO_SCTP {
		return !hostHasSCTP()
	}
	return s.Port != 0
}

func (g *socketGuard) Limits() []string {
	limits := transitLimits(g.rules)
	for _, s := range g.rules.Services {
		if !canGuard(s) {
			limits = append(limits, fmt.Sprintf("the host itself answers traffic to %s: a guard socket stands for one TCP or UDP port, and for SCTP where the kernel has none", s))
		}
	}
	if g.why != "" && len(limits) > 0 {
		limits = append(limits, "guard sockets are in use because a better guard is missing: "+g.why)
	}
	return limits
}

func (g *socketGuard) Method() string { return GuardSocket }

func (g *socketGuard) Close() error {
	for _, fd := range g.sockets {
		unix.Close(fd)
	}
	g.sockets = map[GuardService]int{}
	return nil
}

// newGuardSocket makes a socket that discards whatever it is given. The filter
// is there before the socket has an address, so no packet slips in.
func newGuardSocket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &dropAll[0]})
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	return fd, nil
}

// openGuardSocket stands in for a service. The address need not be there yet
// (IP_FREEBIND): a VIP may come to the host a moment after its service.
func openGuardSocket(s GuardService) (int, error) {
	family, level, freebind := unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND
	var addr unix.Sockaddr
	if s.Addr.Is4() {
		addr = &unix.SockaddrInet4{Port: int(s.Port), Addr: s.Addr.As4()}
	} else {
		family, level, freebind = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND
		addr = &unix.SockaddrInet6{Port: int(s.Port), Addr: s.Addr.As16()}
	}
	kind, protocol := unix.SOCK_STREAM, 0
	switch s.Proto {
	case unix.IPPROTO_UDP:
		kind = unix.SOCK_DGRAM
	case unix.IPPROTO_SCTP:
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_SCTP
	}

	fd, err := newGuardSocket(family, kind, protocol)
	if err != nil {
		return -1, fmt.Errorf("guard socket for %s: %w", s, err)
	}
	stream := kind == unix.SOCK_STREAM
	steps := []struct {
		name string
		when bool
		do   func() error
	}{
		// Without it a connection in TIME_WAIT that a former listener left
		// behind refuses the port. A live listener still refuses it.
		{"setsockopt SO_REUSEADDR", stream, func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }},
		{"setsockopt FREEBIND", true, func() error { return unix.SetsockoptInt(fd, level, freebind, 1) }},
		{"bind", true, func() error { return unix.Bind(fd, addr) }},
		{"listen", stream, func() error { return unix.Listen(fd, 1) }},
	}
	for _, step := range steps {
		if !step.when {
			continue
		}
		if err := step.do(); err != nil {
			unix.Close(fd)
			return -1, guardSocketError(s, os.NewSyscallError(step.name, err))
		}
	}
	return fd, nil
}

// guardSocketError explains a port that another process has.
func guardSocketError(s GuardService, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		holders := portHolders(s)
		who := "another socket"
		if len(holders) > 0 {
			who = strings.Join(holders, " and ")
		}
		return fmt.Errorf("guard socket for %s: %w: %s has the port and would answer too\nhint: stop it or bind it to another address, or use `guard: nft`", s, err, who)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("guard socket for %s: %w\nhint: ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE", s, err)
	}
	return fmt.Errorf("guard socket for %s: %w", s, err)
}
