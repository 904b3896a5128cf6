// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// Metrics is the address for monitoring.
type Metrics struct {
	Listen netip.AddrPort // not valid: there is none
	Hosts  []string       // names that it may be asked by, in lower case, beside addresses and localhost
	Ready  Readiness
}

// Readiness is what /readyz asks for.
type Readiness string

// Readinesses.
const (
	ReadyLinks   Readiness = "links"   // links are open and the host's stack is kept away; the default
	ReadyServers Readiness = "servers" // and each service has a server that takes new connections
)

type rawMetrics struct {
	Listen text  `key:"listen,short"`
	Hosts  words `key:"hosts"`
	Ready  text  `key:"ready"`
	At     Position
}

func (p reader) metrics(raw *rawMetrics, c *Metrics) {
	if t := raw.Listen; t.given() && !t.refused {
		c.Listen = p.listen(t)
	}
	for _, t := range raw.Hosts {
		name := strings.ToLower(t.value)
		if _, err := netip.ParseAddr(name); err == nil || name == "" || strings.ContainsAny(name, ":/@*[] \t") {
			p.add(t.at, "a name such as lb1.example.com; addresses are always allowed", "%.60q is not the name of a host", t.value)
			continue
		}
		c.Hosts = append(c.Hosts, name)
	}
	word(p, raw.Ready, "ready", &c.Ready, ReadyLinks, ReadyServers)
}

// listen reads address:port, or a port, which is then one of 127.0.0.1.
func (p reader) listen(t text) netip.AddrPort {
	if n, err := strconv.ParseUint(t.value, 10, 16); err == nil && n > 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n))
	}
	a, err := netip.ParseAddrPort(t.value)
	if err != nil || a.Port() == 0 {
		p.add(t.at, "for example 127.0.0.1:9887, or \"[::1]:9887\"", "%.60q is not an address and a port to listen on", t.value)
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (w *writer) metrics(c Metrics) {
	d := Default().Metrics
	if !c.Listen.IsValid() && len(c.Hosts) == 0 && c.Ready == d.Ready {
		return
	}
	w.line("metrics:")
	if c.Listen.IsValid() {
		w.line("  listen: %s", quote(c.Listen.String()))
	}
	w.list("  hosts", c.Hosts)
	w.set("  ready", string(c.Ready), string(d.Ready))
}
