// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"strings"
)

// DirectorConfig returns the configuration file of the reference cluster: the
// service 192.168.88.23:80 with the given scheduler and all real servers, and
// SNAT of their network to the VIP. io is the way of input and output; empty
// leaves both to the director's defaults.
func (c Config) DirectorConfig(scheduler, io string) string {
	if full, err := c.complete(); err == nil {
		c = full
	}
	var b strings.Builder
	b.WriteString(c.directorBasics(io))
	fmt.Fprintf(&b, "services:\n  - tcp: %v:%d\n", vip, PagePort)
	if scheduler != "" {
		fmt.Fprintf(&b, "    scheduler: %q\n", scheduler)
	}
	b.WriteString("    servers:\n")
	for i := 1; i <= c.Servers; i++ {
		fmt.Fprintf(&b, "      - %v:%d\n", c.ServerAddr(i), PagePort)
	}
	fmt.Fprintf(&b, "snat:\n  - from: %v\n    to: %v\n", inside, vip)
	return b.String()
}

// EmptyDirectorConfig returns a configuration file without services and SNAT.
func (c Config) EmptyDirectorConfig(io string) string {
	return c.directorBasics(io) + "services: []\n"
}

// directorBasics is what stands before the services: the addresses and routes
// that the director's host lacks if it is HostBare, and io.
func (c Config) directorBasics(io string) string {
	var b strings.Builder
	if io != "" {
		fmt.Fprintf(&b, "io: %q\n", io)
	}
	if c.Host == HostBare {
		inner := "eth1"
		if c.OneArm {
			inner = "eth0"
		}
		fmt.Fprintf(&b, "addresses: [%v, %v]\n", on(vip, outside), on(gateway, inside))
		fmt.Fprintf(&b, "routes:\n  - dst: %v\n    interface: eth0\n  - dst: %v\n    interface: %s\n", outside, inside, inner)
	}
	return b.String()
}
