// SPDX-License-Identifier: Apache-2.0

package iface

// The ports that the host's own sockets hold, so that an address which the host
// shares with vsnat never has one port used twice.
//
// sock_diag is asked first; where its modules are missing and cannot be loaded
// (ENOENT), /proc/thread-self/net tells the same, more slowly. SCTP's is asked
// alone; see sctphost.go. Both speak of the namespace of the calling thread. A
// socket that is opened after the reading is not in it: whoever needs certainty
// keeps to a port range that the host does not use (ip_local_port_range).

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// BusyPort is a port that a socket of the host is bound to.
type BusyPort struct {
	// Proto is IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	Proto uint8
	// Addr is the local address; 0.0.0.0: any IPv4 address, ::: any IPv6
	// address. A socket for both is listed twice.
	Addr netip.Addr
	Port uint16
	// Listening: takes packets from anybody (TCP in state LISTEN, UDP not
	// connected, an SCTP endpoint). Otherwise it belongs to one connection or more, TIME_WAIT included.
	Listening bool
}

const (
	// sizeofDiagRequest and sizeofDiagMessage: struct inet_diag_req_v2 and struct
	// inet_diag_msg (include/uapi/linux/inet_diag.h).
	sizeofDiagRequest = 56
	sizeofDiagMessage = 72

	diagV6Only = 11 // INET_DIAG_SKV6ONLY

	// States of a socket (include/net/tcp_states.h).
	socketClose  = 7
	socketListen = 10
)

// BusyPorts lists the ports that TCP, UDP and SCTP sockets of the namespace hold,
// by protocol, address and port.
func BusyPorts() ([]BusyPort, error) {
	var busy []BusyPort
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			found, err := diagPorts(proto, family)
			if err != nil {
				var procErr error
				if found, procErr = procPorts(proto, family); procErr != nil {
					return nil, fmt.Errorf("list the ports in use: sock_diag: %w; %w", err, procErr)
				}
			}
			busy = append(busy, found...)
		}
	}
	found, err := sctpPorts()
	if err != nil {
		return nil, fmt.Errorf("list the ports in use: %w", err)
	}
	busy = append(busy, found...)
	slices.SortFunc(busy, func(a, b BusyPort) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port),
			-compareBool(a.Listening, b.Listening))
	})
	// The listening one of several on one port comes first, and stays.
	return slices.CompactFunc(busy, func(a, b BusyPort) bool {
		return a.Proto == b.Proto && a.Addr == b.Addr && a.Port == b.Port
	}), nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

type rawRequest []byte

func (r rawRequest) Len() int          { return len(r) }
func (r rawRequest) Serialize() []byte { return r }

// diagPorts asks sock_diag for the sockets of one protocol and family.
func diagPorts(proto, family uint8) ([]BusyPort, error) {
	body := make(rawRequest, sizeofDiagRequest)
	body[0], body[1] = family, proto
	binary.NativeEndian.PutUint32(body[4:], 0xfff) // all states
	var found []BusyPort
	for attempt := 0; ; attempt++ {
		request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddData(body)
		found = found[:0]
		err := request.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
			found = appendDiag(found, proto, m)
			return true
		})
		// A disturbed dump may have missed a socket; the last is better than none.
		if errors.Is(err, nl.ErrDumpInterrupted) {
			if attempt < dumpAttempts {
				continue
			}
			err = nil
		}
		return found, err
	}
}

// appendDiag appends what one struct inet_diag_msg says.
func appendDiag(to []BusyPort, proto uint8, m []byte) []BusyPort {
	if len(m) < sizeofDiagMessage {
		return to
	}
	state := m[1]
	port := binary.BigEndian.Uint16(m[4:])
	addr := netip.AddrFrom4([4]byte(m[8:]))
	v6Only := false
	if m[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(m[8:]))
		if attributes, err := nl.ParseRouteAttr(m[sizeofDiagMessage:]); err == nil {
			for _, a := range attributes {
				v6Only = v6Only || a.Attr.Type == diagV6Only && len(a.Value) > 0 && a.Value[0] != 0
			}
		}
	}
	return appendBusy(to, proto, addr, port, state, v6Only)
}

func appendBusy(to []BusyPort, proto uint8, addr netip.Addr, port uint16, state uint8, v6Only bool) []BusyPort {
	if port == 0 {
		return to
	}
	listening := state == socketListen
	if proto == unix.IPPROTO_UDP {
		listening = state == socketClose
	}
	b := BusyPort{Proto: proto, Addr: addr.Unmap(), Port: port, Listening: listening}
	to = append(to, b)
	if addr == netip.IPv6Unspecified() && !v6Only {
		b.Addr = netip.IPv4Unspecified()
		to = append(to, b)
	}
	return to
}

// procPorts reads /proc/net/tcp and its like: a line for each socket, with
// address (in 32-bit words of the host's byte order) and port as hexadecimal
// numbers in the second field and the state in the fourth.
func procPorts(proto, family uint8) ([]BusyPort, error) {
	name := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]
	if family == unix.AF_INET6 {
		name += "6"
	}
	text, err := os.ReadFile("/proc/thread-self/net/" + name)
	if errors.Is(err, os.ErrNotExist) && family == unix.AF_INET6 {
		return nil, nil // a kernel without IPv6
	}
	if err != nil {
		return nil, err
	}
	return parseProcPorts(proto, string(text)), nil
}

func parseProcPorts(proto uint8, text string) []BusyPort {
	var found []BusyPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		address, portText, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(address)
		port, portErr := strconv.ParseUint(portText, 16, 16)
		state, stateErr := strconv.ParseUint(fields[3], 16, 8)
		if err != nil || portErr != nil || stateErr != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			continue
		}
		found = appendBusy(found, proto, addr, uint16(port), uint8(state), false)
	}
	return found
}

// EphemeralRange returns the range from which the kernel takes the ports of the
// host's own connections (net.ipv4.ip_local_port_range), both ends included.
func EphemeralRange() (low, high uint16, err error) {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, fmt.Errorf("read the host's port range: %w", err)
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil || low > high {
		return 0, 0, fmt.Errorf("read the host's port range: %s says %q", path, strings.TrimSpace(string(text)))
	}
	return low, high, nil
}
