// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Resolver turns names into numbers and back. Proto is an IANA number.
type Resolver interface {
	Host(name string) (netip.Addr, bool) // IPv4 only
	HostName(netip.Addr) (string, bool)
	Port(name string, proto uint8) (uint16, bool)
	PortName(port uint16, proto uint8) (string, bool)
}

// How long look-ups may take: one that turns a word of the command line into an
// address, and all together that put names into a listing. A listing of a
// thousand servers beside a dead name server must not hang.
const (
	hostTime    = 5 * time.Second
	listingTime = 1500 * time.Millisecond
)

// systemResolver asks what the host asks: its hosts and services files and its
// name servers. It serves one command, from one goroutine.
type systemResolver struct {
	net   *net.Resolver
	left  time.Duration         // of listingTime
	names map[netip.Addr]string // "" for an address without a name
	ports *serviceFile          // nil until needed
}

func newSystemResolver() *systemResolver {
	return &systemResolver{net: net.DefaultResolver, left: listingTime, names: map[netip.Addr]string{}}
}

func (r *systemResolver) Host(name string) (netip.Addr, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), hostTime)
	defer cancel()
	addrs, err := r.net.LookupNetIP(ctx, "ip4", name)
	if err != nil || len(addrs) == 0 {
		return netip.Addr{}, false
	}
	return addrs[0].Unmap(), true
}

func (r *systemResolver) HostName(addr netip.Addr) (string, bool) {
	name, known := r.names[addr]
	if !known && r.left > 0 {
		name = r.lookup(addr)
		r.names[addr] = name
	}
	return name, name != ""
}

func (r *systemResolver) lookup(addr netip.Addr) string {
	ctx, cancel := context.WithTimeout(context.Background(), r.left)
	defer cancel()
	start := time.Now()
	names, err := r.net.LookupAddr(ctx, addr.String())
	r.left -= time.Since(start)
	if err != nil || len(names) == 0 {
		return ""
	}
	return strings.TrimSuffix(names[0], ".")
}

func (r *systemResolver) Port(name string, proto uint8) (uint16, bool) {
	if port, ok := r.services().byName[serviceName{name, protoName(proto)}]; ok {
		return port, true
	}
	// Without a services file the standard library still knows a few.
	port, err := r.net.LookupPort(context.Background(), protoName(proto), name)
	if err != nil || port < 1 {
		return 0, false
	}
	return uint16(port), true
}

func (r *systemResolver) PortName(port uint16, proto uint8) (string, bool) {
	name, ok := r.services().byPort[servicePort{port, protoName(proto)}]
	return name, ok
}

func (r *systemResolver) services() *serviceFile {
	if r.ports == nil {
		r.ports = &serviceFile{}
		if f, err := os.Open("/etc/services"); err == nil {
			r.ports.read(f)
			f.Close()
		}
	}
	return r.ports
}

// A serviceFile is what services(5) lists: names and aliases of ports.
type serviceFile struct {
	byName map[serviceName]uint16
	byPort map[servicePort]string
}

type serviceName struct{ name, proto string }

type servicePort struct {
	port  uint16
	proto string
}

// read adds what r lists; where something is listed twice the first counts.
func (f *serviceFile) read(r io.Reader) {
	f.byName, f.byPort = map[serviceName]uint16{}, map[servicePort]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		number, proto, ok := strings.Cut(fields[1], "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if !ok || err != nil {
			continue
		}
		key := servicePort{uint16(port), proto}
		if _, listed := f.byPort[key]; !listed {
			f.byPort[key] = fields[0]
		}
		for i, name := range fields {
			if i == 1 {
				continue
			}
			if _, listed := f.byName[serviceName{name, proto}]; !listed {
				f.byName[serviceName{name, proto}] = uint16(port)
			}
		}
	}
}

func protoName(proto uint8) string {
	switch proto {
	case tcp:
		return "tcp"
	case udp:
		return "udp"
	case sctp:
		return "sctp"
	default:
		return fmt.Sprint(proto)
	}
}
