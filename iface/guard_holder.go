// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// portHolders describes the sockets of the calling thread's namespace that stand
// in the way of a guard socket for s, with the process where /proc lets us see
// it. Best effort: an empty answer means that nothing could be found out.
func portHolders(s GuardService) []string {
	var inodes []string
	for _, file := range []string{protoName(s.Proto), protoName(s.Proto) + "6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		inodes = append(inodes, holderInodes(b, s)...)
	}
	var holders []string
	for _, inode := range inodes {
		holder := "socket inode " + inode
		if process := socketProcess(inode); process != "" {
			holder = process + " (" + holder + ")"
		}
		holders = append(holders, holder)
	}
	return holders
}

// holderInodes reads a table in the form of /proc/net/tcp: TCP listeners, and
// unconnected UDP sockets, on the port of s at its address or at any address.
func holderInodes(table []byte, s GuardService) []string {
	const (
		local, state, inode = 1, 3, 9
		listening           = "0A"
		unconnected         = "07" // TCP_CLOSE stands for a UDP socket without a peer
	)
	want := listening
	if s.Proto == unix.IPPROTO_UDP {
		want = unconnected
	}
	var inodes []string
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= inode || f[state] != want {
			continue
		}
		at, ok := parseProcEndpoint(f[local])
		if !ok || at.Port() != s.Port {
			continue
		}
		if at.Addr().IsUnspecified() || at.Addr().Unmap() == s.Addr {
			inodes = append(inodes, f[inode])
		}
	}
	return inodes
}

// parseProcEndpoint reads "0100007F:1F90": the address is printed as 32-bit words in
// host byte order, the port as a number.
func parseProcEndpoint(text string) (netip.AddrPort, bool) {
	addrText, portText, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(addrText)
	port, errPort := strconv.ParseUint(portText, 16, 16)
	if err != nil || errPort != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) { // both of our platforms are little endian
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}

// socketProcess finds a process that has the socket open: "nginx, process 4711".
func socketProcess(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		return fmt.Sprintf("%s, process %s", strings.TrimSpace(string(name)), filepath.Base(process))
	}
	return ""
}
