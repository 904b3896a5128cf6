// SPDX-License-Identifier: Apache-2.0

package iface

// What the host's own SCTP is asked for. Nothing here makes the kernel load its
// module, as opening a socket or a dump of sock_diag would: a host without SCTP
// stays one.

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hostHasSCTP tells whether the kernel has a protocol SCTP at present. Without it
// the host answers an SCTP packet with ICMP protocol unreachable.
func hostHasSCTP() bool {
	table, err := os.ReadFile("/proc/thread-self/net/protocols")
	return err == nil && listsProtocol(table, "SCTP")
}

// listsProtocol looks for a name in the first column of /proc/net/protocols.
func listsProtocol(table []byte, name string) bool {
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 0 && f[0] == name {
			return true
		}
	}
	return false
}

// sctpPorts lists the ports that SCTP sockets of the namespace hold: listening
// ones, and those of associations.
func sctpPorts() ([]BusyPort, error) {
	var busy []BusyPort
	for _, file := range []struct {
		name            string
		port, addresses int // columns; the addresses are the last, as many as there are
		listening       bool
	}{
		{"eps", 5, 8, true},
		{"assocs", 11, 13, false},
	} {
		text, err := os.ReadFile("/proc/thread-self/net/sctp/" + file.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no SCTP
		}
		if err != nil {
			return nil, err
		}
		busy = append(busy, parseSCTPPorts(string(text), file.port, file.addresses, file.listening)...)
	}
	return busy, nil
}

// parseSCTPPorts reads /proc/net/sctp/eps or assocs (net/sctp/proc.c): a heading,
// then a line for each. The local addresses end at "<->".
func parseSCTPPorts(text string, port, addresses int, listening bool) (busy []BusyPort) {
	state := uint8(socketListen)
	if !listening {
		state = socketClose
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) <= addresses {
			continue
		}
		n, err := strconv.ParseUint(f[port], 10, 16)
		if err != nil {
			continue
		}
		for _, a := range f[addresses:] {
			if a == "<->" {
				break
			}
			// The primary address has a mark in front.
			addr, err := netip.ParseAddr(strings.TrimPrefix(a, "*"))
			if err != nil {
				continue
			}
			busy = appendBusy(busy, unix.IPPROTO_SCTP, addr, uint16(n), state, false)
		}
	}
	return busy
}
