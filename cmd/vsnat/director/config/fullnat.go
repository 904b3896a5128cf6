// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// Full NAT: whose address a server sees as its client's.

// sourceNAT leaves out what is the default.
func (p reader) sourceNAT(raw *rawServer, into *string) {
	word(p, raw.NAT, "nat", into, control.NATMasquerade, control.NATFull, control.NATAuto)
	if *into == control.NATMasquerade {
		*into = ""
	}
}

func sourceNATFaults(server control.ServerSpec) []fault {
	list := wordFaults("nat", server.NAT, control.NATMasquerade, control.NATFull, control.NATAuto)
	if list == nil && server.RewritesSource() && server.Method != "" && server.Method != control.MethodNAT {
		list = []fault{{"nat", "with method: " + server.Method + " no address is rewritten", "leave nat out, or use method: nat"}}
	}
	return list
}

// crossLocal refuses a server at an address that clients appear with.
func (p reader) crossLocal(services []located, locals []netip.Prefix) {
	own := make(map[netip.Addr]bool, len(locals))
	for _, prefix := range locals {
		own[prefix.Addr()] = true
	}
	for _, s := range services {
		for i, server := range s.Servers {
			if a := server.Address.Addr(); own[a] {
				p.add(s.servers[i], "give the address of the real server", "server %s is an address of the director (local-addresses)", a)
			}
		}
	}
}
