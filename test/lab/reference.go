// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// DirectorConfig returns the configuration file of the reference cluster: the
// service at port 80 of the VIP with the given scheduler and all real servers, and
// SNAT of their network to the VIP. io is the way of input and output; empty
// leaves both to the director's defaults.
func (c Config) DirectorConfig(scheduler, io string) string {
	if full, err := c.complete(); err == nil {
		c = full
	}
	p := c.plan()
	var b strings.Builder
	b.WriteString(c.directorBasics(io))
	fmt.Fprintf(&b, "services:\n  - tcp: %s\n", yamlEndpoint(p.vip, PagePort))
	if scheduler != "" {
		fmt.Fprintf(&b, "    scheduler: %q\n", scheduler)
	}
	b.WriteString("    servers:\n")
	for i := 1; i <= c.Servers; i++ {
		fmt.Fprintf(&b, "      - %s\n", yamlEndpoint(c.ServerAddr(i), PagePort))
	}
	fmt.Fprintf(&b, "snat:\n  - from: %v\n    to: %v\n", p.inside, p.vip)
	return b.String()
}

// EmptyDirectorConfig returns a configuration file without services and SNAT.
func (c Config) EmptyDirectorConfig(io string) string {
	return c.directorBasics(io) + "services: []\n"
}

// directorBasics is what stands before the services: the addresses and routes
// that the director's host lacks if it is HostBare, io, and workers.
func (c Config) directorBasics(io string) string {
	var b strings.Builder
	if io != "" {
		fmt.Fprintf(&b, "io: %q\n", io)
	}
	if c.Workers > 0 {
		fmt.Fprintf(&b, "workers: %d\n", c.Workers)
	}
	if c.Host == HostBare {
		inner := "eth1"
		if c.OneArm {
			inner = "eth0"
		}
		p := c.plan()
		fmt.Fprintf(&b, "addresses: [%v, %v]\n", on(p.vip, p.outside), on(p.gateway, p.inside))
		fmt.Fprintf(&b, "routes:\n  - dst: %v\n    interface: eth0\n  - dst: %v\n    interface: %s\n", p.outside, p.inside, inner)
	}
	return b.String()
}

// yamlEndpoint writes an endpoint as a YAML scalar. The bracket before an IPv6
// address would open a list, if it were not quoted.
func yamlEndpoint(addr netip.Addr, port uint16) string {
	e := netip.AddrPortFrom(addr, port).String()
	if addr.Is6() {
		return fmt.Sprintf("%q", e)
	}
	return e
}
